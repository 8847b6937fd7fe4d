"""Attention between resolutions: does it pay for what it costs? Both networks, equal seconds.

Each U-Net is trained from nothing, by the same loss on the same pictures, as many steps as fit into
the same processor time. What a step takes is measured first, the two in turn. A run that was
stopped goes on where it was, in FOLDER.
"""

from dataclasses import replace
from pathlib import Path

import torch

from ..checkpoint import read_json, write_json
from ..data import ONE
from ..evaluation import Judge, Table, percent
from ..extensions.cross_resolution import RECIPE, CrossResolutionDiffusion, CrossResolutionUNet
from ..models import UNet, parameter_count
from ..pipeline import StableDiffusion
from ..training import Run, run_on
from ..training.budget import forward_flops, seconds_a_step
from ..training.pool import Pool, encode_pool
from ..training.stages import Stage, train_stage, unet_stage
from . import Asked, Exam, together

SAMPLES = 1000  # pictures of each trained network
FOLDER = Path("runs/cross-resolution")
SECONDS = 180  # of processor time, for each network and seed
SEEDS = 3
TIMED = 10  # steps that span all shares of a training run, as later ones cost more
NETWORKS = {"usual": UNet, "cross-resolution": CrossResolutionUNet}
NAME = "cross_resolution"


def run_of(pipe: StableDiffusion, name: str, seed: int, steps: int) -> Run:
    return run_on(pipe, FOLDER / f"{name}-{seed}", ONE, seed, {NAME: replace(RECIPE, steps=steps)})


def stage_of(run: Run, pool: Pool, name: str) -> Stage:
    return unet_stage(run, pool, NAME, NETWORKS[name])


def costs(pipe: StableDiffusion, pool: Pool) -> dict[str, dict]:
    """What each network costs, and the steps that fit into SECONDS; measured once, then kept."""
    path = FOLDER / "costs.json"
    if not path.exists():
        run = run_of(pipe, "timed", 0, TIMED)
        stages, found = {name: stage_of(run, pool, name) for name in NETWORKS}, {}
        for name, taken in seconds_a_step(stages, run.recipes[NAME]).items():
            unet = stages[name].model
            inputs = pool.latents[:1], torch.zeros((), device=pipe.device), pool.contexts[:1]
            cost = {"parameters": parameter_count(unet), "flops": forward_flops(unet, *inputs)}
            found[name] = {**cost, "seconds": taken, "steps": round(SECONDS / taken)}
        write_json(path, found)
    return read_json(path)


def measure(pipe: StableDiffusion, judge: Judge, asked: Asked) -> dict:
    first = run_of(pipe, "pool", asked.seed, 1)
    pool = encode_pool(first, pipe.autoencoder, pipe.tokenizer, pipe.text_encoder)
    cost, exam, runs = costs(pipe, pool), Exam(judge, asked.samples, asked.seed), []
    for seed in range(asked.seed, asked.seed + SEEDS):
        for name, network in NETWORKS.items():
            run = run_of(pipe, name, seed, cost[name]["steps"])
            run.working.mkdir(parents=True, exist_ok=True)
            unet = train_stage(run, stage_of(run, pool, name))
            if network is CrossResolutionUNet:  # for its maps
                CrossResolutionDiffusion(pipe, unet).save_pretrained(run.folder)
            runs.append({"seed": seed, "network": name, **exam(replace(pipe, unet=unet))})
    every = {name: together([r for r in runs if r["network"] == name]) for name in NETWORKS}
    return {"costs": cost, "runs": runs, "all": every, "floor": exam.floor}


def tables(results: dict) -> dict[str, Table]:
    costs = [["", "parameters", "million FLOPs", "ms of processor time a step", "steps"]]
    for name, c in results["costs"].items():
        numbers = [f"{c['parameters']:,}", f"{c['flops'] / 1e6:.1f}", f"{1000 * c['seconds']:.0f}"]
        costs.append([name, *numbers, str(c["steps"])])
    rows = [["", "seed", "joint, %", "digit, %", "Frechet distance"]]
    cells = [(run["network"], str(run["seed"]), run) for run in results["runs"]]
    cells += [(name, "all", cell) for name, cell in results["all"].items()]
    for name, seed, cell in cells:
        rates = [percent(cell[x]) for x in ("joint", "digit")]
        rows.append([name, seed, *rates, f"{cell['frechet']:.1f}"])
    rows.append(["real renders", "", "", "", f"{results['floor']:.1f}"])
    return {"cost": costs, f"after {SECONDS} seconds of one core": rows}


def headlines(results: dict) -> dict[str, str]:
    rows = results["all"].items()
    return {f"equal seconds, {name}, %": percent(r["joint"]) for name, r in rows}
