"""The formulas behind every measured number."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ..data import World
from ..errors import InputError


def wilson_interval(right: int, total: int, z: float = 1.96) -> tuple[float, float]:
    """95% confidence interval of a proportion, reliable even close to 0 and 1. Wilson 1927."""
    if not 0 <= right <= total or total == 0:
        raise ValueError(f"{right} of {total} is not a rate")
    rate, shrink = right / total, 1 + z**2 / total
    middle = (rate + z**2 / (2 * total)) / shrink
    half = z * math.sqrt(rate * (1 - rate) / total + z**2 / (4 * total**2)) / shrink
    return max(0.0, middle - half), min(1.0, middle + half)


def proportion(right: Tensor) -> dict:
    """(B,) bool -> the share that is right, with its Wilson interval, as JSON holds it."""
    return share(int(right.sum()), len(right))


def share(right: int, total: int) -> dict:
    """So many of so many, as `proportion` gives it."""
    low, high = wilson_interval(right, total)
    return {"rate": right / total, "low": low, "high": high, "right": right, "of": total}


def accuracy(answers: Tensor, truth: Tensor, world: World) -> dict[str, dict]:
    """The shares of answers (B, A) that are right, given the attributes asked for (B, A).

    {"joint": all attributes of a picture, each attribute by its name, and the world's extra rates}.
    """
    answers, truth = answers.cpu(), world.canonical(truth.cpu())
    right = answers == truth  # (B, A)
    columns = {"joint": right.all(dim=1), **dict(zip(world.attributes, right.T, strict=True))}
    columns |= world.extra_rates(answers, truth)
    return {name: proportion(column) for name, column in columns.items()}


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """Distance between two sets of features, (n, D) and (m, D), each fitted by a Gaussian.

    |mean_a - mean_b|^2 + tr(A + B - 2 (A^1/2 B A^1/2)^1/2) with covariances A and B.
    Source: Heusel et al. 2017, equation 6 (there with Inception's features).
    """
    a, b = a.cpu().double(), b.cpu().double()  # Apple GPUs have no float64
    cov_a, cov_b = torch.cov(a.T), torch.cov(b.T)
    values, vectors = torch.linalg.eigh(cov_a)
    root_a = vectors * values.clamp(min=0).sqrt() @ vectors.T  # A^1/2
    cross = torch.linalg.eigvalsh(root_a @ cov_b @ root_a).clamp(min=0).sqrt().sum()
    shift = (a.mean(dim=0) - b.mean(dim=0)).square().sum()
    return (shift + cov_a.trace() + cov_b.trace() - 2 * cross).item()


def clip_score(image_features: Tensor, text_features: Tensor) -> float:
    """100 * mean of max(0, cosine) of pictures and captions, (B, P) each. Hessel et al. 2021."""
    return 100 * F.cosine_similarity(image_features, text_features).clamp(min=0).mean().item()


def psnr(images: Tensor, references: Tensor) -> float:
    """Peak signal-to-noise ratio in dB, the mean over pictures (B, 3, H, W) in [-1, 1]."""
    error = (images.clamp(-1, 1) - references).square().mean(dim=(1, 2, 3))
    return (10 * torch.log10(4 / error)).mean().item()


def recalled(similarity: Tensor, fits: Tensor, k: int) -> Tensor:
    """Is a caption that fits among the k most similar to the picture? -> (pictures,) bool.

    similarity, and fits (bool): (pictures, captions). The share of these answers is recall@k:
    Radford et al. 2021, "Learning transferable visual models from natural language supervision".
    """
    best = similarity.topk(min(k, similarity.shape[1]), dim=1).indices  # (pictures, k)
    return fits.gather(1, best).any(dim=1)


def copy_ratio(features: Tensor, training: Tensor) -> Tensor:
    """How much nearer each picture is to one training picture than to any other: (n,) in [0, 1].

    The distance to the nearest of the training pictures (m, D) divided by that to the second
    nearest, in features (n, D): 0 is an exact copy, and below 1/3 counts as one. Compare with real
    pictures that training never saw. Raises InputError for fewer than two training pictures.
    Source: Yoon et al. 2023, "Diffusion probabilistic models generalize when they fail to
    memorize". Carlini et al. 2023, "Extracting training data from diffusion models", divide by the
    mean distance to the 50 nearest instead.
    """
    if (m := len(training)) < 2:
        raise InputError(f"there is no second nearest of {m} training pictures; take at least 2")
    # Written out: cdist's matrix product would put a copy at a distance that is not 0.
    mode = "donot_use_mm_for_euclid_dist"
    distances = torch.cdist(features.float(), training.float(), compute_mode=mode)  # (n, m)
    nearest, second = distances.topk(2, largest=False).values.unbind(dim=1)  # (n,) each
    return nearest / second.clamp(min=torch.finfo(second.dtype).tiny)
