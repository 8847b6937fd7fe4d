"""The denoiser: a U-Net with self- and cross-attention.

Noised latents (B, 4, H, W), timesteps (B,) and context (B, L, D) -> prediction (B, 4, H, W).
Sources: Ronneberger et al. 2015 (skip connections); Ho et al. 2020 (time embedding); Rombach et al.
2022, section 3.3 (cross-attention). Attribute names as in `diffusers.UNet2DConditionModel`.
"""

import math
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import InputError
from .layers import (
    Downsample,
    MultiHeadAttention,
    ResidualBlock,
    Upsample,
    levels,
    matrices_between,
    picture,
    tokens,
)

EPS = 1e-5  # residual blocks and conv_norm_out; the transformer's group norm has 1e-6


@dataclass(frozen=True)
class UNetConfig:
    """Defaults are minisd's. `cross_attention[i]` says whether level i attends to the prompt."""

    sample_size: int = 8
    in_channels: int = 4
    out_channels: int = 4
    block_out_channels: tuple[int, ...] = (32, 64)
    cross_attention: tuple[bool, ...] = (True, True)
    layers_per_block: int = 1
    num_heads: int = 4
    cross_attention_dim: int = 128
    norm_num_groups: int = 16

    def __post_init__(self):
        """InputError unless there is an entry of cross_attention for each level."""
        widths, entries = len(self.block_out_channels), len(self.cross_attention)
        if widths != entries:
            count = f"{widths} levels and cross_attention {entries} entries"
            raise InputError(f"block_out_channels has {count}")


def timestep_features(t: Tensor, channels: int) -> Tensor:
    """Timesteps (B,) -> (B, channels): cosines, then sines. Vaswani et al. 2017, section 3.5."""
    half = channels // 2
    frequencies = torch.exp(-math.log(10_000) * torch.arange(half, device=t.device) / half)
    angles = t.float()[:, None] * frequencies  # (B, half)
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


class TimeEmbedding(nn.Module):
    """Timesteps (B,) -> (B, 4 * channels): sinusoids through a small network."""

    def __init__(self, channels: int):
        super().__init__()
        self.channels = channels
        self.linear_1 = nn.Linear(channels, 4 * channels)
        self.linear_2 = nn.Linear(4 * channels, 4 * channels)

    def forward(self, t: Tensor) -> Tensor:
        features = timestep_features(t, self.channels).to(self.linear_1.weight.dtype)  # (B, C)
        return self.linear_2(F.silu(self.linear_1(features)))                          # (B, 4C)


class Attention(nn.Module):
    """x (B, N, C) attends to context (B, M, D), or to itself: (B, N, C). No bias on q, k, v."""

    def __init__(self, channels: int, context_dim: int, heads: int):
        super().__init__()
        self.to_q = nn.Linear(channels, channels, bias=False)
        self.to_k = nn.Linear(context_dim, channels, bias=False)
        self.to_v = nn.Linear(context_dim, channels, bias=False)
        self.to_out = nn.ModuleList([nn.Linear(channels, channels)])
        self.attention = MultiHeadAttention(heads)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        context = x if context is None else context                     # (B, M, D)
        q, k, v = self.to_q(x), self.to_k(context), self.to_v(context)  # (B, N or M, C)
        return self.to_out[0](self.attention(q, k, v))                  # (B, N, C)


class GEGLU(nn.Module):
    """C -> 4C, half of it gating the other: (B, N, C) -> (B, N, 4C). Source: Shazeer 2020."""

    def __init__(self, channels: int):
        super().__init__()
        self.proj = nn.Linear(channels, 8 * channels)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.proj(x).chunk(2, dim=-1)  # (B, N, 4C) each
        return value * F.gelu(gate)                  # (B, N, 4C)


