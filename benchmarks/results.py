"""Write the README's results from the JSON that training and evaluation left in data/.

python -m benchmarks.results            # rewrites the part of README.md between its two marks
python -m benchmarks.results --check    # exit 1 if the README says something else
"""

import argparse
import sys
from pathlib import Path

from minisd.checkpoint import read_json
from minisd.data import ATTRIBUTES
from minisd.evaluation.evaluate import percent

ROOT = Path(__file__).resolve().parents[1]
BEGIN, END = "<!-- results: written by benchmarks/results.py -->", "<!-- end of results -->"
STAGES = {"autoencoder": "autoencoder", "clip": "CLIP", "unet": "U-Net"}


def table(head: list[str], rows: list[list[str]]) -> list[str]:
    """The lines of a table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(line) + " |" for line in lines]


def accuracy(results: dict) -> list[str]:
    rows = {
        "seen, drawn": results["seen"]["drawn"],
        "seen, real renders": results["seen"]["real"],
        "held out, drawn": results["held_out"]["drawn"],
        "held out, real renders": results["held_out"]["real"],
        "autoencoder keeps (of what the judge read right)": results["autoencoder"]["kept"],
        "CLIP zero-shot, among the captions of all 800 combinations": results["zero_shot"],
    }
    names = ["joint", *ATTRIBUTES]
    return table(["", *names], [[k, *(percent(row[n]) for n in names)] for k, row in rows.items()])


def quality(results: dict) -> list[str]:
    frechet, score, copies = results["frechet"], results["clip_score"], results["copies"]
    lessons = results["settings"]["lessons"]
    rows = [
        [
            "Frechet distance to real renders, in the judge's features",
            f"{frechet['drawn']:.1f}",
            f"{frechet['floor']:.1f} (another set of them)",
        ],
        ["CLIP score", f"{score['drawn']:.1f}", f"{score['real']:.1f}"],
        ["copies of training pictures, %", percent(copies["drawn"]), percent(copies["real"])],
        ["PSNR of reconstructions", f"{results['autoencoder']['psnr']:.1f} dB", ""],
    ]
    if lessons:
        rows.append(
            [
                f"real digits read right by a reader that saw {lessons} drawn pictures only, %",
                percent(results["taught"]),
                "",
            ]
        )
    return table(["", "drawn", "real"], rows)


def time(run: dict) -> list[str]:
    rows = [
        [STAGES[name], f"{cost['pictures']:,}", f"{cost['seconds'] / 60:.1f} min"]
        for name, cost in run["stages"].items()
    ]
    total = sum(cost["seconds"] for cost in run["stages"].values())
    rows.append(["all", "", f"{total / 60:.1f} min"])
    return table(["stage", "pictures", "time"], rows)


def text(folder: Path) -> str:
    results = read_json(folder / "evaluation.json")
    run = read_json(folder / "weights" / "training.json")
    s = results["settings"]
    processes = f"{run['processes']} process{'es' if run['processes'] > 1 else ''}"
    lines = [
        f"{s['samples']:,} pictures, {s['steps']} steps, guidance {s['guidance']:g}.",
        "Percent right, with Wilson 95% intervals.",
        f"Measured in {results['seconds']:.0f} s on {results['machine']}.",
        "",
        *accuracy(results),
        "",
        *quality(results),
        "",
        f"Trained by {processes}, seed {run['seed']}, on {run['machine']}.",
        "",
        *time(run),
    ]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing, only compare")
    check = parser.parse_args().check
    readme = ROOT / "README.md"
    before, _, rest = readme.read_text().partition(BEGIN)
    _, found, after = rest.partition(END)
    if not found:
        print(f"{readme} lacks the marks {BEGIN} and {END}", file=sys.stderr)
        return 1
    new = f"{before}{BEGIN}\n\n{text(ROOT / 'data')}\n\n{END}{after}"
    if check:
        return int(new != readme.read_text())
    readme.write_text(new)
    return 0


if __name__ == "__main__":
    sys.exit(main())
