"""The captioned digits: handwriting, words, pictures.

The functions here are those of the world of one digit; `worlds.TWO` has the same for two.
"""

from .captions import ATTRIBUTES, VALUES, say, write_captions
from .digits import load_digits
from .scenes import RGB, render
from .worlds import ONE, POOL_BATCH, TWO, WORLDS, Batch, World

is_held_out = ONE.is_held_out
all_combinations = ONE.all_combinations
seen_combinations = ONE.seen_combinations
held_out_combinations = ONE.held_out_combinations
draw_batch = ONE.draw_batch
draw_pool = ONE.draw_pool

__all__ = [
    "ATTRIBUTES",
    "ONE",
    "POOL_BATCH",
    "RGB",
    "TWO",
    "VALUES",
    "WORLDS",
    "Batch",
    "World",
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
