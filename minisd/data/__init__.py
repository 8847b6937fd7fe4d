"""Captioned pictures: two worlds of digits, or a folder of your own.

The functions here are the methods of the world of one digit; `TWO` has the same for two digits.
"""

from ..errors import InputError
from .dataset import POOL_BATCH, Batch, Dataset, World, cycle, fits
from .digits import load_digits
from .folder import Folder, Pictures
from .one import ONE, OneDigit
from .scenes import RGB
from .two import TWO, TwoDigits

WORLDS = {"one": ONE, "two": TWO}
SIZES = (32, 64)  # pixels, of the pictures of a folder

ATTRIBUTES, VALUES = ONE.attributes, ONE.values
say, write_captions, render, draw_batch = ONE.say, ONE.write_captions, ONE.render, ONE.batch
is_held_out = ONE.is_held_out
all_combinations = ONE.all_combinations
seen_combinations = ONE.seen_combinations
held_out_combinations = ONE.held_out_combinations


def load_dataset(name: str, image_size: int | None = None) -> Dataset:
    """A world of WORLDS, or the folder of that name, its pictures resized to `image_size` (32)."""
    if name not in WORLDS:
        return Folder(name, image_size or SIZES[0])
    if image_size not in (None, WORLDS[name].image_size):
        raise InputError(f"{name} is rendered at {WORLDS[name].image_size} pixels only")
    return WORLDS[name]
