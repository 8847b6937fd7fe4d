"""Captions that leave things out: does the picture show what they say, and is the rest decided?"""

from collections.abc import Callable

import torch
from torch import Tensor

from ..data import World, cycle
from .judge import Judge
from .metrics import proportion


def evaluate_incomplete(
    world: World, judge: Judge, draw: Callable[[list[str], int], Tensor], count: int, seed: int
) -> dict[str, dict]:
    """For each kind of caption in `world.incomplete`, how the pictures of `count` of them turn out.

    draw(captions, seed) -> pictures (n, 3, S, S). asked: what the caption names is shown; decided:
    so is one value of everything else, not two mixed; whole: both. spread: of the values that are
    left open, the rarest and the most frequent, as multiples of their shares in training.
    """
    results = {}
    for i, mentioned in enumerate(world.incomplete):
        wanted = cycle(world.all_combinations(), count, seed + i)  # (n, A)
        captions = [world.say(c, mentioned) if any(mentioned) else "" for c in wanted.tolist()]
        answers = world.read(judge, draw(captions, seed + i)).cpu()  # (n, A), -1 where undecided
        named = torch.tensor(mentioned)
        asked = ((answers == world.canonical(wanted)) | ~named).all(dim=1)
        decided = (answers >= 0).all(dim=1)
        columns = {"whole": asked & decided, "asked": asked, "decided": decided}
        names = [name for name, is_named in zip(world.attributes, mentioned) if is_named]
        results[", ".join(names) or "nothing"] = {
            **{name: proportion(column) for name, column in columns.items()},
            "spread": spread(answers[decided][:, ~named], world.seen_combinations()[:, ~named]),
        }
    return results


def spread(answers: Tensor, training: Tensor) -> list[float]:
    """The least and the greatest share of a value, as multiples of its share in training.

    answers (n, A), training (m, A): the values of A attributes. [] if either A or n is 0.
    """
    ratios = []
    for drawn, trained in zip(answers.T, training.T, strict=True):
        shares = trained.bincount() / len(trained)  # of each value
        ratios += (drawn.bincount(minlength=len(shares)) / len(drawn) / shares).tolist()
    return [min(ratios), max(ratios)] if answers.numel() else []
