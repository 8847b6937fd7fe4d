"""Pictures that come in: files, PIL images, arrays or tensors become tensors of pixels."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from torch import Tensor

from .errors import InputError, quote, shorten, warn

BACKGROUND = "white"  # behind transparent pixels
NOT_A_PICTURE = (OSError, ValueError, SyntaxError)
KINDS = "a PIL image, an array (H, W, 3), a tensor (3, H, W), or a list of them"


@contextmanager
def reading(what: str) -> Iterator[None]:
    """InputError if it is no picture; the system itself says why a file cannot be opened."""
    try:
        yield
    except NOT_A_PICTURE as error:
        if getattr(error, "errno", None):
            raise
        reason = shorten(f"{error or type(error).__name__}", 200)
        raise InputError(f"{what} is no picture: {reason}") from error


def open_picture(path: Path) -> Image.Image:
    """The picture of a file, as `load_picture`. InputError if it is none."""
    with reading(quote(str(path), 200)):
        return load_picture(path)


def load_picture(path: Path) -> Image.Image:
    """The picture of a file, as `to_rgb`. One of NOT_A_PICTURE if it cannot be read."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(path)
    except Image.DecompressionBombError as error:
        most = 2 * Image.MAX_IMAGE_PIXELS // 10**6
        raise ValueError(f"it has more than {most} million pixels") from error
    with image:
        return to_rgb(image)


def to_rgb(image: Image.Image) -> Image.Image:
    """Upright, in RGB, what is transparent on a plain background.

    One of NOT_A_PICTURE if it cannot be read, or if its pixels have no known range.
    """
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) // 256).astype(np.uint8))
    elif image.mode in ("I", "F"):
        raise ValueError(f"its mode is {image.mode}; save it with 8 bits a channel")
    image = image.convert("RGBA")
    plain = Image.new("RGBA", image.size, BACKGROUND)
    return Image.alpha_composite(plain, image).convert("RGB")


def to_pixels(name: str, images, channels: int = 3) -> Tensor:
    """Pictures of any of KINDS, alone or several -> (B, 3, H, W) in [0, 1]; one size for all.

    Arrays and tensors hold bytes, or floats in [0, 1]. channels 1: shades of grey. InputError for
    anything else.
    """
    several = list(images) if isinstance(images, (list, tuple)) else [images]
    if not several:
        raise InputError(f"{name} is an empty list")
    rows = [one_to_pixels(name, image, channels) for image in several]
    if len({row.shape[1:] for row in rows}) > 1:
        raise InputError(f"{name} has pictures of several sizes; give them one")
    return torch.cat(rows)


def one_to_pixels(name: str, image, channels: int) -> Tensor:
    """One picture, or an array or a tensor with a batch of them -> (B, C, H, W) in [0, 1]."""
    if isinstance(image, Image.Image):
        with reading(name):
            image = np.asarray(to_rgb(image).convert("RGB" if channels == 3 else "L"))
    numbers = f"{name} must hold bytes, or numbers from 0 to 1"
    if isinstance(image, np.ndarray):
        try:
            x = torch.from_numpy(np.array(image, order="C"))  # a copy, as PIL's may not be written
        except TypeError as error:  # objects, texts
            raise InputError(numbers) from error
        x = x[..., None] if channels == 1 and x.dim() == 2 else x
        x = x.movedim(-1, -3) if x.dim() in (3, 4) else x
    elif isinstance(image, Tensor):
        x = image[None] if channels == 1 and image.dim() == 2 else image
    else:
        raise InputError(f"{name} must be {KINDS}, not {quote(image)}")
    x = x[None] if x.dim() == 3 else x
    if x.dim() != 4 or x.shape[1] != channels or not x.numel():
        raise InputError(f"{name} must be {KINDS}, not of the shape {tuple(image.shape)}")
    x = x.float() / 255 if x.dtype == torch.uint8 else x.float()
    if not ((x >= 0) & (x <= 1)).all():
        raise InputError(numbers)
    return x


def resize(name: str, x: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, C, H, W) -> (B, C, *size), and says so if that changes it."""
    if x.shape[2:] == size:
        return x
    was, now = ("x".join(map(str, reversed(shape))) for shape in (x.shape[2:], size))
    squashed = x.shape[2] * size[1] != x.shape[3] * size[0]
    more = ", which changes its proportions; crop it first to keep them" if squashed else ""
    warn(f"{name} was resized from {was} to {now} pixels{more}")
    return F.interpolate(x, size, mode="bicubic", antialias=True).clamp(0, 1)
