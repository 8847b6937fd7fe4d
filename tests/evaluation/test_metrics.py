"""The formulas, against published values, closed forms and arithmetic by hand."""

import math

import numpy as np
import pytest
import torch

from minisd.evaluation import clip_score, copy_ratio, frechet_distance, psnr, wilson_interval
from minisd.evaluation.metrics import proportion, recalled


@pytest.mark.parametrize(
    ("right", "total", "low", "high"),
    [  # Newcombe 1998, "Two-sided confidence intervals for the single proportion", table I
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_gives_the_published_intervals(right, total, low, high):
    assert wilson_interval(right, total) == pytest.approx((low, high), abs=5e-5)


def test_wilson_is_symmetric_and_stays_in_range():
    for right in range(51):
        low, high = wilson_interval(right, 50)
        assert 0 <= low <= right / 50 <= high <= 1
        assert wilson_interval(50 - right, 50) == pytest.approx((1 - high, 1 - low))


@pytest.mark.parametrize("total", [20, 100])
def test_wilson_holds_the_true_rate_19_times_of_20(total):
    """Every outcome counted with its exact binomial probability, for true rates all over (0, 1)."""
    intervals = [wilson_interval(k, total) for k in range(total + 1)]
    coverage = []
    for p in np.linspace(0.01, 0.99, 99):
        chance = [math.comb(total, k) * p**k * (1 - p) ** (total - k) for k in range(total + 1)]
        coverage.append(sum(c for c, (a, b) in zip(chance, intervals, strict=True) if a <= p <= b))
    assert np.mean(coverage) == pytest.approx(0.95, abs=0.01)
    assert min(coverage) > 0.8  # Wald's interval falls to 0.18 here


@pytest.mark.parametrize(("right", "total"), [(0, 0), (3, 2), (-1, 5)])
def test_wilson_refuses_what_is_no_rate(right, total):
    with pytest.raises(ValueError, match=f"{right} of {total}"):
        wilson_interval(right, total)


def test_a_proportion_counts_and_has_its_interval():
    found = proportion(torch.tensor([True] * 15 + [False] * 133))
    assert found["right"] == 15 and found["of"] == 148 and found["rate"] == 15 / 148
    assert (found["low"], found["high"]) == wilson_interval(15, 148)


def test_recall_by_hand():
    """Right at rank 1; at rank 3; nowhere; two that fit, one of them at rank 2."""
    similarity = torch.tensor([[0.9, 0.5, 0.1], [0.9, 0.5, 0.1], [0.9, 0.5, 0.1], [0.5, 0.9, 0.1]])
    fits = torch.tensor([[1, 0, 0], [0, 0, 1], [0, 0, 0], [1, 0, 1]]).bool()
    expected = {1: [1, 0, 0, 0], 2: [1, 0, 0, 1], 3: [1, 1, 0, 1], 10: [1, 1, 0, 1]}
    assert {k: recalled(similarity, fits, k).int().tolist() for k in expected} == expected


def cloud(mean, std):
    """Points whose sample mean and covariance are exactly `mean` and diag(std^2)."""
    std = torch.tensor(std, dtype=torch.float64)
    arms = torch.diag(std * math.sqrt((2 * len(std) - 1) / 2))
    return torch.cat([arms, -arms]) + torch.tensor(mean, dtype=torch.float64)


def test_frechet_of_axis_aligned_gaussians_is_the_closed_form():
    """|difference of means|^2 + |difference of standard deviations|^2."""
    a, b = cloud([0, 1, 2], [1, 2, 3]), cloud([3, 1, -2], [2, 2, 0.5])
    assert frechet_distance(a, b) == pytest.approx((9 + 0 + 16) + (1 + 0 + 6.25))


def test_frechet_of_tilted_gaussians_is_what_numpy_says():
    """tr (AB)^(1/2) is the sum of the roots of AB's eigenvalues, however A and B are tilted."""
    generator = np.random.default_rng(0)
    a, b = (generator.normal(size=(200, 6)) @ generator.normal(size=(6, 6)) for _ in range(2))
    A, B = np.cov(a.T), np.cov(b.T)
    roots = np.sqrt(np.linalg.eigvals(A @ B).real).sum()
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(A) + np.trace(B) - 2 * roots
    assert frechet_distance(torch.tensor(a), torch.tensor(b)) == pytest.approx(expected)


def test_frechet_is_zero_for_the_same_cloud_and_symmetric():
    a, b = torch.randn(2, 50, 8, generator=torch.Generator().manual_seed(0))
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a))
    assert frechet_distance(a, b) > 0.1


def test_frechet_bears_fewer_points_than_dimensions():
    """Covariances without full rank are no trouble."""
    a = torch.randn(5, 20, generator=torch.Generator().manual_seed(0))
    assert frechet_distance(a, a + 1) == pytest.approx(20, rel=1e-5)


def test_clip_score_by_hand():
    """Cosines 1, 0.6 and -1; the last counts as nothing; lengths do not matter."""
    images = torch.tensor([[2.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    texts = torch.tensor([[5.0, 0.0], [0.6, 0.8], [0.0, -1.0]])
    assert clip_score(images, texts) == pytest.approx(100 * (1 + 0.6 + 0) / 3)


def test_psnr_by_hand():
    """An error of 0.2 of the range of 2 everywhere is 20 dB; dB are averaged over pictures."""
    black = torch.full((2, 3, 4, 4), -1.0)
    off = black + torch.tensor([0.2, 0.02])[:, None, None, None]
    assert psnr(off[:1], black[:1]) == pytest.approx(20, abs=1e-3)
    assert psnr(off, black) == pytest.approx(30, abs=1e-3)


def test_psnr_sees_pictures_as_a_screen_shows_them():
    """What is brighter than white is white."""
    grey, white = torch.zeros(1, 3, 4, 4), torch.ones(1, 3, 4, 4)
    assert psnr(5 * white, grey) == psnr(white, grey)


def test_copy_ratio_by_hand():
    """Nearest by second nearest: 1 / 3, 0 for a copy, 1 half-way between two."""
    training = torch.tensor([[0.0, 0.0], [4.0, 0.0], [0.0, 9.0]])
    pictures = torch.tensor([[1.0, 0.0], [0.0, 9.0], [2.0, 0.0]])
    assert copy_ratio(pictures, training).tolist() == pytest.approx([1 / 3, 0, 1])


def test_copy_ratio_finds_the_copies_among_many():
    """A copy is at 0 exactly, however large the features; what is new is not near to one alone."""
    training, new = 100 + torch.randn(2, 300, 16, generator=torch.Generator().manual_seed(0))
    assert (copy_ratio(training[:50], training) == 0).all()
    assert copy_ratio(new, training).min() > 1 / 3


def test_copy_ratio_knows_the_copy_of_a_picture_that_training_has_twice():
    twice = torch.tensor([[1.0, 2.0], [1.0, 2.0], [5.0, 5.0]])
    assert copy_ratio(twice[:1], twice).tolist() == [0]


@pytest.mark.parametrize("count", [0, 1])
def test_copy_ratio_needs_a_second_training_picture(count):
    with pytest.raises(ValueError, match=f"second nearest of {count}"):
        copy_ratio(torch.zeros(3, 4), torch.zeros(count, 4))
