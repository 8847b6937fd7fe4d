"""The captioned digits: handwriting, words, pictures."""

from .captions import (
    ATTRIBUTES,
    VALUES,
    all_combinations,
    held_out_combinations,
    is_held_out,
    say,
    seen_combinations,
    write_captions,
)
from .digits import load_digits
from .scenes import POOL, RGB, Batch, draw_batch, draw_pool, render

__all__ = [
    "ATTRIBUTES",
    "POOL",
    "RGB",
    "VALUES",
    "Batch",
    "all_combinations",
    "draw_batch",
    "draw_pool",
    "held_out_combinations",
    "is_held_out",
    "load_digits",
    "render",
    "say",
    "seen_combinations",
    "write_captions",
]
