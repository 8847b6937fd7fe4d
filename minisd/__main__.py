"""The command line: python -m minisd train | sample | evaluate. Arguments only, no logic."""

import argparse
import json
import logging
import os
import sys
import time
import warnings
from pathlib import Path

import torch

from . import StableDiffusion, data, plots
from .checkpoint import read_json
from .diffusion import SAMPLERS
from .evaluation import Judge, Settings, evaluate, format_table
from .machine import describe, pick_device
from .pipeline import WEIGHTS
from .training import parallel, train_all

SCENES = "how many digits a picture has (%(default)s)"
PROCESSES = "processes that share the work, as torchrun would start them (%(default)s)"
LESSONS = "draw N more pictures and train a fresh reader on them alone (%(default)s: do not)"


def seed(text: str) -> int:
    """A seed that every generator takes."""
    if not 0 <= int(text) < 2**32:
        raise argparse.ArgumentTypeError(f"{text} is not from 0 to {2**32 - 1}")
    return int(text)


def at_least_one(text: str) -> int:
    """How many, where none is no answer."""
    if int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return int(text)


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "python -m minisd",
        description="Stable Diffusion in miniature: a caption becomes a picture.",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    train = commands.add_parser("train", help="train all three networks, end to end")
    sample = commands.add_parser("sample", help="draw pictures from captions")
    measure = commands.add_parser("evaluate", help="measure a checkpoint")

    train.add_argument("--out", type=Path, default=Path("runs/minisd"), help="(%(default)s)")
    train.add_argument("--resume", action="store_true", help="go on with the run in --out")
    train.add_argument("--processes", type=at_least_one, default=1, metavar="N", help=PROCESSES)
    sample.add_argument("prompts", nargs="+", metavar="PROMPT", help="what to draw")
    sample.add_argument("--out", type=Path, default=Path("sample.png"), help="(%(default)s)")
    sample.add_argument("--negative", metavar="PROMPT", help="what to stay away from")
    sample.add_argument("--eta", type=float, default=0.0, help="DDIM's noise, 0 to 1 (%(default)s)")
    measure.add_argument("--samples", type=int, default=2000, help="pictures (%(default)s)")
    measure.add_argument("--lessons", type=int, default=0, metavar="N", help=LESSONS)
    measure.add_argument("--json", type=Path, metavar="FILE", help="write the numbers here too")
    own = "the checkpoint's own"
    for command, steps, scale, rescale, default in (
        (sample, None, None, None, own),
        (measure, Settings.steps, Settings.guidance, Settings.rescale, "%(default)s"),
    ):
        command.add_argument("--steps", type=int, default=steps, help=f"sampling steps ({default})")
        command.add_argument("--guidance", type=float, default=scale, help=f"scale ({default})")
        command.add_argument(
            "--rescale", type=float, default=rescale, help=f"guidance_rescale ({default})"
        )
        command.add_argument("--weights", type=Path, default=WEIGHTS, help="(data/weights)")
        command.add_argument("--sampler", help=f"{', '.join(SAMPLERS)} ({own})")
    for command in (train, measure):
        command.add_argument("--scenes", choices=data.WORLDS, default="one", help=SCENES)
    for command in (train, sample, measure):
        command.add_argument("--seed", type=seed, default=0, help="decides every bit (%(default)s)")
        command.add_argument("--device", default="auto", help="auto, cpu, cuda, mps (%(default)s)")
    return parser.parse_args(arguments)


def launch(processes: int, arguments: list[str]) -> int:
    """Run the same command in several processes, by PyTorch's own launcher; its exit code."""
    from torch.distributed import run as torchrun  # only here: it costs every start 0.2 s
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // processes)))
    for name in ("MMAP", "TRIM"):  # glibc keeps freed memory for the next step, up to a gigabyte
        os.environ.setdefault(f"MALLOC_{name}_THRESHOLD_", str(2**30))
    logging.getLogger("torch.distributed").setLevel(logging.CRITICAL)  # the first process tells
    launcher = ["--standalone", f"--nproc-per-node={processes}", "-m", "minisd"]
    try:
        torchrun.main([*launcher, *arguments])
    except ChildFailedError:  # which has told why
        return 1
    except SignalException as signal:
        raise KeyboardInterrupt from signal
    return 0


