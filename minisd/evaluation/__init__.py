"""Evaluation: the judge, the formulas, a file for each thing measured, and the report of it all."""

from .autoencoder import evaluate_autoencoder
from .features import zero_shot
from .judge import Judge, measure
from .metrics import (
    accuracy,
    clip_score,
    copy_ratio,
    frechet_distance,
    proportion,
    psnr,
    share,
    wilson_interval,
)
from .reader import train_judge
from .report import Table, format_results, percent, to_markdown, to_text
from .suite import Settings, check_samples, draw, evaluate
