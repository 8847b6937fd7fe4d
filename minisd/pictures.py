"""Pictures that come in: files, PIL images, arrays or tensors become tensors of pixels."""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from torch import Tensor

from .errors import InputError, quote, shorten, warn

BACKGROUND = "white"  # behind transparent pixels
NOT_A_PICTURE = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)
KINDS = "a PIL image, an array (H, W, 3), a tensor (3, H, W), or a list of them"


def open_picture(path: Path) -> Image.Image:
    """The picture of a file, as `load_picture`. InputError if it is none."""
    try:
        return load_picture(path)
    except FileNotFoundError:
        raise
    except NOT_A_PICTURE as error:
        reason = shorten(f"{error or type(error).__name__}", 200)
        raise InputError(f"{quote(str(path), 200)} is no picture: {reason}") from error


def load_picture(path: Path) -> Image.Image:
    """The picture of a file, upright and in RGB. One of NOT_A_PICTURE if it cannot be read.

    ValueError if its pixels have no known range.
    """
    with Image.open(path) as image:
        image = ImageOps.exif_transpose(image)
        if image.mode.startswith("I;16"):
            image = Image.fromarray((np.asarray(image) // 256).astype(np.uint8))
        elif image.mode in ("I", "F"):
            raise ValueError(f"its mode is {image.mode}; save it with 8 bits a channel")
        return flat(image)


def flat(image: Image.Image) -> Image.Image:
    """In RGB, what is transparent on a plain background."""
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
        image = np.asarray(flat(image) if channels == 3 else flat(image).convert("L"))
    if isinstance(image, np.ndarray):
        x = torch.from_numpy(np.array(image, order="C"))  # a copy, as PIL's may not be written
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
        raise InputError(f"{name} must hold bytes, or numbers from 0 to 1")
    return x


def resize(name: str, x: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, C, H, W) -> (B, C, *size), and says so if that changes it."""
    if x.shape[2:] == size:
        return x
    was, now = ("x".join(map(str, reversed(shape))) for shape in (x.shape[2:], size))
    warn(f"{name} was resized from {was} to {now} pixels")
    return F.interpolate(x, size, mode="bicubic", antialias=True).clamp(0, 1)
