"""The handwriting: 10,000 real MNIST digits, split once and for all.

Provenance and licence: data/README.md. Source: LeCun, Bottou, Bengio and Haffner 1998.
"""

from functools import cache

import numpy as np
import torch
from torch import Tensor

from ..errors import check_choice
from ..files import SHIPPED

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
PATH = SHIPPED / "digits.npz"
TEST_EVERY = 5  # every fifth digit of the file, which is sorted by class, is for testing


@cache
def load_digits(split: str = "train") -> tuple[Tensor, Tensor]:
    """The digits of one split: (images (n, 28, 28) float in [0, 1], labels (n,) long).

    split is "train" (8,000) or "test" (2,000). Raises InputError for another split and
    FileNotFoundError without data/digits.npz.
    """
    check_choice("split", split, ("train", "test"))
    if not PATH.exists():
        raise FileNotFoundError(
            f"the handwritten digits are missing: {PATH}; restore data/digits.npz"
        )
    with np.load(PATH) as archive:
        images, labels = archive["images"], archive["labels"]
    chosen = (np.arange(len(labels)) % TEST_EVERY == TEST_EVERY - 1) == (split == "test")
    return torch.from_numpy(images[chosen]).float() / 255, torch.from_numpy(labels[chosen]).long()
