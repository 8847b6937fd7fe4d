"""The whole training on a GPU, in one call: seconds by stage, what it reaches, what graphs bring.

    python -m benchmarks.gpu --out runs/gpu

Trains twice in one process: cold, while kernels are still chosen and compiled, and warm. Then times
a step of the U-Net as it is, and replayed as CUDA graphs, which spare the launching of kernels.
"""

import argparse
import time
from pathlib import Path

import torch

from minisd import data
from minisd.checkpoint import read_json, write_json
from minisd.evaluation import Judge, Settings, evaluate, format_results, to_text
from minisd.machine import describe, mixed_precision, pick_device
from minisd.models import UNet
from minisd.training import Run, recipes_for, train_all

SIZE, STEPS = 64, 100


def seconds_a_step(network, inputs: tuple) -> float:
    """Forward and backward, the mean of STEPS after as many that are not counted."""
    for _ in range(2):
        torch.cuda.synchronize()
        began = time.perf_counter()
        for _ in range(STEPS):
            with mixed_precision("cuda"):
                loss = network(*inputs).square().mean()
            loss.backward()
        torch.cuda.synchronize()
    return (time.perf_counter() - began) / STEPS


def graphs() -> dict[str, float]:
    """Milliseconds of a step of the U-Net: launched kernel by kernel, and as graphs."""
    network = UNet().cuda().train()
    x = torch.randn(SIZE, 4, 8, 8, device="cuda", requires_grad=True)
    inputs = x, torch.full((SIZE,), 500, device="cuda"), torch.randn(SIZE, 16, 128, device="cuda")
    eager = seconds_a_step(network, inputs)
    with mixed_precision("cuda"):
        graphed = torch.cuda.make_graphed_callables(network, inputs)
    return {"kernel by kernel": 1000 * eager, "graphs": 1000 * seconds_a_step(graphed, inputs)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("runs/gpu"), help="(%(default)s)")
    parser.add_argument("--device", default="cuda", help="(%(default)s)")
    parser.add_argument("--effort", type=float, default=1.0, help="times the steps (%(default)s)")
    parser.add_argument("--samples", type=int, default=2000, help="pictures (%(default)s)")
    o = parser.parse_args()
    device = pick_device(o.device)
    rows, found = [["stage", "cold, s", "warm, s"]], {"machine": describe(device)}
    for name in ("cold", "warm"):
        pipe = train_all(Run(o.out / name, data.ONE, 0, device, recipes_for(data.ONE, o.effort)))
        found[name] = read_json(o.out / name / "training.json")["stages"]
    for stage, cold in found["cold"].items():
        rows.append([stage, f"{cold['seconds']:.1f}", f"{found['warm'][stage]['seconds']:.1f}"])
    print(f"{found['machine']}\n\n{to_text(rows)}\n")
    judge, settings = Judge.load(device=device), Settings(samples=o.samples)
    found["evaluation"] = evaluate(pipe, judge, data.ONE, settings)
    print(format_results(found["evaluation"]))
    if device.type == "cuda":
        found["graphs"] = graphs()
        print("ms of a step of the U-Net:", found["graphs"])
    write_json(o.out / "gpu.json", found)


if __name__ == "__main__":
    main()
