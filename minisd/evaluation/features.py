"""Frechet distance and copies: both compare pictures as points in a feature space."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from ..data import Batch
from .metrics import copy_ratio, frechet_distance, proportion

COPY = 1 / 3  # a picture whose copy_ratio is below this is a copy


Features = Callable[[Tensor], Tensor]  # pictures (n, 3, S, S) -> (n, D)


def evaluate_frechet(features: Features, drawn: Tensor, real: Tensor, again: Tensor) -> dict:
    """Of pictures (n, 3, S, S): {"drawn": to real ones, "floor": between two sets of real ones}.

    The floor is the distance that perfect pictures would have, since samples are finite.
    """
    reference = features(real)  # (n, D)
    return {
        "drawn": frechet_distance(features(drawn), reference),
        "floor": frechet_distance(features(again), reference),
    }


def evaluate_copies(
    features: Features, drawn: Tensor, unseen: Tensor, pool: Iterable[Batch], m: int
) -> dict:
    """How many of the drawn, and of the unseen real pictures, are copies of training pictures?

    Those are the first m of `pool`, whose last batch may be filled up with repetitions.
    """
    training = torch.cat([features(batch.images) for batch in pool])[:m]  # (m, D)
    kinds = {"drawn": drawn, "real": unseen}
    ratios = {kind: copy_ratio(features(images), training) for kind, images in kinds.items()}
    return {kind: proportion((ratio < COPY).cpu()) for kind, ratio in ratios.items()}
