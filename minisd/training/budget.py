"""What networks that are compared cost: FLOPs, and seconds that are taken in turn."""

import statistics
import time
from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch.utils.flop_counter import FlopCounterMode

from .loop import Recipe, train
from .stages import Stage

ROUNDS = 3  # the median of so many is taken


def forward_flops(work: Callable, *inputs) -> int:
    """Of one call, as torch counts them."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        work(*inputs)
    return counter.get_total_flops()


def seconds_in_turn(
    works: Mapping[str, Callable[[], object]], clock: Callable[[], float]
) -> dict[str, float]:
    """What a call of each takes by the clock."""
    taken: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(1 + ROUNDS):  # the first also sets up what later ones reuse
        for name, work in works.items():
            began = clock()
            work()
            taken[name].append(clock() - began)
    return {name: statistics.median(times[1:]) for name, times in taken.items()}


def seconds_a_step(stages: Mapping[str, Stage], recipe: Recipe) -> dict[str, float]:
    """Processor time of a step of each stage's network, the mean over the few of the recipe."""
    works = {
        name: partial(train, stage.model, stage.loss_of_step, recipe, label=None)
        for name, stage in stages.items()
    }
    taken = seconds_in_turn(works, time.process_time)
    return {name: seconds / recipe.steps for name, seconds in taken.items()}