def run_train(o: argparse.Namespace) -> None:
    device = pick_device(o.device)
    world = data.WORLDS[o.scenes]
    judge = Judge.load(device=device)  # before the long work, in case it is not there
    with parallel.processes(device):
        pipe = train_all(o.out, o.seed, device, o.resume, world=world)
        if parallel.rank() > 0:
            return

    generator = torch.Generator().manual_seed(o.seed)
    real = world.draw_batch(32, "train", generator)
    plots.save(plots.gallery(real.images, real.captions), o.out / "examples.png")
    seen = world.seen_combinations()
    chosen = seen[torch.randperm(len(seen), generator=generator)[:32].sort().values]
    captions = [world.say(c) for c in chosen.tolist()]
    drawn = pipe(captions, generator=generator).images
    plots.save(plots.gallery(drawn, captions), o.out / "gallery.png")
    print(f"wrote {o.out}: a checkpoint, examples.png (what it saw), gallery.png (what it draws)")
    print(f'draw with it: python -m minisd sample "{captions[0]}" --weights {o.out}')
    settings = Settings(seed=o.seed, trained=o.seed)
    report(pipe, judge, settings, o.out / "evaluation.json", world)


def run_sample(o: argparse.Namespace) -> None:
    plots.check_name(o.out)
    pipe = StableDiffusion.from_pretrained(o.weights, pick_device(o.device))
    images = pipe(
        o.prompts,
        num_inference_steps=o.steps,
        guidance_scale=o.guidance,
        guidance_rescale=o.rescale,
        negative_prompt=o.negative,
        eta=o.eta,
        generator=torch.Generator().manual_seed(o.seed),
        sampler=o.sampler,
        progress=True,
    ).images
    plots.save(plots.gallery(images, o.prompts), o.out)
    print(f"wrote {o.out}")


def run_evaluate(o: argparse.Namespace) -> None:
    device = pick_device(o.device)
    if o.json:
        o.json.parent.mkdir(parents=True, exist_ok=True)  # now, not after the long work
    pipe = StableDiffusion.from_pretrained(o.weights, device)
    world, training = data.WORLDS[o.scenes], o.weights / "training.json"
    run = read_json(training) if training.exists() else {}
    if run.get("world", world.name) != world.name:
        raise ValueError(f"{o.weights} learnt from pictures of {run['world']}; change --scenes")
    settings = Settings(
        o.samples,
        o.steps,
        o.guidance,
        o.rescale,
        o.sampler,
        o.seed,
        trained=run.get("seed", 0),
        lessons=o.lessons,
    )
    report(pipe, Judge.load(device=device), settings, o.json, world)


def report(
    pipe: StableDiffusion, judge: Judge, settings: Settings, file: Path | None, world: data.World
) -> None:
    began = time.monotonic()
    results = evaluate(pipe, judge, settings, world)
    seconds = {"machine": describe(pipe.device), "seconds": round(time.monotonic() - began, 1)}
    print(format_table(results))
    if file:
        file.write_text(json.dumps({**seconds, **results}, indent=2) + "\n")


def tell(line: str) -> None:
    """One line for the user; of several processes, the first one tells."""
    if os.environ.get("RANK", "0") == "0":
        print(f"minisd: {line}", file=sys.stderr)


def main(arguments: list[str] | None = None) -> int:
    arguments = sys.argv[1:] if arguments is None else arguments
    options = parse(arguments)
    warnings.showwarning = lambda message, *_: tell(f"note: {message}")
    run = {"train": run_train, "sample": run_sample, "evaluate": run_evaluate}[options.command]
    try:
        if getattr(options, "processes", 1) > 1 and "LOCAL_RANK" not in os.environ:
            return launch(options.processes, arguments)
        run(options)
    except (ValueError, OSError) as error:
        tell(f"error: {error}")
        return 1
    except KeyboardInterrupt:
        tell("stopped; a training run goes on with --resume")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
