"""Put handwritten digits into pictures, a batch at once, on any device."""

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from .digits import load_digits

SIZE = 32  # pixels along each side of a picture
COLOURS = {  # red, green, blue
    "red": (1.0, 0.1, 0.1),
    "orange": (1.0, 0.55, 0.0),
    "yellow": (1.0, 1.0, 0.1),
    "green": (0.1, 0.85, 0.1),
    "cyan": (0.0, 0.9, 0.9),
    "blue": (0.15, 0.3, 1.0),
    "purple": (0.7, 0.15, 0.9),
    "white": (1.0, 1.0, 1.0),
}
RGB = tuple(COLOURS.values())
SHIFT, STRETCH, TURN = 0.7, 0.06, 0.12  # random variation: pixels, relative scale, radians
FINE = 2  # render at this many times the resolution, then average: no jagged edges


@cache
def digits_by_class(split: str, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Handwriting sorted by class: images (n, 28, 28), each class's first index and count (10,)."""
    images, labels = load_digits(split)
    counts = labels.bincount(minlength=10)
    order = labels.argsort(stable=True)
    return images[order].to(device), (counts.cumsum(0) - counts).to(device), counts.to(device)


def draw_digit(
    digit: Tensor, colour: Tensor, scale, centre: Tensor, chance: Tensor, split: str, size=SIZE
) -> Tensor:
    """The light (B, 3, size, size) in [0, 1] of digits on black pictures.

    digit and colour (B,) are indices; scale and centre as for `transform`, before a little random
    variation. chance (B, 5) in [0, 1) decides handwriting, scale, angle and shift.
    """
    images, first, count = digits_by_class(split, digit.device)
    glyphs = images[first[digit] + (chance[:, 0] * count[digit]).long()]  # (B, 28, 28)
    jitter = 2 * chance[:, 1:] - 1  # (B, 4) in [-1, 1]
    scale, angle = scale * (1 + STRETCH * jitter[:, 0]), TURN * jitter[:, 1]
    shifted = centre + SHIFT * jitter[:, 2:]  # (B, 2)
    grey = transform(glyphs, scale, angle, shifted, size)  # (B, 1, size, size)
    return grey * torch.tensor(RGB, device=digit.device)[colour][:, :, None, None]


def transform(
    glyphs: Tensor, scale: Tensor, angle: Tensor, centre: Tensor, size: int = SIZE
) -> Tensor:
    """Put handwriting onto black pictures: glyphs (B, 28, 28) -> (B, 1, size, size) in [0, 1].

    scale (B,): picture pixels per pixel of the handwriting; angle (B,) in radians; centre (B, 2):
    where its middle goes, in pixels (x, y) from the picture's centre. All pixels are those of
    pictures of 32: a larger size shows the same scene more finely.
    """
    # For each output pixel, look up where it comes from: rotate and scale about the centre, in
    # coordinates in which each picture spans [-1, 1].
    zoom = SIZE / 28 / scale
    cos, sin = zoom * angle.cos(), zoom * angle.sin()
    affine = torch.stack([cos, sin, -sin, cos], dim=-1).unflatten(-1, (2, 2))  # (B, 2, 2)
    n = size * FINE
    middles = (torch.arange(n, device=glyphs.device) + 0.5) * (2 / n) - 1  # of pixels, (n,)
    pixels = torch.stack(torch.meshgrid(middles, middles, indexing="xy")).flatten(1)  # (2, n * n)
    with torch.autocast(glyphs.device.type, enabled=False):  # coordinates need all 32 bits
        source = affine @ pixels - affine @ (centre / (SIZE / 2))[..., None]  # (B, 2, n * n)
        grid = source.unflatten(-1, (n, n)).permute(0, 2, 3, 1)  # (B, n, n, 2)
        grey = F.grid_sample(glyphs[:, None], grid, align_corners=False)  # (B, 1, n, n)
    return F.avg_pool2d(grey, FINE)
