"""Attention between resolutions: does it pay for what it costs? Both networks, equal seconds.

Each U-Net is trained from nothing, by the same loss on the same pictures, as many steps as fit into
the same processor time. What a step takes is measured first, the two in turn. A run that was
stopped goes on where it was, in FOLDER.
"""

import statistics
import time
from dataclasses import replace
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from .. import data
from ..checkpoint import read_json, write_json
from ..data import ONE
from ..evaluation import Judge, Settings, Table, accuracy, draw, frechet_distance, percent
from ..extensions.cross_resolution import (
    RECIPE,
    CrossResolutionDiffusion,
    CrossResolutionUNet,
    stage,
)
from ..models import UNet, parameter_count
from ..pipeline import StableDiffusion
from ..training import Run, train
from ..training.pool import Pool, encode_pool
from ..training.stages import train_stage
from . import Asked

SAMPLES = 1000  # pictures of each trained network
FOLDER = Path("runs/cross-resolution")
SECONDS = 180  # of processor time, for each network and seed
SEEDS = 3
ROUNDS, TIMED = 3, 10  # times that both are measured, in turn; steps of each
NETWORKS = {"usual": UNet, "cross-resolution": CrossResolutionUNet}
NAME = "cross_resolution"


def run_of(pipe: StableDiffusion, name: str, seed: int, steps: int) -> Run:
    recipes = {NAME: replace(RECIPE, steps=steps)}
    return Run(FOLDER / f"{name}-{seed}", ONE, seed, pipe.device, recipes)


def seconds_a_step(pipe: StableDiffusion, pool: Pool) -> dict[str, float]:
    """Processor time of a step of each network, the median of ROUNDS.

    The few steps span all shares of a training run, as later ones cost more.
    """
    taken: dict[str, list[float]] = {name: [] for name in NETWORKS}
    for _ in range(1 + ROUNDS):  # the first is not counted
        for name, network in NETWORKS.items():
            run = run_of(pipe, name, 0, TIMED)
            one = stage(run, pipe, pool, network)
            began = time.process_time()
            train(one.model, one.loss_of_step, run.recipes[NAME], label=None)
            taken[name].append((time.process_time() - began) / TIMED)
    return {name: statistics.median(times[1:]) for name, times in taken.items()}


def costs(pipe: StableDiffusion, pool: Pool) -> dict[str, dict]:
    """What each network costs, and the steps that fit into SECONDS; measured once, then kept."""
    path = FOLDER / "costs.json"
    if not path.exists():
        found = {}
        for name, taken in seconds_a_step(pipe, pool).items():
            unet = NETWORKS[name](pipe.unet.config).to(pipe.device)
            with FlopCounterMode(display=False) as counter, torch.no_grad():
                unet(pool.latents[:1], torch.zeros((), device=pipe.device), pool.contexts[:1])
            cost = {"parameters": parameter_count(unet), "flops": counter.get_total_flops()}
            found[name] = {**cost, "seconds": taken, "steps": round(SECONDS / taken)}
        write_json(path, found)
    return read_json(path)


def measure(pipe: StableDiffusion, judge: Judge, asked: Asked) -> dict:
    first = run_of(pipe, "pool", asked.seed, 1)
    pool = encode_pool(first, pipe.autoencoder, pipe.tokenizer, pipe.text_encoder)
    cost = costs(pipe, pool)
    wanted = data.cycle(data.all_combinations(), asked.samples, asked.seed)
    generator = torch.Generator().manual_seed(asked.seed)
    real = [
        judge.features(ONE.batch(len(wanted), "test", generator, attributes=wanted).images)
        for _ in range(2)
    ]
    captions = [ONE.say(c) for c in wanted.tolist()]
    settings = Settings(guidance=1.0, rescale=0.0, seed=asked.seed)  # ten steps of DDIM
    answers: dict = {name: [] for name in NETWORKS}
    runs = []
    for seed in range(asked.seed, asked.seed + SEEDS):
        for name, network in NETWORKS.items():
            run = run_of(pipe, name, seed, cost[name]["steps"])
            run.working.mkdir(parents=True, exist_ok=True)
            unet = train_stage(run, stage(run, pipe, pool, network))
            if network is CrossResolutionUNet:  # for its maps
                CrossResolutionDiffusion(pipe, unet).save_pretrained(run.folder)
            pictures = draw(replace(pipe, unet=unet), captions, asked.seed, settings, "drawing")
            answers[name].append(judge(pictures).cpu())
            distance = frechet_distance(judge.features(pictures), real[0])
            cell = {"seed": seed, "network": name, "frechet": distance}
            runs.append({**cell, **accuracy(answers[name][-1], wanted, ONE)})
    truth = wanted.repeat(SEEDS, 1)
    every = {name: accuracy(torch.cat(found), truth, ONE) for name, found in answers.items()}
    return {"costs": cost, "runs": runs, "all": every, "floor": frechet_distance(*real)}


def tables(results: dict) -> dict[str, Table]:
    costs = [["", "parameters", "million FLOPs", "ms of processor time a step", "steps"]]
    for name, c in results["costs"].items():
        numbers = [f"{c['parameters']:,}", f"{c['flops'] / 1e6:.1f}", f"{1000 * c['seconds']:.0f}"]
        costs.append([name, *numbers, str(c["steps"])])
    rows = [["", "seed", "joint, %", "digit, %", "Frechet distance"]]
    for cell in results["runs"]:
        rates = [percent(cell[x]) for x in ("joint", "digit")]
        rows.append([cell["network"], str(cell["seed"]), *rates, f"{cell['frechet']:.1f}"])
    for name, cell in results["all"].items():
        distances = [run["frechet"] for run in results["runs"] if run["network"] == name]
        rates = [percent(cell[x]) for x in ("joint", "digit")]
        rows.append([name, "all", *rates, f"{statistics.mean(distances):.1f}"])
    rows.append(["real renders", "", "", "", f"{results['floor']:.1f}"])
    return {"cost": costs, f"after {SECONDS} seconds of one core": rows}
