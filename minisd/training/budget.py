"""Networks that are compared get equal seconds: what a step of each takes, measured in turn."""

import statistics
import time
from collections.abc import Mapping

from .loop import Recipe, train
from .stages import Stage

ROUNDS = 3  # the median of so many is taken


def seconds_a_step(stages: Mapping[str, Stage], recipe: Recipe) -> dict[str, float]:
    """Processor time of a step of each stage's network, the mean over the few of the recipe."""
    taken: dict[str, list[float]] = {name: [] for name in stages}
    for _ in range(1 + ROUNDS):  # the first also sets up what later ones reuse
        for name, stage in stages.items():
            began = time.process_time()
            train(stage.model, stage.loss_of_step, recipe, label=None)
            taken[name].append((time.process_time() - began) / recipe.steps)
    return {name: statistics.median(times[1:]) for name, times in taken.items()}
