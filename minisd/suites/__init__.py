"""What `python -m minisd evaluate --suite NAME` measures. One file, one system. A file has

SAMPLES                          how many pictures it measures by default
measure(pipe, judge, asked)      -> plain numbers that JSON can hold
tables(results)                  -> {heading: table}, a table being rows of text, the head first

A suite that measures an extension has its name, and goes with it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor
from tqdm import tqdm

from ..data import ONE
from ..files import SHIPPED

EXTENSIONS = SHIPPED / "extensions"
BATCH = 100  # pictures drawn at a time


@dataclass(frozen=True)
class Asked:
    """What a suite is asked for."""

    samples: int
    seed: int = 0
    extensions: Path = EXTENSIONS  # the folder that holds a folder for each extension


def batches(count: int, label: str) -> Iterator[slice]:
    """`count` pictures, BATCH at a time, with a progress bar."""
    for i in tqdm(range(0, count, BATCH), desc=label, unit="batch"):
        yield slice(i, i + BATCH)


def say(attributes: Tensor, *named: int) -> list[str]:
    """Captions of one digit that name these attributes of each (B, 4)."""
    mentioned = tuple(i in named for i in range(4))
    return [ONE.say(row, mentioned) for row in attributes.tolist()]
