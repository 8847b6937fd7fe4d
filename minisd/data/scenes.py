"""Render attributes into pictures, a batch at once, on any device."""

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from .digits import load_digits

SIZE = 32  # pixels along each side of a picture
RGB = (  # in the order of captions.COLOURS
    (1.0, 0.1, 0.1),  # red
    (1.0, 0.55, 0.0),  # orange
    (1.0, 1.0, 0.1),  # yellow
    (0.1, 0.85, 0.1),  # green
    (0.0, 0.9, 0.9),  # cyan
    (0.15, 0.3, 1.0),  # blue
    (0.7, 0.15, 0.9),  # purple
    (1.0, 1.0, 1.0),  # white
)
SCALE = (0.58, 0.86)  # small, large: picture pixels per pixel of the 28x28 handwriting
CENTRE = (  # of each position (x, y), seen from the picture's centre, in units of OFFSET
    (-1.0, -1.0),  # top left
    (1.0, -1.0),  # top right
    (-1.0, 1.0),  # bottom left
    (1.0, 1.0),  # bottom right
    (0.0, 0.0),  # center
)
OFFSET = (8.0, 5.0)  # how far the corners are from the centre for small and large digits, in pixels
SHIFT, STRETCH, TURN = 0.7, 0.06, 0.12  # natural variation: pixels, relative scale, radians


@cache
def digits_by_class(split: str, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Handwriting sorted by class: images (n, 28, 28), each class's first index and count (10,)."""
    images, labels = load_digits(split)
    counts = labels.bincount(minlength=10)
    order = labels.argsort(stable=True)
    return images[order].to(device), (counts.cumsum(0) - counts).to(device), counts.to(device)


def handwriting(digit: Tensor, chance: Tensor, split: str) -> Tensor:
    """Some handwriting of each digit: digit (B,), chance (B,) in [0, 1) -> (B, 28, 28)."""
    pool, first, count = digits_by_class(split, digit.device)
    return pool[first[digit] + (chance * count[digit]).long()]


def render(
    attributes: Tensor,
    split: str = "train",
    generator: torch.Generator | None = None,
    supersample: int = 2,
) -> Tensor:
    """Attributes (B, 4) -> pictures (B, 3, 32, 32) in [-1, 1], on the attributes' device.

    Handwriting, shift, scale and angle are drawn with `generator`, a CPU one: every device renders
    the same pictures. supersample: as for `transform`.
    """
    device = attributes.device
    digit, colour, size, position = attributes.unbind(dim=-1)
    chance = torch.rand(len(attributes), 5, generator=generator).to(device)
    glyphs = handwriting(digit, chance[:, 0], split)  # (B, 28, 28)

    jitter = 2 * chance[:, 1:] - 1  # (B, 4) in [-1, 1]
    scale = torch.tensor(SCALE, device=device)[size] * (1 + STRETCH * jitter[:, 0])
    offset = torch.tensor(OFFSET, device=device)[size, None]
    centre = torch.tensor(CENTRE, device=device)[position] * offset + SHIFT * jitter[:, 2:]
    grey = transform(glyphs, scale, TURN * jitter[:, 1], centre, supersample)  # (B, 1, 32, 32)
    return 2 * grey * torch.tensor(RGB, device=device)[colour][:, :, None, None] - 1


def transform(
    glyphs: Tensor, scale: Tensor, angle: Tensor, centre: Tensor, supersample: int = 2
) -> Tensor:
    """Put handwriting onto black pictures: glyphs (B, 28, 28) -> (B, 1, 32, 32) in [0, 1].

    scale (B,): picture pixels per pixel of the handwriting; angle (B,) in radians; centre (B, 2):
    where its middle goes, in pixels (x, y) from the picture's centre; supersample: render at this
    many times the resolution, then average, which leaves no jagged edges.
    """
    # For each output pixel, look up where it comes from: rotate and scale about the centre, in
    # coordinates in which each picture spans [-1, 1].
    zoom = SIZE / 28 / scale
    cos, sin = zoom * angle.cos(), zoom * angle.sin()
    turn = torch.stack([cos, sin, -sin, cos], dim=-1).unflatten(-1, (2, 2))  # (B, 2, 2)
    fine = SIZE * supersample
    along = (torch.arange(fine, device=glyphs.device) + 0.5) * (2 / fine) - 1  # pixels' middles
    pixels = torch.stack(torch.meshgrid(along, along, indexing="xy")).flatten(1)  # (2, 64 * 64)
    with torch.autocast(glyphs.device.type, enabled=False):  # coordinates need all 32 bits
        source = turn @ pixels - turn @ (centre / (SIZE / 2))[..., None]  # (B, 2, 64 * 64)
        grid = source.unflatten(-1, (fine, fine)).permute(0, 2, 3, 1)  # (B, 64, 64, 2)
        grey = F.grid_sample(glyphs[:, None], grid, align_corners=False)  # (B, 1, 64, 64)
    return F.avg_pool2d(grey, supersample)
