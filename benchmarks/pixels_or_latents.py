"""Why diffusion works in latents: quality against training time, and the cost of larger pictures.

python -m minisd evaluate --suite pixels-or-latents --json benchmarks/suites/pixels-or-latents.json
python -m benchmarks.pixels_or_latents                 # pixels_or_latents.png, here
"""

from pathlib import Path

import matplotlib.pyplot as plt

from minisd import plots
from minisd.checkpoint import read_json

HERE = Path(__file__).resolve().parent


def main() -> None:
    found = read_json(HERE / "suites/pixels-or-latents.json")["results"]
    figure, axes = plt.subplots(1, 3, figsize=(11, 3.2), layout="constrained")
    quality, *costs = axes
    for name, colour in {"latents": "tab:blue", "pixels": "tab:orange"}.items():
        runs = [row for row in found["trained"] if row["on"] == name]
        rates, low, high = (
            [100 * row["joint"][key] for row in runs] for key in ("rate", "low", "high")
        )
        errors = [[a - b for a, b in zip(rates, low)], [b - a for a, b in zip(rates, high)]]
        seconds = [row["seconds"] for row in runs]
        quality.errorbar(seconds, rates, errors, color=colour, marker="o", capsize=3, label=name)
        rows = [row for row in found["costs"] if row["on"] == name]
        sides = [row["side"] for row in rows]
        for axis, key, unit in zip(costs, ("flops", "seconds"), (1e9, 1)):
            axis.plot(sides, [row[key] / unit for row in rows], "o-", color=colour)
            axis.set(xlabel="pixels along a side", xticks=sides)
    quality.set(xlabel="seconds of one core in training", ylabel="as captioned, %")
    quality.set(xlim=(0, None), ylim=(0, 100))
    quality.legend()
    for axis in costs:
        axis.set_ylim(bottom=0)
    costs[0].set(ylabel="GFLOP of a picture, ten steps")
    costs[1].set(ylabel="seconds of a picture, ten steps")
    plots.save(figure, HERE / "pixels_or_latents.png")


if __name__ == "__main__":
    main()