class FeedForward(nn.Module):
    """(B, N, C) -> (B, N, C), each token by itself."""

    def __init__(self, channels: int):
        super().__init__()
        # diffusers has dropout at index 1; Identity keeps the key of the last layer, net.2
        self.net = nn.Sequential(GEGLU(channels), nn.Identity(), nn.Linear(4 * channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)  # (B, N, C)


class TransformerBlock(nn.Module):
    """Pixels attend to one another (attn1), then to the prompt (attn2); then each has an MLP."""

    def __init__(self, channels: int, context_dim: int, heads: int):
        super().__init__()
        self.norm1 = nn.LayerNorm(channels)
        self.attn1 = Attention(channels, channels, heads)
        self.norm2 = nn.LayerNorm(channels)
        self.attn2 = Attention(channels, context_dim, heads)
        self.norm3 = nn.LayerNorm(channels)
        self.ff = FeedForward(channels)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        x = x + self.attn1(self.norm1(x))           # (B, N, C)
        x = x + self.attn2(self.norm2(x), context)  # (B, N, C); context (B, L, D)
        return x + self.ff(self.norm3(x))           # (B, N, C)


class SpatialTransformer(nn.Module):
    """A transformer block over the pixels of a feature map (B, C, H, W), added to its input."""

    def __init__(self, channels: int, config: UNetConfig):
        super().__init__()
        self.norm = nn.GroupNorm(config.norm_num_groups, channels, eps=1e-6)
        self.proj_in = nn.Conv2d(channels, channels, 1)
        block = TransformerBlock(channels, config.cross_attention_dim, config.num_heads)
        self.transformer_blocks = nn.ModuleList([block])
        self.proj_out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        h = tokens(self.proj_in(self.norm(x)))        # (B, N, C)
        h = self.transformer_blocks[0](h, context)    # (B, N, C)
        return x + self.proj_out(picture(h, like=x))  # (B, C, H, W)


class Level(nn.Module):
    """What the levels of both halves share: residual blocks, with or without transformers."""

    def __init__(self, widths: list[tuple[int, int]], attends: bool, config: UNetConfig):
        super().__init__()
        groups, time_channels = config.norm_num_groups, 4 * config.block_out_channels[0]
        blocks = [ResidualBlock(a, b, groups, EPS, time_channels) for a, b in widths]
        self.resnets = nn.ModuleList(blocks)
        if attends:
            self.attentions = nn.ModuleList([SpatialTransformer(b, config) for _, b in widths])
        self.attends = attends

    def layer(self, i: int, x: Tensor, time: Tensor, context: Tensor) -> Tensor:
        x = self.resnets[i](x, time)                                  # (B, out, H, W)
        return self.attentions[i](x, context) if self.attends else x  # (B, out, H, W)


class DownBlock(Level):
    """One level on the way down; every feature map is kept as a skip connection."""

    def __init__(self, in_channels, out_channels, attends: bool, last: bool, config: UNetConfig):
        ins = [in_channels] + [out_channels] * (config.layers_per_block - 1)
        super().__init__([(a, out_channels) for a in ins], attends, config)
        if not last:
            self.downsamplers = nn.ModuleList([Downsample(out_channels, padding=1)])
        self.last = last

    def forward(self, x: Tensor, time: Tensor, context: Tensor) -> tuple[Tensor, list[Tensor]]:
        skips = []
        for i in range(len(self.resnets)):
            x = self.layer(i, x, time, context)  # (B, out, H, W)
            skips.append(x)
        if not self.last:
            x = self.downsamplers[0](x)          # (B, out, H/2, W/2)
            skips.append(x)
        return x, skips


class UpBlock(Level):
    """One level on the way up; each layer takes one skip connection besides its input.

    The next one has the size to go up to: 2H, or 2H - 1 where that was halved on the way down.
    """

    def __init__(self, in_channels, out_channels, skips, attends, last, config: UNetConfig):
        ins = [in_channels] + [out_channels] * config.layers_per_block
        widths = [(a + skip, out_channels) for a, skip in zip(ins, skips, strict=True)]
        super().__init__(widths, attends, config)
        if not last:
            self.upsamplers = nn.ModuleList([Upsample(out_channels)])
        self.last = last

    def forward(self, x: Tensor, skips: list[Tensor], time: Tensor, context: Tensor) -> Tensor:
        for i in range(len(self.resnets)):
            x = torch.cat([x, skips.pop()], dim=1)                             # (B, in+skip, H, W)
            x = self.layer(i, x, time, context)                                # (B, out, H, W)
        return x if self.last else self.upsamplers[0](x, skips[-1].shape[2:])  # (B, out, 2H, 2W)


class MidBlock(nn.Module):
    """Residual block, transformer, residual block at the lowest resolution."""

    def __init__(self, channels: int, config: UNetConfig):
        super().__init__()
        sizes = channels, channels, config.norm_num_groups, EPS, 4 * config.block_out_channels[0]
        self.resnets = nn.ModuleList([ResidualBlock(*sizes) for _ in range(2)])
        self.attentions = nn.ModuleList([SpatialTransformer(channels, config)])

    def forward(self, x: Tensor, time: Tensor, context: Tensor) -> Tensor:
        x = self.resnets[0](x, time)        # (B, C, H, W)
        x = self.attentions[0](x, context)  # (B, C, H, W)
        return self.resnets[1](x, time)     # (B, C, H, W)


class UNet(nn.Module):
    """Down to the lowest resolution, through the middle, and up again with skip connections."""

    def __init__(self, config: UNetConfig | None = None):
        super().__init__()
        self.config = config = config or UNetConfig()
        widths, attends = config.block_out_channels, config.cross_attention
        self.conv_in = nn.Conv2d(config.in_channels, widths[0], 3, padding=1)
        self.time_embedding = TimeEmbedding(widths[0])

        self.down_blocks = nn.ModuleList()
        skips = [widths[0]]  # the widths of the skip connections, in order
        for i, (a, b, last) in enumerate(levels(widths)):
            self.down_blocks.append(DownBlock(a, b, attends[i], last, config))
            skips += [b] * (config.layers_per_block + (not last))

        self.mid_block = MidBlock(widths[-1], config)

        self.up_blocks = nn.ModuleList()
        for (a, b, last), attend in zip(levels(widths[::-1]), attends[::-1], strict=True):
            taken = [skips.pop() for _ in range(config.layers_per_block + 1)]
            self.up_blocks.append(UpBlock(a, b, taken, attend, last, config))

        self.conv_norm_out = nn.GroupNorm(config.norm_num_groups, widths[0], EPS)
        self.conv_out = nn.Conv2d(widths[0], config.out_channels, 3, padding=1)
        self.init_weights()

    def init_weights(self):
        """Every residual block starts as the identity, and the whole network's output at zero."""
        ends = [m.conv2 for m in self.modules() if isinstance(m, ResidualBlock)]
        ends += [m.proj_out for m in self.modules() if isinstance(m, SpatialTransformer)]
        for layer in (*ends, self.conv_out):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def hidden_matrices(self) -> list[nn.Parameter]:
        """The weights for Muon: all but the first and last layers and the time embedding."""
        return matrices_between(self, [self.conv_in, self.time_embedding, self.conv_out])

    def forward(self, x: Tensor, t: Tensor, context: Tensor) -> Tensor:
        """x (B, 4, H, W), t (B,) or a scalar, context (B, L, D) -> (B, 4, H, W)."""
        time = self.time_embedding(t.expand(len(x)))         # (B, 4 * widths[0])
        x = self.conv_in(x)                                  # (B, C0, H, W)
        skips = [x]
        for block in self.down_blocks:
            x, new = block(x, time, context)                 # (B, C1, H/2, W/2), ...
            skips += new
        x = self.mid_block(x, time, context)                 # (B, C_last, H/f, W/f)
        for block in self.up_blocks:  # each takes its skips off the end
            x = block(x, skips, time, context)               # ..., (B, C0, H, W)
        return self.conv_out(F.silu(self.conv_norm_out(x)))  # (B, 4, H, W)


@contextmanager
def cross_attention_maps(unet: UNet):
    """Collect the cross-attention maps of every call in `with cross_attention_maps(unet) as maps:`.

    Yields a dict from layer name to a list of (B, heads, N, L) tensors, one for each call. Forward
    hooks read them, so the model runs the same code as without. With guidance, B holds the empty
    prompts first, then the prompts.
    """
    maps: dict[str, list[Tensor]] = {}

    def keep(name: str, weights: Tensor) -> None:
        maps.setdefault(name, []).append(weights.detach())

    with change_cross_attention(unet, keep):
        yield maps


@contextmanager
def change_cross_attention(unet: UNet, change: Callable[[str, Tensor], Tensor | None]):
    """Inside, change(layer name, maps (B, heads, N, L)) may return other maps, which then count."""
    hooks = []
    for name, module in unet.named_modules():
        if name.endswith("attn2"):
            hook = lambda _, __, weights, name=name: change(name, weights)  # noqa: E731
            hooks.append(module.attention.softmax.register_forward_hook(hook))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
