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
from .scenes import RGB, Batch, draw_batch, render

__all__ = [
    "ATTRIBUTES",
    "RGB",
    "VALUES",
    "Batch",
    "all_combinations",
    "draw_batch",
    "held_out_combinations",
    "is_held_out",
    "load_digits",
    "render",
    "say",
    "seen_combinations",
    "write_captions",
]
