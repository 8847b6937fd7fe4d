"""The command line: python -m minisd train | sample | evaluate. Arguments only, no logic."""

import argparse
import json
import sys
import time
import warnings
from pathlib import Path

import torch

from . import StableDiffusion, data, plots
from .evaluation import Judge, Settings, evaluate, format_table
from .machine import describe, pick_device
from .pipeline import WEIGHTS
from .training import parallel, train_all

SCENES = "how many digits a picture has (%(default)s)"
LESSONS = "draw N more pictures and train a fresh reader on them alone (%(default)s: do not)"


def seed(text: str) -> int:
    """A seed that every generator takes."""
    if not 0 <= int(text) < 2**32:
        raise argparse.ArgumentTypeError(f"{text} is not from 0 to {2**32 - 1}")
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
    sample.add_argument("prompts", nargs="+", metavar="PROMPT", help="what to draw")
    sample.add_argument("--out", type=Path, default=Path("sample.png"), help="(%(default)s)")
    sample.add_argument("--negative", metavar="PROMPT", help="what to stay away from")
    sample.add_argument("--eta", type=float, default=0.0, help="DDIM's noise, 0 to 1 (%(default)s)")
    measure.add_argument("--samples", type=int, default=2000, help="pictures (%(default)s)")
    measure.add_argument("--lessons", type=int, default=0, metavar="N", help=LESSONS)
    measure.add_argument("--json", type=Path, metavar="FILE", help="write the numbers here too")
    for command in (sample, measure):
        command.add_argument("--weights", type=Path, default=WEIGHTS, help="(data/weights)")
        command.add_argument(
            "--steps", type=int, default=Settings.steps, help="sampling steps (%(default)s)"
        )
        command.add_argument(
            "--guidance", type=float, default=Settings.guidance, help="scale (%(default)s)"
        )
        command.add_argument("--sampler", help="ddim, ddpm, dpm++ or unipc (the checkpoint's own)")
    for command in (train, measure):
        command.add_argument("--scenes", choices=data.WORLDS, default="one", help=SCENES)
    for command in (train, sample, measure):
        command.add_argument("--seed", type=seed, default=0, help="decides every bit (%(default)s)")
        command.add_argument("--device", default="auto", help="auto, cpu, cuda, mps (%(default)s)")
    return parser.parse_args(arguments)


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
    print(f'draw with it: python -m minisd sample "a red seven" --weights {o.out}')
    report(pipe, judge, Settings(seed=o.seed), o.out / "evaluation.json", world)


def run_sample(o: argparse.Namespace) -> None:
    plots.check_name(o.out)
    pipe = StableDiffusion.from_pretrained(o.weights, pick_device(o.device))
    images = pipe(
        o.prompts,
        num_inference_steps=o.steps,
        guidance_scale=o.guidance,
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
    settings = Settings(o.samples, o.steps, o.guidance, o.sampler, o.seed, lessons=o.lessons)
    report(pipe, Judge.load(device=device), settings, o.json, data.WORLDS[o.scenes])


def report(
    pipe: StableDiffusion, judge: Judge, settings: Settings, file: Path | None, world: data.World
) -> None:
    began = time.monotonic()
    results = evaluate(pipe, judge, settings, world)
    seconds = {"machine": describe(pipe.device), "seconds": round(time.monotonic() - began, 1)}
    print(format_table(results))
    if file:
        file.write_text(json.dumps({**seconds, **results}, indent=2) + "\n")


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    warnings.showwarning = lambda message, *_: print(f"minisd: note: {message}", file=sys.stderr)
    run = {"train": run_train, "sample": run_sample, "evaluate": run_evaluate}[options.command]
    try:
        run(options)
    except (ValueError, OSError) as error:
        print(f"minisd: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nminisd: stopped; a training run goes on with --resume", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
