"""One, two, four steps: a student of `extend few-steps` beside its teacher.

    python -m minisd extend few-steps --processes 2 --out runs/few
    python -m benchmarks.few_steps --student runs/few

Every cell draws the same captions: the student with its own sampler, the teacher with DDIM, which
is better in few steps than DDPM, with and without its guidance. Writes few_steps.json here.
"""

import argparse
from pathlib import Path

import torch

from minisd import StableDiffusion, data
from minisd.checkpoint import write_json
from minisd.evaluation import Judge, Settings, frechet_distance
from minisd.machine import describe, pick_device
from minisd.pretrained import WEIGHTS

from .sampling import markdown, measure

HERE = Path(__file__).resolve().parent
STEPS = (1, 2, 4, 6, 10)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--student", type=Path, required=True)
    parser.add_argument("--weights", type=Path, default=WEIGHTS, help="the teacher (data/weights)")
    parser.add_argument("--samples", type=int, default=1000, help="pictures a cell (%(default)s)")
    parser.add_argument("--device", default="auto")
    o = parser.parse_args()
    device = pick_device(o.device)
    teacher, student = (StableDiffusion.from_pretrained(x, device) for x in (o.weights, o.student))
    judge, generator = Judge.load(device=device), torch.Generator().manual_seed(0)
    wanted = data.cycle(data.all_combinations(), o.samples, 0)
    draw = {"split": "test", "attributes": wanted, "complete": 1.0}
    real, again = (data.draw_batch(o.samples, generator=generator, **draw) for _ in range(2))

    columns = {"student": (student, None, None), "teacher": (teacher, "ddim", None)}
    if teacher.defaults.guidance_scale != 1:
        columns["teacher, guidance 1"] = (teacher, "ddim", 1.0)
    cells: dict = {name: {} for name in columns}
    for steps in STEPS:
        for name, (pipe, sampler, guidance) in columns.items():
            settings = Settings(o.samples, steps, sampler, guidance).resolved(pipe)
            cell = measure(pipe, judge, wanted, real.captions, real.images, settings)
            cells[name][str(steps)] = cell
    floor = frechet_distance(judge.features(again.images), judge.features(real.images))
    about = {"machine": describe(device), "samples": o.samples, "floor": floor}
    write_json(HERE / "few_steps.json", {**about, "cells": cells})

    print(markdown(cells) + f"\n\nbetween two sets of real renders: {floor:.1f}")


if __name__ == "__main__":
    main()
