"""What `python -m minisd evaluate --suite NAME` measures. One file, one system. A file has

SAMPLES                          how many pictures it measures by default
measure(pipe, judge, asked)      -> plain numbers that JSON can hold
tables(results)                  -> {heading: table}, a table being rows of text, the head first
headlines(results)               -> {what: number as text}, for the front page

A suite that measures an extension has its name, and goes with it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from ..data import ONE, cycle
from ..evaluation import Judge, Settings, accuracy, draw, frechet_distance, share
from ..evaluation.suite import BATCH
from ..files import SHIPPED

EXTENSIONS = SHIPPED / "extensions"


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


class Exam:
    """What a pipeline draws for full captions in ten steps of DDIM, against renders of the same."""

    settings = Settings(guidance=1.0, rescale=0.0)

    def __init__(self, judge: Judge, samples: int, seed: int):
        self.judge, self.seed = judge, seed
        self.wanted = cycle(ONE.all_combinations(), samples, seed)  # (n, 4)
        generator = torch.Generator().manual_seed(seed)
        draw_real = partial(ONE.batch, samples, "test", generator, attributes=self.wanted)
        self.real, again = (judge.features(draw_real().images) for _ in range(2))  # (n, 128)
        self.floor = frechet_distance(self.real, again)

    def __call__(self, pipe) -> dict:
        """Frechet distance, and the shares that are right."""
        captions = [ONE.say(c) for c in self.wanted.tolist()]
        pictures = draw(pipe, captions, self.seed, self.settings, "drawing")
        distance = frechet_distance(self.judge.features(pictures), self.real)
        return {"frechet": distance, **accuracy(self.judge(pictures), self.wanted, ONE)}


def together(cells: list[dict]) -> dict:
    """Several exams as one: {"joint": share, "digit": share, "frechet": mean}."""
    rates = {}
    for name in ("joint", "digit"):
        right, total = (sum(cell[name][key] for cell in cells) for key in ("right", "of"))
        rates[name] = share(right, total)
    return rates | {"frechet": sum(cell["frechet"] for cell in cells) / len(cells)}
