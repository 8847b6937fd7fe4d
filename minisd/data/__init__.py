"""Captioned pictures: two worlds of digits, or a folder of your own.

The functions here are those of the world of one digit; `TWO` has the same for two digits.
"""

from .captions import ATTRIBUTES, VALUES, say, write_captions
from .dataset import POOL_BATCH, Batch, Dataset, World, cycle
from .digits import load_digits
from .one import ONE, OneDigit
from .scenes import RGB, render
from .two import TWO, TwoDigits

is_held_out = ONE.is_held_out
all_combinations = ONE.all_combinations
seen_combinations = ONE.seen_combinations
held_out_combinations = ONE.held_out_combinations
draw_batch = ONE.batch

__all__ = [
    "ATTRIBUTES",
    "ONE",
    "POOL_BATCH",
    "RGB",
    "TWO",
    "VALUES",
    "Batch",
    "Dataset",
    "OneDigit",
    "TwoDigits",
    "World",
    "all_combinations",
    "cycle",
    "draw_batch",
    "held_out_combinations",
    "is_held_out",
    "load_digits",
    "render",
    "say",
    "seen_combinations",
    "write_captions",
]
