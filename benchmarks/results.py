"""Write the READMEs' results from the JSON that training and evaluation left.

python -m benchmarks.results            # rewrites what stands between the two marks
python -m benchmarks.results --check    # exit 1 if a README says something else
"""

import argparse
import sys
from pathlib import Path

from minisd.checkpoint import read_json
from minisd.evaluation.evaluate import accuracy, percent

ROOT = Path(__file__).resolve().parents[1]
PAGES = {  # which README: what was measured, how it was trained
    ROOT / "README.md": (ROOT / "data/evaluation.json", ROOT / "data/weights/training.json"),
    ROOT / "benchmarks/README.md": (
        ROOT / "benchmarks/two/evaluation.json",
        ROOT / "benchmarks/two/training.json",
    ),
}
BEGIN, END = "<!-- results: written by benchmarks/results.py -->", "<!-- end of results -->"
STAGES = {"autoencoder": "autoencoder", "clip": "CLIP", "unet": "U-Net"}


def table(head: list[str], rows: list[list[str]]) -> list[str]:
    """The lines of a table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(line) + " |" for line in lines]


def quality(results: dict) -> list[str]:
    frechet, score, copies = results["frechet"], results["clip_score"], results["copies"]
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
    if taught := results.get("taught"):
        pupil = f"a reader that saw {taught['lessons']:,} drawn pictures only"
        rows.append([f"real digits read right by {pupil}, %", percent(taught), ""])
    return table(["", "drawn", "real"], rows)


def time(run: dict) -> list[str]:
    rows = [
        [STAGES[name], f"{cost['pictures']:,}", f"{cost['seconds'] / 60:.1f} min"]
        for name, cost in run["stages"].items()
    ]
    total = sum(cost["seconds"] for cost in run["stages"].values())
    rows.append(["all", "", f"{total / 60:.1f} min"])
    return table(["stage", "pictures", "time"], rows)


def text(evaluation: Path, training: Path) -> str:
    results, run = read_json(evaluation), read_json(training)
    head, *rows = accuracy(results)
    s = results["settings"]
    processes = f"{run['processes']} process{'es' if run['processes'] > 1 else ''}"
    lines = [
        f"{s['samples']:,} pictures, {s['steps']} steps, guidance {s['guidance']:g}.",
        "Intervals are Wilson's. The autoencoder keeps so much of what the judge read right; CLIP",
        "chooses among the captions of all combinations.",
        f"Measured in {results['seconds']:.0f} s on {results['machine']}.",
        "",
        *table(head, rows),
        "",
        *quality(results),
        "",
        f"Trained by {processes}, seed {run['seed']}, on {run['machine']}.",
        "",
        *time(run),
    ]
    return "\n".join(lines)


def page(readme: Path) -> str:
    """The README as it should be; ValueError if it lacks the marks."""
    before, _, rest = readme.read_text().partition(BEGIN)
    _, found, after = rest.partition(END)
    if not found:
        raise ValueError(f"{readme} lacks the marks {BEGIN} and {END}")
    return f"{before}{BEGIN}\n\n{text(*PAGES[readme])}\n\n{END}{after}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing, only compare")
    check = parser.parse_args().check
    for readme in PAGES:
        try:
            new = page(readme)
        except ValueError as error:
            sys.exit(str(error))
        if not check:
            readme.write_text(new)
        elif new != readme.read_text():
            sys.exit(f"{readme} is not what was measured; run: python -m benchmarks.results")


if __name__ == "__main__":
    main()
