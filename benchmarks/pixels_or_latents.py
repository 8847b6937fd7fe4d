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
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.5), layout="constrained")
    for name, colour in {"latents": "tab:blue", "pixels": "tab:orange"}.items():
        runs = [row for row in found["trained"] if row["on"] == name]
        rates = [[100 * row["joint"][key] for row in runs] for key in ("rate", "low", "high")]
        middle, low, high = rates
        errors = [[a - b for a, b in zip(middle, low)], [b - a for a, b in zip(middle, high)]]
        left.errorbar([row["seconds"] for row in runs], middle, errors, color=colour, marker="o")
        costs = [row for row in found["costs"] if row["on"] == name]
        sides = [row["side"] for row in costs]
        right.loglog(sides, [row["seconds"] for row in costs], "o-", color=colour, label=name)
    left.set(xlabel="seconds of one core in training", ylabel="as captioned, %", ylim=(0, 100))
    right.set(xlabel="pixels along a side", ylabel="seconds of a picture, ten steps")
    right.set_xticks(sides, map(str, sides))
    right.legend()
    plots.save(figure, HERE / "pixels_or_latents.png")


if __name__ == "__main__":
    main()
