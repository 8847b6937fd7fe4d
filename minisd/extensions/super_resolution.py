"""Super-resolution: drawn pictures of 32 x 32 pixels become 128 x 128.

Shi et al. 2016, "Real-time single image and video super-resolution using an efficient sub-pixel
convolutional neural network", with the residual blocks of Lim et al. 2017 (EDSR).
"""

import torch.nn.functional as F
from torch import Tensor, nn

FACTOR = 4  # times as many pixels along each side


class SubPixel(nn.Module):
    """Twice the size: a convolution makes four channels of each, which become 2 x 2 pixels."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, 4 * channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return F.pixel_shuffle(self.conv(x), 2)  # (B, C, 2H, 2W)


class SuperResolution(nn.Module):
    """What a bicubic enlargement lacks, added to it: (B, 3, H, W) -> (B, 3, 4H, 4W), in [-1, 1]."""

    def __init__(self, channels: int = 32, blocks: int = 4):
        super().__init__()
        self.conv_in = nn.Conv2d(3, channels, 3, padding=1)
        conv = lambda: nn.Conv2d(channels, channels, 3, padding=1)  # noqa: E731
        self.blocks = nn.ModuleList(nn.Sequential(conv(), nn.ReLU(), conv()) for _ in range(blocks))
        self.up = nn.Sequential(SubPixel(channels), nn.ReLU(), SubPixel(channels), nn.ReLU())
        self.conv_out = nn.Conv2d(channels, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv_in(x)  # (B, C, H, W)
        for block in self.blocks:
            h = h + block(h)  # (B, C, H, W)
        fine = self.conv_out(self.up(h))  # (B, 3, 4H, 4W)
        return F.interpolate(x, scale_factor=FACTOR, mode="bicubic") + fine
