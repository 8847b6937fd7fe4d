"""Every figure that the notebooks and the command line draw. Each function returns a Figure."""

import math
import textwrap
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from matplotlib.path import Path as Path2D
from PIL import Image
from torch import Tensor

from .errors import InputError, shorten
from .files import check_writable, open_atomically

WRAP = 22  # characters of a caption on one line
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".svg", ".pdf")

# The diagram of the whole machine, in inches. A part: centre x and y, colour, what it feeds.
DATA, STEP = "#eeeeee", "white"  # what flows, and what is computed without weights
UNET, AUTOENCODER, CLIP = "#ffd8a8", "#b7e8c5", "#c5e0ff"  # the three networks
PARTS = {
    "caption": (0.5, 2.6, DATA, ["tokenizer"]),
    "tokenizer": (1.5, 2.6, STEP, ["text encoder"]),
    "text encoder": (2.5, 2.6, CLIP, ["U-Net"]),
    "noise": (3.3, 1.45, DATA, ["noisy latents"]),
    "noisy latents": (4.3, 1.45, DATA, ["U-Net"]),
    "U-Net": (5.3, 1.45, UNET, ["guidance"]),
    "guidance": (7.15, 1.45, STEP, ["sampler"]),
    "sampler": (8.15, 1.45, STEP, ["noisy latents", "decoder"]),
    "decoder": (9.4, 1.45, AUTOENCODER, ["picture"]),
    "picture": (10.4, 1.45, DATA, ["judge"]),
    "judge": (10.4, 2.6, STEP, []),
    "training pictures": (0.5, 0.3, DATA, ["encoder", "image encoder"]),
    "encoder": (1.5, 0.3, AUTOENCODER, ["latents"]),
    "latents": (2.5, 0.3, DATA, ["noising"]),
    "noising": (4.1, 0.3, STEP, ["noisy latents"]),
    "image encoder": (0.5, 1.45, CLIP, ["text encoder"]),
}
TRAINING = ("training pictures", "encoder", "latents", "noising", "image encoder")
LABELS = {  # what is written above an arrow, and below it
    ("text encoder", "U-Net"): "context\n",
    ("U-Net", "guidance"): "prompt\nempty prompt",
    ("sampler", "noisy latents"): "repeat, t = T ... 0\n",
    ("sampler", "decoder"): "t = 0\n",
    ("image encoder", "text encoder"): "CLIP: which caption\nfits which picture?",
}
BOX = (0.4, 0.26)  # half the width and height of a part's box
LIT, DIM, INK = "#1a1a1a", "#999999", "#555555"  # lit and unlit parts, arrows


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
    size = (1.7 * columns, 2.15 * rows)
    figure, axes = plt.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained")
    for axis in axes.flat:
        axis.axis("off")
    for axis, image, caption in zip(axes.flat, images, captions, strict=False):
        low, high = limits
        axis.imshow(to_array(image), cmap="gray", vmin=low, vmax=high, interpolation="nearest")
        # A $ in a caption starts no formula.
        axis.set_title(wrap(caption), fontsize=8, y=-0.08, va="top", parse_math=False)
    if title:
        figure.suptitle(title)
    return figure


def sheet(rows: dict[str, list[tuple]]) -> Figure:
    """Rows of (picture or map, caption) pairs, each row under its name. Maps fill their square."""
    columns = max(map(len, rows.values()))
    figure = plt.figure(figsize=(1.35 * columns, 1.95 * len(rows)), layout="constrained")
    for part, (name, row) in zip(figure.subfigures(len(rows), squeeze=False).flat, rows.items()):
        part.suptitle(name, x=0.01, ha="left", fontsize=9, fontweight="bold")
        for axis, (image, caption) in zip(part.subplots(1, columns), row):
            axis.imshow(to_array(image), aspect="auto", cmap="magma", interpolation="nearest")
            axis.set_title(wrap(caption), fontsize=7, y=-0.06, va="top", parse_math=False)
        for axis in part.axes:
            axis.set_box_aspect(1)
            axis.axis("off")
    return figure


def curves(lines: dict, xlabel: str, ylabel: str, x=None, title: str = "", smooth=1) -> Figure:
    """Lines {label: values} over one axis, which counts from 0 if `x` is None.

    smooth: each point is the mean over the `smooth` values that end there, for noisy losses.
    """
    figure, axis = plt.subplots(figsize=(6, 3), layout="constrained")
    for label, values in lines.items():
        values = np.asarray(values, dtype=float)
        values = np.convolve(values, np.full(smooth, 1 / smooth), mode="valid")
        xs = np.arange(len(values)) + smooth - 1 if x is None else np.asarray(x)[smooth - 1 :]
        axis.plot(xs, values, label=label or None)
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


