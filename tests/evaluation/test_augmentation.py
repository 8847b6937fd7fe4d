"""Distorted pictures show the same digit in the same colour, and no two are alike."""

import torch

from minisd.data import draw_batch
from minisd.evaluation.augmentation import distort


def test_distorted_pictures_show_the_same_and_no_two_alike(judge):
    real = draw_batch(1000, "train", torch.Generator().manual_seed(0))
    once, again, other = (
        distort(real.images, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)
    )
    assert once.equal(again)
    assert (once - other).abs().amax(dim=(1, 2, 3)).min() > 0.1
    assert -1.001 < once.min() < -0.999 and 0.9 < once.max() < 1.001
    before, after = judge(real.images), judge(once)
    assert (before[:, 0] == after[:, 0]).float().mean() > 0.9  # by a judge that never saw any
    assert (before[:, 1] == after[:, 1]).float().mean() > 0.99


def test_a_black_picture_stays_black():
    black = -torch.ones(2, 3, 32, 32)
    assert distort(black, torch.Generator().manual_seed(0)).equal(black)
