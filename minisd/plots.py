"""Every figure that the notebooks and the command line draw. Each function returns a Figure."""

import textwrap
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

WRAP = 22  # characters of a caption on one line
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".svg", ".pdf")


def to_array(image) -> np.ndarray:
    """A PIL image, or a tensor (3, H, W) in [-1, 1] -> array (H, W, 3) that matplotlib shows."""
    if isinstance(image, Tensor):
        return ((image.detach().float().cpu().clamp(-1, 1) + 1) / 2).permute(1, 2, 0).numpy()
    return np.asarray(image)


def wrap(caption: str) -> str:
    """The caption, broken into lines between its words."""
    return textwrap.fill(caption, WRAP, break_long_words=False, break_on_hyphens=False)


def gallery(images, captions: list[str], columns: int = 8, title: str = "") -> Figure:
    """Pictures with their captions below, `columns` in a row."""
    columns = min(columns, len(captions))
    rows = -(-len(captions) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(1.7 * columns, 2.15 * rows), squeeze=False, layout="constrained"
    )
    for axis in axes.flat:
        axis.axis("off")
    for axis, image, caption in zip(axes.flat, images, captions, strict=False):
        axis.imshow(to_array(image), interpolation="nearest")
        # A caption is no formula, whatever $ there is in it.
        axis.set_title(wrap(caption), fontsize=8, y=-0.08, va="top", parse_math=False)
    if title:
        figure.suptitle(title)
    return figure


def check_name(path: str | Path) -> None:
    """ValueError if a file of this name cannot be a picture."""
    if Path(path).suffix.lower() not in SUFFIXES:
        raise ValueError(f"{path} must end in {', '.join(SUFFIXES)}")


def save(figure: Figure, path: str | Path) -> None:
    """Write the figure and close it. ValueError if the name is not that of a picture."""
    check_name(path)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    plt.close(figure)
