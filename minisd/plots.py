"""Every figure that the notebooks and the command line draw. Each function returns a Figure."""

import textwrap
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

WRAP = 22  # characters of a caption on one line
DIM = "#9a9a9a"  # what the diagram leaves unlit
LIT = "#d9480f"  # what it lights
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".svg", ".pdf")


# The diagram of the whole machine: a part, its place (column, row), and what it feeds.
PARTS = {
    "caption": (0, 2, ["tokenizer"]),
    "tokenizer": (1, 2, ["text encoder"]),
    "text encoder": (2, 2, ["guidance"]),
    "guidance": (3, 2, ["U-Net"]),
    "noise": (2, 1, ["U-Net"]),
    "U-Net": (3, 1, ["sampler"]),
    "sampler": (4, 1, ["decoder"]),
    "decoder": (5, 1, ["picture"]),
    "picture": (6, 1, ["judge"]),
    "judge": (6, 2, []),
    "digits": (0, 0, ["encoder", "image encoder"]),
    "encoder": (1, 0, ["latents"]),
    "latents": (2, 0, ["noising"]),
    "noising": (3, 0, ["U-Net"]),
    "image encoder": (1, 1, ["text encoder"]),
}


def to_array(image) -> np.ndarray:
    """A PIL image, a map (H, W), or a tensor (3, H, W) in [-1, 1] -> what matplotlib shows."""
    if isinstance(image, Tensor):
        image = image.detach().float().cpu()
        if image.dim() == 2:
            return image.numpy()
        return ((image.clamp(-1, 1) + 1) / 2).permute(1, 2, 0).numpy()
    return np.asarray(image)


def wrap(caption: str) -> str:
    """The caption, broken into lines between its words."""
    return textwrap.fill(caption, WRAP, break_long_words=False, break_on_hyphens=False)


def gallery(
    images, captions: list[str], columns: int = 8, title: str = "", limits=(None, None)
) -> Figure:
    """Pictures, or maps (H, W), with their captions below, `columns` in a row.

    limits: the values of a map that are drawn black and white; its own lowest and highest if None.
    """
    columns = min(columns, len(captions))
    rows = -(-len(captions) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(1.7 * columns, 2.15 * rows), squeeze=False, layout="constrained"
    )
    for axis in axes.flat:
        axis.axis("off")
    for axis, image, caption in zip(axes.flat, images, captions, strict=False):
        low, high = limits
        axis.imshow(to_array(image), cmap="gray", vmin=low, vmax=high, interpolation="nearest")
        # A caption is no formula, whatever $ there is in it.
        axis.set_title(wrap(caption), fontsize=8, y=-0.08, va="top", parse_math=False)
    if title:
        figure.suptitle(title)
    return figure


def curves(lines: dict, xlabel: str, ylabel: str, x=None, title: str = "", smooth=1) -> Figure:
    """Lines {label: values} over one axis, which counts from 0 if `x` is None.

    smooth: each point is the mean over the `smooth` values that end there, for noisy losses.
    """
    figure, axis = plt.subplots(figsize=(6, 3), layout="constrained")
    for label, values in lines.items():
        values = np.asarray(values, dtype=float)
        values = np.convolve(values, np.full(smooth, 1 / smooth), mode="valid")
        places = np.arange(len(values)) + smooth - 1 if x is None else np.asarray(x)[smooth - 1 :]
        axis.plot(places, values, label=label or None)
    axis.set(xlabel=xlabel, ylabel=ylabel, title=title)
    axis.grid(alpha=0.3)
    if any(lines):
        axis.legend()
    return figure


def heatmap(
    matrix, xlabel: str, ylabel: str, label: str, columns=None, rows=None, title: str = ""
) -> Figure:
    """A matrix (rows, columns) in colours, with a bar that says what they mean (`label`)."""
    matrix = np.asarray(matrix)
    high, wide = matrix.shape
    size = (1.6 + 0.32 * max(wide, 7), 1.0 + 0.32 * max(high, 6))
    figure, axis = plt.subplots(figsize=size, layout="constrained")
    image = axis.imshow(matrix, cmap="viridis", aspect="auto")
    axis.set(xlabel=xlabel, ylabel=ylabel, title=title)
    if columns is not None:
        axis.set_xticks(range(wide), columns, rotation=90 if max(map(len, columns)) > 2 else 0)
    if rows is not None:
        axis.set_yticks(range(high), rows)
    figure.colorbar(image, label=label)
    return figure


def diagram(*lit: str) -> Figure:
    """The map of Stable Diffusion with some of its PARTS lit: bottom row training, top row text."""
    if unknown := set(lit) - set(PARTS):
        raise ValueError(f"{unknown.pop()!r} is not one of {', '.join(PARTS)}")
    figure, axis = plt.subplots(figsize=(10, 2.4), layout="constrained")
    for name, (x, y, feeds) in PARTS.items():
        colour = LIT if name in lit else DIM
        box = {"boxstyle": "round,pad=0.4", "fc": "white", "ec": colour, "lw": 1 + (name in lit)}
        text = {"color": colour, "weight": "bold" if name in lit else "normal", "bbox": box}
        axis.text(x, y, name, ha="center", va="center", fontsize=9, zorder=2, **text)
        for target in feeds:
            level = PARTS[target][1] == y  # then the arrow ends at the sides of two boxes
            room = [4 * len(part) + 6 if level else 16 for part in (name, target)]
            style = "<->" if name == "image encoder" else "->"  # CLIP holds the two together
            arrow = {"arrowstyle": style, "color": DIM, "shrinkA": room[0], "shrinkB": room[1]}
            axis.annotate("", PARTS[target][:2], (x, y), arrowprops=arrow, zorder=1)
    axis.set(xlim=(-0.5, 6.5), ylim=(-0.4, 2.4))
    axis.axis("off")
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
