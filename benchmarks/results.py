"""Write the READMEs' results from the JSON that training and evaluation left.

python -m benchmarks.results            # rewrites what stands between the two marks
python -m benchmarks.results --check    # exit 1 if a README says something else
"""

import argparse
import sys
from pathlib import Path

from minisd.checkpoint import read_json
from minisd.evaluation import format_results, to_markdown

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
NOTES = """\
*Autoencoder keeps*: of the pictures that the judge reads right, those that it still reads right
after encoding and decoding. *CLIP zero-shot*: CLIP ranks the right caption first, among those of
all combinations."""


def training_table(run: dict) -> str:
    """What each stage took."""
    rows = [
        [STAGES[name], f"{cost['pictures']:,}", f"{cost['seconds'] / 60:.1f} min"]
        for name, cost in run["stages"].items()
    ]
    total = sum(cost["seconds"] for cost in run["stages"].values())
    rows.append(["all", "", f"{total / 60:.1f} min"])
    return to_markdown([["stage", "pictures", "time"], *rows])


def text(evaluation: Path, training: Path) -> str:
    results, run = read_json(evaluation), read_json(training)
    processes = f"{run['processes']} process{'es' if run['processes'] > 1 else ''}"
    blocks = [
        format_results(results, markdown=True),
        NOTES,
        f"Measured in {results['seconds']:.0f} s on {results['machine']}.",
        f"Trained by {processes}, seed {run['seed']}, on {run['machine']}:",
        training_table(run),
    ]
    return "\n\n".join(blocks)


def page(readme: Path) -> str:
    """The README as it should be; ValueError if it lacks the marks."""
    before, _, rest = readme.read_text(encoding="utf-8").partition(BEGIN)
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
            readme.write_text(new, encoding="utf-8")
        elif new != readme.read_text(encoding="utf-8"):
            sys.exit(f"{readme} is not what was measured; run: python -m benchmarks.results")


if __name__ == "__main__":
    main()
