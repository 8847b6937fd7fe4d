"""The formulas: how good are the pictures, in numbers."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def wilson_interval(right: int, total: int, z: float = 1.96) -> tuple[float, float]:
    """95% confidence interval of a rate; honest near 0 and 1. Wilson 1927."""
    if not 0 <= right <= total or total == 0:
        raise ValueError(f"{right} of {total} is not a rate")
    rate, shrink = right / total, 1 + z**2 / total
    middle = (rate + z**2 / (2 * total)) / shrink
    half = z * math.sqrt(rate * (1 - rate) / total + z**2 / (4 * total**2)) / shrink
    return max(0.0, middle - half), min(1.0, middle + half)


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """Distance of two clouds of features (n, D) and (m, D), each taken for a Gaussian.

    |mean_a - mean_b|^2 + tr(A + B - 2 (A^1/2 B A^1/2)^1/2) with covariances A and B.
    Source: Heusel et al. 2017, equation 6 (there on Inception's features).
    """
    a, b = a.cpu().double(), b.cpu().double()  # Apple GPUs have no float64
    cov_a, cov_b = torch.cov(a.T), torch.cov(b.T)
    values, vectors = torch.linalg.eigh(cov_a)
    root_a = vectors * values.clamp(min=0).sqrt() @ vectors.T  # A^1/2
    cross = torch.linalg.eigvalsh(root_a @ cov_b @ root_a).clamp(min=0).sqrt().sum()
    shift = (a.mean(dim=0) - b.mean(dim=0)).square().sum()
    return (shift + cov_a.trace() + cov_b.trace() - 2 * cross).item()


def clip_score(image_features: Tensor, text_features: Tensor) -> float:
    """100 * mean cosine of each picture (B, P) and its own caption (B, P), at least 0 each.

    Source: Hessel et al. 2021, "CLIPScore", with weight 100.
    """
    return 100 * F.cosine_similarity(image_features, text_features).clamp(min=0).mean().item()


def psnr(images: Tensor, references: Tensor) -> float:
    """Peak signal-to-noise ratio in dB, the mean over pictures (B, 3, H, W) in [-1, 1]."""
    error = (images.clamp(-1, 1) - references).square().mean(dim=(1, 2, 3))
    return (10 * torch.log10(4 / error)).mean().item()


def copy_ratio(features: Tensor, training: Tensor) -> Tensor:
    """How much nearer each picture is to one training picture than to any other: (n,) in [0, 1].

    Of features (n, D) of the pictures and training (m, D) of what the model learned from: the
    distance to the nearest training picture divided by that to the second nearest. 0 is a copy;
    below 1/3 counts as one. Compare with real pictures that training never saw. Raises ValueError
    for fewer than two training pictures. Source: Yoon et al. 2023, "Diffusion probabilistic models
    generalize when they fail to memorize". Carlini et al. 2023, "Extracting training data from
    diffusion models", divide by the mean distance to the 50 nearest instead.
    """
    if len(training) < 2:
        raise ValueError(f"the second nearest of {len(training)} training pictures is missing")
    # Written out: cdist's matrix product would put a copy at a distance that is not 0.
    mode = "donot_use_mm_for_euclid_dist"
    distances = torch.cdist(features.float(), training.float(), compute_mode=mode)  # (n, m)
    nearest, second = distances.topk(2, largest=False).values.unbind(dim=1)  # (n,) each
    return nearest / second.clamp(min=torch.finfo(second.dtype).tiny)
