"""Evaluation: the judge, the formulas, a file for each thing measured, and the report of it all."""

from .accuracy import accuracy
from .autoencoder import evaluate_autoencoder
from .clip import zero_shot
from .judge import Judge, measure
from .metrics import clip_score, copy_ratio, frechet_distance, proportion, psnr, wilson_interval
from .reader import train_judge
from .report import format_results, percent, to_markdown
from .suite import Settings, draw, evaluate

__all__ = [
    "Judge",
    "Settings",
    "accuracy",
    "clip_score",
    "copy_ratio",
    "draw",
    "evaluate",
    "evaluate_autoencoder",
    "format_results",
    "frechet_distance",
    "measure",
    "percent",
    "proportion",
    "psnr",
    "to_markdown",
    "train_judge",
    "wilson_interval",
    "zero_shot",
]
