"""Attention between resolutions: the U-Net's decoder asks the levels of its encoder.

A skip connection hands over the features of the same level, pixel by pixel. Here each level of the
decoder also asks all others, by cross-attention: its pixels are the queries, the encoder's pixels
of every other resolution the keys and values. Positions are what they have in common.

Sources: Huang et al. 2020, "UNet 3+: a full-scale connected UNet", for skips between all levels;
Vaswani et al. 2017 for attention and positions. The default U-Net has none of this, and a
checkpoint in diffusers' format has no place for it: these weights have a file of their own.
"""

from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..checkpoint import fingerprint, load_extension, save_extension, unet_from_hf, unet_to_hf
from ..models import UNet, UNetConfig
from ..models.layers import levels, picture, tokens
from ..models.unet import Attention, timestep_features
from ..pipeline import StableDiffusion
from ..training import RECIPES, Run
from ..training.pool import encode_pool
from ..training.stages import train_stage, unet_stage
from . import Wrapper, unwrapped

RECIPE = RECIPES["unet"]
SPAN = 8  # the side of every feature map, whatever its resolution, in units of the positions


def positions(height: int, width: int, channels: int, device) -> Tensor:
    """Sinusoids for the middles of the pixels: (H * W, C), half for rows and half for columns."""
    rows, columns = (
        timestep_features((torch.arange(n, device=device) + 0.5) * SPAN / n, channels // 2)
        for n in (height, width)
    )  # (H, C/2) and (W, C/2)
    each = rows[:, None].expand(-1, width, -1), columns[None].expand(height, -1, -1)
    return torch.cat(each, dim=-1).flatten(0, 1)  # (H * W, C)


def placed(x: Tensor) -> Tensor:
    """Features (B, C, H, W) -> tokens that know where they are, (B, N, C)."""
    return tokens(x) + positions(*x.shape[2:], x.shape[1], x.device).to(x.dtype)


class CrossResolution(nn.Module):
    """Features (B, C, H, W) ask those of other resolutions, [(B, Ck, Hk, Wk)]: (B, C, H, W)."""

    def __init__(self, channels: int, others: list[int], config: UNetConfig):
        super().__init__()
        groups = config.norm_num_groups
        self.norm = nn.GroupNorm(groups, channels)
        self.norms = nn.ModuleList([nn.GroupNorm(groups, c) for c in others])
        self.proj_in = nn.ModuleList([nn.Conv2d(c, channels, 1) for c in others])
        self.attention = Attention(channels, channels, config.num_heads)
        nn.init.zeros_(self.attention.to_out[0].weight)  # at first the U-Net is the usual one
        nn.init.zeros_(self.attention.to_out[0].bias)

    def forward(self, x: Tensor, others: list[Tensor]) -> Tensor:
        layers = zip(self.norms, self.proj_in, others, strict=True)
        context = [placed(proj(norm(y))) for norm, proj, y in layers]  # (B, Nk, C) each
        h = self.attention(placed(self.norm(x)), torch.cat(context, dim=1))  # (B, N, C)
        return x + picture(h, like=x)  # (B, C, H, W)


class CrossResolutionUNet(UNet):
    """The U-Net, whose decoder asks the encoder's other levels before each of its own."""

    def __init__(self, config: UNetConfig):
        super().__init__(config)
        widths = config.block_out_channels
        others = [[*widths[:i], *widths[i + 1 :]] for i in range(len(widths))]  # of each level
        self.bridges = nn.ModuleList(
            CrossResolution(a, other, config)
            for (a, _, _), other in zip(levels(widths[::-1]), others[::-1], strict=True)
        )

    def forward(self, x: Tensor, t: Tensor, context: Tensor) -> Tensor:
        """x (B, 4, H, W), t (B,) or a scalar, context (B, L, D) -> (B, 4, H, W)."""
        time = self.time_embedding(t.expand(len(x)))  # (B, 4 * widths[0])
        x = self.conv_in(x)  # (B, C0, H, W)
        skips, encoded = [x], []
        for block in self.down_blocks:
            x, new = block(x, time, context)  # (B, C1, H/2, W/2), ...
            skips += new
            encoded.append(new[len(block.resnets) - 1])  # of each level, before it is halved
        x = self.mid_block(x, time, context)  # (B, C_last, H/f, W/f)
        for i, (block, bridge) in enumerate(zip(self.up_blocks, self.bridges, strict=True), 1):
            others = [y for y in encoded if y is not encoded[-i]]
            x = block(bridge(x, others), skips, time, context)  # ..., (B, C0, H, W)
        return self.conv_out(F.silu(self.conv_norm_out(x)))  # (B, 4, H, W)


class CrossResolutionDiffusion(Wrapper):
    """The pipeline with that U-Net in place of its own."""

    def __init__(self, pipe: StableDiffusion, unet: CrossResolutionUNet):
        super().__init__(replace(unwrapped(pipe), unet=unet))

    def save_pretrained(self, folder: str | Path, dtype: torch.dtype | None = None) -> None:
        unet = self.pipe.unet
        save_extension(folder, unet, unet_to_hf(unet.config), stands_on(self.pipe), dtype)


def stands_on(pipe: StableDiffusion) -> str:
    return fingerprint(pipe.autoencoder, pipe.text_encoder)


def extend(run: Run, pipe: StableDiffusion) -> CrossResolutionDiffusion:
    """Train the U-Net from nothing, on the pipeline's own autoencoder and text encoder."""
    pool = encode_pool(run, pipe.autoencoder, pipe.tokenizer, pipe.text_encoder)
    unet = train_stage(run, unet_stage(run, pool, "cross_resolution", CrossResolutionUNet))
    return CrossResolutionDiffusion(pipe, unet)


def load(folder: str | Path, pipe: StableDiffusion) -> CrossResolutionDiffusion:
    build = lambda config: CrossResolutionUNet(unet_from_hf(config))  # noqa: E731
    unet = load_extension(folder, "cross-resolution", build, stands_on(pipe))
    return CrossResolutionDiffusion(pipe, unet.to(pipe.device, pipe.dtype))
