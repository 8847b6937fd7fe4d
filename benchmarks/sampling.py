"""How few steps are enough? Accuracy and Frechet distance of four samplers at several step counts.

    python -m benchmarks.sampling --samples 1000

Every cell draws the same captions from the same seed, and as many that leave things out.
Writes sampling.json and sampling.png here.
"""

import argparse
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import matplotlib.pyplot as plt
import torch

from minisd import StableDiffusion, data, plots
from minisd.checkpoint import write_json
from minisd.evaluation import (
    Judge,
    Settings,
    draw,
    frechet_distance,
    percent,
    proportion,
    to_markdown,
)
from minisd.evaluation.incomplete import evaluate_incomplete
from minisd.machine import describe, pick_device
from minisd.pretrained import WEIGHTS

HERE = Path(__file__).resolve().parent
STEPS = (1, 2, 4, 6, 8, 10, 20, 50)
COMPARED = ("ddpm", "ddim", "dpm++", "unipc")  # with our spacing Euler is DDIM, ancestral DDPM


def measure(pipe, judge, wanted, captions, real, settings: Settings) -> dict:
    """One cell: joint accuracy, Frechet distance to real renders, seconds a picture.

    Of captions that leave things out, of all kinds alike, "whole" counts the pictures that are as
    asked with all else decided.
    """
    began = time.perf_counter()
    label = f"{settings.sampler} {settings.steps}"
    pictures = draw(pipe, captions, settings.seed, settings, label)
    seconds = (time.perf_counter() - began) / len(pictures)
    joint = proportion((judge(pictures).cpu() == wanted).all(dim=1))
    frechet = frechet_distance(judge.features(pictures), judge.features(real))
    some = partial(draw, pipe, settings=settings, label=f"{label}, incomplete captions")
    each = len(captions) // len(data.ONE.incomplete)
    kinds = evaluate_incomplete(data.ONE, judge, some, each, settings.seed + 300).values()
    whole = sum(kind["whole"]["rate"] for kind in kinds) / len(kinds)
    return {"joint": joint, "whole": whole, "frechet": frechet, "seconds": seconds}


def markdown(cells: dict) -> str:
    """cells: {column: {steps: cell}}, with the same steps in every column."""
    rows = []
    for steps in next(iter(cells.values())):
        row = (column[steps] for column in cells.values())
        written = (
            f"{percent(c['joint'])}; {100 * c['whole']:.1f}; {c['frechet']:.1f}" for c in row
        )
        rows.append([steps, *written])
    return to_markdown([["steps", *cells], *rows])


def figure(cells: dict):
    figure, axes = plt.subplots(1, 3, figsize=(13, 3.4), layout="constrained")
    ticks = (10, 15, 20, 30, 60, 120)
    axes[2].set_yscale("log")
    axes[2].set_yticks(ticks, ticks)
    for sampler, column in cells.items():
        joint = [100 * column[str(steps)]["joint"]["rate"] for steps in STEPS]
        whole = [100 * column[str(steps)]["whole"] for steps in STEPS]
        frechet = [column[str(steps)]["frechet"] for steps in STEPS]
        for axis, values in zip(axes, (joint, whole, frechet), strict=True):
            axis.plot(STEPS, values, marker="o", ms=3, label=sampler)
    labels = ("all four right, %", "short captions: whole, %", "Frechet distance")
    for axis, label in zip(axes, labels, strict=True):
        axis.set(xscale="log", xlabel="network evaluations", ylabel=label)
        axis.set_xticks(STEPS, STEPS, minor=False)
        axis.minorticks_off()
        axis.grid(alpha=0.3)
    axes[0].legend()
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--samples", type=int, default=1000, help="pictures a cell (%(default)s)")
    parser.add_argument("--guidance", type=float, help="(the checkpoint's own)")
    parser.add_argument("--weights", type=Path, default=WEIGHTS)
    parser.add_argument("--device", default="auto")
    o = parser.parse_args()
    device = pick_device(o.device)
    pipe, judge = StableDiffusion.from_pretrained(o.weights, device), Judge.load(device=device)
    generator = torch.Generator().manual_seed(0)
    wanted = data.cycle(data.all_combinations(), o.samples, 0)
    batch = data.draw_batch(o.samples, "test", generator, attributes=wanted, complete=1.0)

    shared = Settings(o.samples, guidance=o.guidance).resolved(pipe)
    cells: dict = {sampler: {} for sampler in COMPARED}
    for steps in STEPS:
        for sampler, column in cells.items():
            settings = replace(shared, steps=steps, sampler=sampler)
            cell = measure(pipe, judge, wanted, batch.captions, batch.images, settings)
            column[str(steps)] = cell
            right, whole = (100 * x for x in (cell["joint"]["rate"], cell["whole"]))
            print(
                f"{sampler:6} {steps:3} steps: {right:5.1f} % right, {whole:5.1f} % whole,", end=""
            )
            print(f" Frechet {cell['frechet']:7.1f}, {cell['seconds']:.3f} s a picture")
    about = {"machine": describe(device), "samples": o.samples, "guidance": shared.guidance}
    write_json(HERE / "sampling.json", {**about, "cells": cells})
    plots.save(figure(cells), HERE / "sampling.png")
    head = "joint accuracy in % [95% interval]; % whole of captions that leave things out; Frechet"
    print(f"\n{head} distance\n\n{markdown(cells)}")


if __name__ == "__main__":
    main()
