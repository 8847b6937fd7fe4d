"""Pixels or latents: what diffusion in latents saves, and what it costs in quality.

Two U-Nets of one family are trained from nothing by the same loss on the same pictures: one on
latents for SECONDS of processor time; one on pixels, for as many seconds and for as many pictures.
The autoencoder is there already, so its training is not counted. Then both draw pictures of several
sizes, and each call is counted and timed. A run that was stopped goes on where it was, in FOLDER.
"""

import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from ..checkpoint import read_json, write_json
from ..data import ONE
from ..evaluation import Judge, Table, percent
from ..extensions.pixels_or_latents import RECIPE, on_pixels, pixels_of
from ..models import parameter_count
from ..pipeline import StableDiffusion
from ..training import Run, run_on
from ..training.budget import forward_flops, seconds_a_step, seconds_in_turn
from ..training.pool import encode_pool
from ..training.stages import train_stage, unet_stage
from . import Asked, Exam

SAMPLES = 1000  # pictures of each trained network
FOLDER = Path("runs/pixels-or-latents")
SECONDS = 240  # of processor time
TIMED = 5  # steps that span all shares of a training run, as later ones cost more
SIDES, STEPS = (32, 64, 128), 10  # of the pictures whose cost is measured
NAME = "pixels_or_latents"


def run_of(pipe: StableDiffusion, folder: str, seed: int, steps: int) -> Run:
    return run_on(pipe, FOLDER / folder, ONE, seed, {NAME: replace(RECIPE, steps=steps)})


def seconds_of_both(pipe: StableDiffusion, pools: dict) -> dict[str, float]:
    """Processor time of a step of training on each; measured once, then kept."""
    path = FOLDER / "seconds.json"
    if not path.exists():
        run = run_of(pipe, "timed", 0, TIMED)
        runs = {"latents": run, "pixels": on_pixels(run, pipe)}
        stages = {name: unet_stage(runs[name], pools[name], NAME) for name in runs}
        write_json(path, seconds_a_step(stages, run.recipes[NAME]))
    return read_json(path)


def train_both(pipe: StableDiffusion, exam: Exam, seed: int) -> tuple[list[dict], dict]:
    """What each run of training came to, and the pipelines that draw in latents and in pixels."""
    first, text = run_of(pipe, "pool", seed, 1), (pipe.tokenizer, pipe.text_encoder)
    autoencoders = {"latents": pipe.autoencoder, "pixels": pixels_of(first)}
    pools = {name: encode_pool(first, a, *text) for name, a in autoencoders.items()}
    seconds, trained, rows = seconds_of_both(pipe, pools), {}, []
    both = {name: round(SECONDS / taken) for name, taken in seconds.items()}
    for name, what, steps in (
        ("latents", "", both["latents"]),
        ("pixels", "as many seconds", both["pixels"]),
        ("pixels", "as many pictures", both["latents"]),
    ):
        run = run_of(pipe, f"{name}-{steps}-{seed}", seed, steps)
        run.working.mkdir(parents=True, exist_ok=True)
        made = run if name == "latents" else on_pixels(run, pipe)
        unet = train_stage(run, unet_stage(made, pools[name], NAME))
        drawer = replace(pipe, unet=unet, autoencoder=autoencoders[name])
        cost = {"steps": steps, "seconds": steps * seconds[name]}
        rows.append({"on": name, "for": what, **cost, **exam(drawer)})
        trained[name] = drawer
    return rows, trained


def counted(drawer, side: int) -> dict:
    """FLOPs of a call of the U-Net, and of a picture."""
    unet, size = drawer.unet, side // drawer.autoencoder.config.downscale
    x = torch.zeros(1, unet.config.in_channels, size, size, device=drawer.device)
    t, context = torch.zeros((), device=drawer.device), drawer.encode_prompt([""])
    call, picture = forward_flops(unet, x, t, context), forward_flops(draw_one, drawer, side)
    return {"flops of a call": call, "flops": picture}


def draw_one(drawer, side: int) -> None:
    options = {"num_inference_steps": STEPS, "sampler": "ddim", "guidance_scale": 1.0}
    drawer("a red seven", height=side, width=side, output_type="pt", **options)


def costs(drawers: dict) -> list[dict]:
    """Of a picture of each size; seconds by the clock."""
    rows = []
    for side in SIDES:
        works = {name: partial(draw_one, drawer, side) for name, drawer in drawers.items()}
        for name, seconds in seconds_in_turn(works, time.perf_counter).items():
            cost = counted(drawers[name], side)
            rows.append({"side": side, "on": name, "seconds": seconds, **cost})
    return rows


def measure(pipe: StableDiffusion, judge: Judge, asked: Asked) -> dict:
    exam = Exam(judge, asked.samples, asked.seed)
    rows, drawers = train_both(pipe, exam, asked.seed)
    sizes = {name: parameter_count(drawer.unet) for name, drawer in drawers.items()}
    return {"trained": rows, "floor": exam.floor, "parameters": sizes, "costs": costs(drawers)}


def tables(results: dict) -> dict[str, Table]:
    head = ["the U-Net works on", "trained for", "steps", "core seconds", "seconds a step"]
    trained = [[*head, "joint, %", "digit, %", "Frechet distance"]]
    for row in results["trained"]:
        each = row["seconds"] / row["steps"]
        numbers = [f"{row['steps']}", f"{row['seconds']:.0f}", f"{each:.2f}"]
        rates = [percent(row[x]) for x in ("joint", "digit")]
        trained.append([row["on"], row["for"], *numbers, *rates, f"{row['frechet']:.1f}"])
    trained.append(["real renders", *[""] * 6, f"{results['floor']:.1f}"])
    head = ["a picture of", "on", "million FLOPs of a call of the U-Net", "of the picture"]
    costs = [[*head, "ms"]]
    for row in results["costs"]:
        flops = [f"{row[x] / 1e6:,.0f}" for x in ("flops of a call", "flops")]
        side = f"{row['side']} x {row['side']}"
        costs.append([side, row["on"], *flops, f"{1000 * row['seconds']:.0f}"])
    return {"quality": trained, f"what a picture costs, {STEPS} steps": costs}


def headlines(results: dict) -> dict[str, str]:
    rows = [(f"{row['on']} {row['for']}".strip(), row["joint"]) for row in results["trained"]]
    return {f"{name}, %": percent(cell) for name, cell in rows}
