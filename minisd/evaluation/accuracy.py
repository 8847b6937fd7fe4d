"""Accuracy: does a picture show the attributes that it was asked for?"""

from torch import Tensor

from ..data import World
from .metrics import proportion


def accuracy(answers: Tensor, truth: Tensor, world: World) -> dict[str, dict]:
    """What was seen in pictures and what was asked for, (B, A) each -> the shares that are right.

    {"joint": all attributes of a picture, each attribute by its name, and the world's extra rates}.
    """
    answers, truth = answers.cpu(), world.canonical(truth.cpu())
    right = answers == truth  # (B, A)
    columns = {"joint": right.all(dim=1)}
    columns |= dict(zip(world.attributes, right.unbind(dim=1), strict=True))
    columns |= world.extra_rates(answers, truth)
    return {name: proportion(column) for name, column in columns.items()}
