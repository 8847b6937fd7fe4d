"""Blocks that the autoencoder, the U-Net and CLIP share.

Attribute names are those of `diffusers`, so that a state dict loads unchanged.
Shapes: B batch, C channels, H W pixels, N = H*W tokens, M keys, D context width.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class MultiHeadAttention(nn.Module):
    """softmax(q k^T / sqrt(d)) v for several heads at once; has no weights.

    q (B, N, C), k and v (B, M, C) -> (B, N, C). `mask` is added to the scores and broadcasts to
    (B, heads, N, M). The softmax is a module so that a forward hook can read the attention maps.
    Source: Vaswani et al. 2017, "Attention is all you need", equation 1.
    """

    def __init__(self, heads: int):
        super().__init__()
        self.heads = heads
        self.softmax = nn.Softmax(dim=-1)

    def forward(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
        q, k, v = (x.unflatten(-1, (self.heads, -1)) for x in (q, k, v))  # (B, N or M, heads, d)
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))                  # (B, heads, N or M, d)
        scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)          # (B, heads, N, M)
        if mask is not None:
            scores = scores + mask
        out = self.softmax(scores) @ v                                    # (B, heads, N, d)
        return out.transpose(1, 2).flatten(2)                             # (B, N, C)


class ResidualBlock(nn.Module):
    """x + f(x), where f is (norm, SiLU, 3x3 convolution) twice.

    x (B, in, H, W), time (B, time_channels) or None -> (B, out, H, W). The time embedding is added
    between the convolutions. Sources: He et al. 2016; Ho et al. 2020, appendix B.
    """

    def __init__(self, in_channels, out_channels, groups, eps: float, time_channels=None):
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, in_channels, eps)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        if time_channels is not None:
            self.time_emb_proj = nn.Linear(time_channels, out_channels)
        self.norm2 = nn.GroupNorm(groups, out_channels, eps)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        same = in_channels == out_channels
        self.conv_shortcut = nn.Identity() if same else nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor, time: Tensor | None = None) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))                           # (B, out, H, W)
        if time is not None:
            h = h + self.time_emb_proj(F.silu(time))[:, :, None, None]  # (B, out, 1, 1) added
        h = self.conv2(F.silu(self.norm2(h)))                           # (B, out, H, W)
        return self.conv_shortcut(x) + h                                # (B, out, H, W)


class Downsample(nn.Module):
    """Halves the resolution with a strided 3x3 convolution: (B, C, H, W) -> (B, C, H/2, W/2).

    `padding=1` pads every side (the U-Net), `padding=0` right and bottom only (the autoencoder).
    """

    def __init__(self, channels: int, padding: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2, padding=padding)
        self.extra = (0, 0, 0, 0) if padding else (0, 1, 0, 1)  # left, right, top, bottom

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, self.extra))  # (B, C, H/2, W/2)


class Upsample(nn.Module):
    """Doubles the resolution: repeat each pixel, then smooth. (B, C, H, W) -> (B, C, 2H, 2W).

    `size`, if given, is the height and width to reach instead: what Downsample halved may be odd.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor, size: torch.Size | None = None) -> Tensor:
        size = size or [2 * side for side in x.shape[2:]]
        return self.conv(F.interpolate(x, size, mode="nearest"))  # (B, C, 2H, 2W)


def tokens(x: Tensor) -> Tensor:
    """Picture to sequence: (B, C, H, W) -> (B, H*W, C)."""
    return x.flatten(2).transpose(1, 2)


def picture(x: Tensor, like: Tensor) -> Tensor:
    """Sequence to picture: (B, H*W, C) -> (B, C, H, W), with the height and width of `like`."""
    return x.transpose(1, 2).unflatten(2, like.shape[2:])


def levels(widths: tuple[int, ...]) -> list[tuple[int, int, bool]]:
    """For each level: the width before it, its own width, and whether it is the last."""
    before = (widths[0], *widths[:-1])
    return [(a, b, i == len(widths)) for i, (a, b) in enumerate(zip(before, widths), start=1)]


def matrices_between(model: nn.Module, ends: list[nn.Module]) -> list[nn.Parameter]:
    """All matrices and convolutions of a model, except those of its first and last layers."""
    outer = {id(p) for end in ends for p in end.parameters()}
    return [p for p in model.parameters() if p.ndim > 1 and id(p) not in outer]


def parameter_count(model: nn.Module) -> int:
    """The number of weights of a model."""
    return sum(p.numel() for p in model.parameters())