def frame(t: float, noisy, guess, maps, tokens: list[list[str]]) -> Figure:
    """One step of several pictures, a row each: noisy, guessed, and where each token looks.

    noisy and guess (B, 3, H, W) in [-1, 1]; maps (B, L, h, w), of which the row's tokens are shown.
    """
    columns = 2 + max(map(len, tokens))
    size = (0.9 * columns, 1.1 * len(tokens) + 0.3)
    figure, axes = plt.subplots(len(tokens), columns, figsize=size, squeeze=False)
    figure.subplots_adjust(0.01, 0.02, 0.99, 1 - 0.6 / size[1], 0.05, 0.25)
    for row, words, *pictures in zip(axes, tokens, noisy, guess, maps, strict=True):
        titles = [f"t = {t:g}", "guess of x0", *words]
        images = [*pictures[:2], *pictures[2][: len(words)]]
        for axis in row:
            axis.axis("off")
        for axis, title, image in zip(row, titles, images, strict=False):
            axis.imshow(to_array(image), cmap="viridis", interpolation="nearest")
            axis.set_title(title, fontsize=7, parse_math=False)
    return figure


def save_film(figures: Iterable[Figure], path: str | Path, seconds: float = 0.3) -> None:
    """Write figures as a GIF that repeats, each shown for some seconds, the last for longer."""
    check_film(path)
    frames = []
    for figure in figures:
        figure.canvas.draw()
        frames.append(Image.fromarray(np.asarray(figure.canvas.buffer_rgba())).convert("RGB"))
        plt.close(figure)
    if not frames:
        raise InputError(f"{shorten(str(path))} would be a film without a frame")
    duration = [round(1000 * seconds)] * (len(frames) - 1) + [2000]
    with open_atomically(Path(path)) as file:
        more = {"save_all": True, "append_images": frames[1:], "duration": duration, "loop": 0}
        frames[0].save(file, format="GIF", **more)


def route(start: str, end: str) -> list[tuple[float, float]]:
    """The corners of the arrow between two PARTS, from the edge of one box to that of the other."""
    (x, y), (to_x, to_y), (w, h) = PARTS[start][:2], PARTS[end][:2], BOX
    up = h if to_y > y else -h
    if y == to_y and x < to_x:  # on in the same row
        return [(x + w, y), (to_x - w, y)]
    if y == to_y:  # back in the same row, below it
        enter, below = to_x + w / 2, y - 2.4 * h
        return [(x, y - h), (x, below), (enter, below), (enter, y - h)]
    if abs(x - to_x) < w:  # straight up or down
        return [(x, y + up), (x, to_y - up)]
    return [(x + w, y), (to_x, y), (to_x, to_y - up)]  # along the row, then up or down


def diagram(*lit: str) -> Figure:
    """The diagram of Stable Diffusion, with some of its PARTS lit, or all."""
    if unknown := set(lit) - set(PARTS):
        raise ValueError(f"{unknown.pop()!r} is not one of {', '.join(PARTS)}")
    figure = plt.figure(figsize=(10.9, 2.9))
    axis = figure.add_axes((0, 0, 1, 1), xlim=(0, 10.9), ylim=(0, 2.9))
    axis.axis("off")
    centred = {"ha": "center", "va": "center"}
    for name, (x, y, colour, feeds) in PARTS.items():
        ink, face, width = (LIT, colour, 1.3) if not lit or name in lit else (DIM, "white", 0.9)
        style = {"boxstyle": "round,pad=0,rounding_size=0.08", "ec": ink, "fc": face, "lw": width}
        corner, size = (x - BOX[0], y - BOX[1]), (2 * BOX[0], 2 * BOX[1])
        axis.add_patch(FancyBboxPatch(corner, *size, **style))
        style = {"color": ink, "fontsize": 9.5, "weight": "bold" if name in lit else "normal"}
        axis.text(x, y, name.replace(" ", "\n"), **style, **centred)
        for target in feeds:
            corners = route(name, target)
            head = "<|-|>" if name == "image encoder" else "-|>"  # CLIP trains the two together
            dashes = (0, (3, 2)) if name in TRAINING else "-"
            style = {"arrowstyle": head, "linestyle": dashes, "mutation_scale": 10, "color": INK}
            axis.add_patch(FancyArrowPatch(path=Path2D(corners), **style))
            ends = max(pairwise(corners), key=lambda ends: math.dist(*ends))  # the longest line
            style = {"color": INK, "fontsize": 8.5, "linespacing": 1.7}
            axis.text(*np.mean(ends, axis=0), LABELS.get((name, target), ""), **style, **centred)
    for name, dashes in {"drawing": "-", "training": (0, (3, 2))}.items():
        axis.plot([], [], color=INK, linestyle=dashes, label=name)
    axis.legend(loc="lower right", fontsize=9, frameon=False)
    return figure


def check_name(path: str | Path, suffixes: tuple[str, ...] = SUFFIXES) -> None:
    """InputError if no picture can be written at `path`."""
    if Path(path).suffix.lower() not in suffixes:
        raise InputError(f"{shorten(str(path))} must end in {', '.join(suffixes)}")
    check_writable(Path(path))


def check_film(path: str | Path) -> None:
    """InputError if no film can be written at `path`."""
    check_name(path, (".gif",))


def save(figure: Figure, path: str | Path) -> None:
    """Write the figure and close it. InputError if the name is not that of a picture."""
    check_name(path)
    with open_atomically(Path(path)) as file:
        figure.savefig(file, dpi=150, format=Path(path).suffix[1:].lower())
    plt.close(figure)
