"""Evaluation: the judge, the formulas, and the table of everything measured."""

from .evaluate import Settings, evaluate, format_table
from .judge import Judge, measure, train_judge
from .metrics import clip_score, copy_ratio, frechet_distance, psnr, wilson_interval

__all__ = [
    "Judge",
    "Settings",
    "clip_score",
    "copy_ratio",
    "evaluate",
    "format_table",
    "frechet_distance",
    "measure",
    "psnr",
    "train_judge",
    "wilson_interval",
]
