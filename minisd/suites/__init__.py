"""What `python -m minisd evaluate --suite NAME` measures. One file, one system. A file has

SAMPLES                          how many pictures it measures by default
measure(pipe, judge, asked)      -> plain numbers that JSON can hold
tables(results)                  -> {heading: table}, a table being rows of text, the head first

A suite that measures an extension has its name, and goes with it.
"""

from dataclasses import dataclass
from pathlib import Path

from ..files import SHIPPED

EXTENSIONS = SHIPPED / "extensions"


@dataclass(frozen=True)
class Asked:
    """What a suite is asked for."""

    samples: int
    seed: int = 0
    extensions: Path = EXTENSIONS  # the folder that holds a folder for each extension
