"""Write the READMEs' tables from the JSON that training and evaluation left.

python -m benchmarks.results            # rewrites what stands between the marks
python -m benchmarks.results --check    # exit 1 if a README says something else
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from minisd import commands
from minisd.checkpoint import read_json
from minisd.evaluation import format_results, to_markdown
from minisd.evaluation.report import percent, quality_table, settings_line

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = {  # of a run: its evaluation.json and training.json
    "a quarter of an hour": "quarter",
    "two digits": "two",
    "emoji": "emoji",
    "emoji, 64 pixels": "emoji64",
}
RUNS = {  # what was measured, how it was trained
    "one digit": (ROOT / "data/evaluation.json", ROOT / "data/weights/training.json"),
    **{
        name: tuple(
            ROOT / "benchmarks" / folder / f"{what}.json" for what in ("evaluation", "training")
        )
        for name, folder in FOLDERS.items()
    },
}
BEGIN, END = "<!-- {}: written by benchmarks/results.py -->", "<!-- end of {} -->"
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


def trained(run: dict, time: str = "") -> str:
    """By what the networks were trained."""
    processes = f"{run['processes']} process{'es' if run['processes'] > 1 else ''}"
    return f"Trained{time} by {processes}, seed {run['seed']}, on {run['machine']}"


def full_tables(results: dict, run: dict) -> str:
    """Everything that was measured of a run."""
    blocks = [
        format_results(results, markdown=True),
        *([NOTES] if "seen" in results else []),
        f"Measured in {results['seconds']:.0f} s on {results['machine']}.",
        f"{trained(run)}:",
        training_table(run),
    ]
    return "\n\n".join(blocks)


def summary_table(results: dict, run: dict) -> str:
    """The front page's one table: what a run comes to."""
    _, *quality = quality_table(results)
    quality = {label: cells for label, *cells in quality}
    zero_shot = percent(results["zero_shot"]["joint"])
    rows = [["", "drawn", "real"]]
    for group, label in {"seen": "seen in training", "held_out": "held out"}.items():
        cells = [percent(results[group][kind]["joint"]) for kind in ("drawn", "real")]
        rows.append([f"as captioned, combinations {label}, %", *cells])
    for named, row in results["incomplete"].items():
        rows.append([f"whole, %; named: {named}", percent(row["whole"]), ""])
    rows.append(["CLIP, zero-shot: names the combination, %", "", zero_shot])
    label = "Frechet distance in the judge's features"
    rows.append([label, *quality[label]])
    minutes = sum(cost["seconds"] for cost in run["stages"].values()) / 60
    lines = [settings_line(results), trained(run, f" in {minutes:.1f} minutes") + "."]
    return "\n\n".join([to_markdown(rows), "\n".join(lines)])


def of_run(write: Callable[[dict, dict], str], name: str) -> Callable[[], str]:
    """Something written of a run's evaluation and training."""
    return lambda: write(*map(read_json, RUNS[name]))


def suite_tables() -> str:
    """What every suite measured, with the command."""
    blocks = []
    for file in sorted((ROOT / "benchmarks/suites").glob("*.json")):
        about = read_json(file)
        of = f", {about['weights']}" if "weights" in about else ""
        blocks.append(f"### {about['suite']}{of}")
        for heading, table in commands.SUITES[about["suite"]].tables(about["results"]).items():
            blocks.append(f"*{heading}*\n\n{to_markdown(table)}")
        command = f"`python -m minisd evaluate --suite {about['suite']}"
        command += f" --weights {about['weights']}" if of else ""
        asked = f"{command} --samples {about['samples']} --seed {about['seed']}`"
        blocks.append(f"{asked}, {about['seconds']:.0f} s on {about['machine']}.")
    return "\n\n".join(blocks)


def headlines() -> str:
    """The front page's table of all suites."""
    rows = [["suite", "measured"]]
    for file in sorted((ROOT / "benchmarks/suites").glob("*.json")):
        about = read_json(file)
        found = commands.SUITES[about["suite"]].headlines(about["results"]).items()
        if found:
            rows.append([about["suite"], "<br>".join(f"{what}: {value}" for what, value in found)])
    return to_markdown(rows)


PAGES = {  # README: what stands between which marks
    ROOT / "README.md": {"summary": of_run(summary_table, "one digit"), "systems": headlines},
    ROOT / "benchmarks/README.md": {
        **{name: of_run(full_tables, name) for name in RUNS},
        "suites": suite_tables,
    },
}


def page(readme: Path) -> str:
    """The README as it should be; ValueError if it lacks the marks."""
    text = readme.read_text(encoding="utf-8")
    for mark, write in PAGES[readme].items():
        begin, end = BEGIN.format(mark), END.format(mark)
        before, _, rest = text.partition(begin)
        _, found, after = rest.partition(end)
        if not found:
            raise ValueError(f"{readme} lacks the marks {begin} and {end}")
        text = f"{before}{begin}\n\n{write()}\n\n{end}{after}"
    return text


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
