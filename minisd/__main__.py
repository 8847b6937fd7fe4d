"""The command line: python -m minisd train | extend | sample | evaluate. Arguments only."""

import argparse
import io
import math
import os
import signal
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import matplotlib

from . import commands, data
from .diffusion import SAMPLERS
from .errors import InputError, shorten
from .evaluation import Settings
from .pretrained import WEIGHTS
from .suites import EXTENSIONS
from .training import parallel

DATA = 'what to train on: "one" or "two" digits in a picture, or a folder of captioned pictures'
SIZE = "pixels along each side to which a folder's pictures are resized: 32 or 64 (32)"
EFFORT = "multiply all training steps by this (%(default)s)"
RECIPE = "change how a network is trained, e.g. unet.steps=300; may be repeated"
NETWORK = "change a network, e.g. unet.block_out_channels=48,96; may be repeated"
PROCESSES = "processes that share the work, as torchrun would start them (%(default)s)"
CLASSIFIER = "draw N more pictures, train a digit classifier on them alone, test it on real digits"
GUIDANCE = "guidance scale (the checkpoint's own)"
RESCALE = "guidance_rescale, 0 to 1 (the checkpoint's own)"
SUITE = "what to measure: %(choices)s (%(default)s)"
FOLDERS = "where the extensions lie, each in a folder of its name (data/extensions)"
IMAGE = "a picture to start from, instead of noise"
ANIMATE = "a film of the steps: noisy latents, guesses of x0, and where each word looks"
MASK = "a picture, white where something new is drawn, black where --image stays"
AND = "another prompt that every picture follows as well, of weight 1; may be repeated"
NOT = "a prompt that no picture follows, of weight 0.5; may be repeated"
STRENGTH = "how far --image goes back to noise, 0 to 1 (0.8; 1 with --mask)"
# How a worker starts: with this package, not one of that name in the working directory
ROOT = str(Path(__file__).resolve().parents[1])
START = f"import sys; sys.path.insert(0, {ROOT!a}); from minisd.__main__ import start; start()"
SAMPLER = ", ".join(SAMPLERS)


def number(kind: type, least: float, most: float) -> Callable[[str], float]:
    """A function that reads a number of that kind, from `least` to `most`, for argparse."""

    def read(text: str) -> float:
        if not least <= kind(text) <= most:
            raise argparse.ArgumentTypeError(f"{text} is not from {least} to {most}")
        return kind(text)

    read.__name__ = kind.__name__  # which argparse names in "invalid int value"
    return read


def weighted(usual: float) -> Callable[[str], tuple[str, float]]:
    """A function that reads `a seven`, of the usual weight, or `a seven:0.3`, for argparse."""

    def read(text: str) -> tuple[str, float]:
        prompt, colon, weight = text.rpartition(":")
        try:
            return (prompt, math.copysign(float(weight), usual)) if colon else (text, usual)
        except ValueError:
            return text, usual

    return read


def path(text: str) -> Path:
    """The path, if there is one: Path("") is the working directory."""
    if not text:
        raise argparse.ArgumentTypeError("name a file or a folder")
    return Path(text)


class Parser(argparse.ArgumentParser):
    """argparse's, but what it quotes is shortened, and no path is empty."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.register("type", Path, path)

    def error(self, message: str):
        super().error(shorten(message, 200))


def parse(arguments: list[str] | None) -> argparse.Namespace:
    about = "Stable Diffusion in miniature: a caption becomes a picture."
    parser = Parser("python -m minisd", description=about)
    count, factor = number(int, 1, 1024), number(float, 0.001, 1000)
    seed = number(int, 0, commands.MAX_SEED)
    subparsers = parser.add_subparsers(dest="command", required=True)
    train = subparsers.add_parser("train", help="train all three networks, end to end")
    extend = subparsers.add_parser("extend", help="train an extension on top of a checkpoint")
    sample = subparsers.add_parser("sample", help="draw pictures from captions")
    measure = subparsers.add_parser("evaluate", help="measure a checkpoint")

    train.set_defaults(run=commands.train)
    train.add_argument("--data", default="one", metavar="one|two|FOLDER", help=DATA)
    train.add_argument("--out", type=Path, default=Path("runs/minisd"), help="(%(default)s)")
    train.add_argument("--network", action="append", default=[], metavar="SETTING", help=NETWORK)

    extend.set_defaults(run=commands.extend)
    names = ", ".join(commands.EXTENSIONS)
    extend.add_argument("name", choices=commands.EXTENSIONS, metavar="NAME", help=names)
    extend.add_argument("--data", metavar="one|two|FOLDER", help="(what it was trained on)")
    extend.add_argument("--out", type=Path, help="(runs/extensions/NAME)")

    sample.set_defaults(run=commands.sample)
    sample.add_argument("prompts", nargs="*", metavar="PROMPT", help="what to draw")
    sample.add_argument("--out", type=Path, default=Path("sample.png"), help="(%(default)s)")
    sample.add_argument("--negative", metavar="PROMPT", help="what to stay away from")
    combined = {"dest": "combine", "action": "append", "default": [], "metavar": "PROMPT[:WEIGHT]"}
    sample.add_argument("--and", type=weighted(1.0), help=AND, **combined)
    sample.add_argument("--not", type=weighted(-0.5), help=NOT, **combined)
    sample.add_argument("--eta", type=float, default=0.0, help="DDIM's noise, 0 to 1 (%(default)s)")
    sample.add_argument("--steps", type=int, help="sampling steps (the checkpoint's own)")
    sample.add_argument("--sampler", help=f"{SAMPLER} (the checkpoint's own)")
    sample.add_argument("--image", type=Path, metavar="FILE", help=IMAGE)
    sample.add_argument("--mask", type=Path, metavar="FILE", help=MASK)
    sample.add_argument("--animate", type=Path, metavar="FILE.gif", help=ANIMATE)
    sample.add_argument("--strength", type=float, metavar="S", help=STRENGTH)

    for extension in commands.EXTENSIONS.values():
        for flag, about in getattr(extension, "OPTIONS", {}).items():
            sample.add_argument(flag, **about)

    measure.set_defaults(run=commands.measure)
    measure.add_argument("--suite", default="text", choices=commands.SUITES, help=SUITE)
    measure.add_argument("--data", metavar="one|two|FOLDER", help="(what it was trained on)")
    measure.add_argument("--samples", type=int, help=f"pictures ({Settings.samples})")
    measure.add_argument("--steps", type=int, help=f"sampling steps ({Settings.steps})")
    measure.add_argument("--sampler", help=f"{SAMPLER} ({Settings.sampler})")
    measure.add_argument("--classifier", type=int, dest="synthetic", metavar="N", help=CLASSIFIER)
    measure.add_argument("--json", type=Path, metavar="FILE", help="write the numbers here too")

    for command in (train, extend):
        command.add_argument("--resume", action="store_true", help="go on with the run in --out")
        command.add_argument("--effort", type=factor, default=1, metavar="N", help=EFFORT)
        command.add_argument(
            "--recipe", action="append", default=[], metavar="SETTING", help=RECIPE
        )
        command.add_argument("--processes", type=count, default=1, metavar="N", help=PROCESSES)
    for command in (extend, sample, measure):
        command.add_argument("--weights", type=Path, default=WEIGHTS, help="(data/weights)")
    for command in (sample, measure):
        command.add_argument(
            "--extensions", type=Path, default=EXTENSIONS, metavar="FOLDER", help=FOLDERS
        )
        command.add_argument("--guidance", type=float, help=GUIDANCE)
        command.add_argument("--rescale", type=float, help=RESCALE)
    for command in (train, extend, measure):
        command.add_argument("--size", type=int, choices=data.SIZES, help=SIZE)
    for command in (train, extend, sample, measure):
        command.add_argument("--seed", type=seed, default=0, help="decides every bit (%(default)s)")
        command.add_argument("--device", default="auto", help="auto, cpu, cuda, mps (%(default)s)")
    return parser.parse_args(arguments)


def tell(line: str) -> None:
    """Print one line for the user, beside what the command prints."""
    print(f"minisd: {line}", file=sys.stderr)


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    warnings.showwarning = lambda message, *_: tell(f"note: {message}")
    try:
        if getattr(options, "processes", 1) > 1 and not parallel.launched():
            command = [sys.executable, "-c", START, *(arguments or sys.argv[1:])]
            return parallel.launch(options.processes, command)
        options.run(options)
    except OSError as error:
        file = f"{shorten(str(error.filename), 200)}: " if error.filename else ""
        tell(f"error: {file}{error.strerror or error}")
        return 1
    except (InputError, Warning) as error:  # python -W error makes errors of notes
        tell(f"error: {error}")
        return 1
    except KeyboardInterrupt:
        tell("stopped; a training run goes on with --resume")
        return 130
    return 0


class Tireless(io.FileIO):
    """Where a standard stream writes. If nobody reads it or its disk is full, the work goes on."""

    def write(self, data) -> int:
        try:
            return super().write(data)
        except OSError:
            return len(data)


def start() -> None:
    """The command `minisd`: `main`, whatever becomes of the terminal."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)  # None if it is closed
        if not stream or not stream.isatty():
            file, encoding = (stream.fileno(), stream.encoding) if stream else (os.devnull, "utf-8")
            raw = io.BufferedWriter(Tireless(file, "w", closefd=not stream))
            stream = io.TextIOWrapper(raw, encoding, line_buffering=True)
        stream.reconfigure(errors="backslashreplace")  # for characters that it does not know
        setattr(sys, name, stream)
    matplotlib.use("agg")  # a notebook that starts this command names a backend of its own
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # it stops as Ctrl-C does
    sys.exit(main())


if __name__ == "__main__":
    start()
