"""What the command line does: train, extend, sample, evaluate."""

import shlex
import time
from argparse import Namespace
from dataclasses import fields
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

import torch

from . import data, extensions, plots
from .checkpoint import read_json, write_json
from .errors import InputError, check_number, located
from .evaluation import Judge, Settings, evaluate, format_results
from .files import check_writable
from .machine import describe, pick_device
from .pictures import open_picture
from .pipeline import StableDiffusion
from .text import utf8
from .training import NETWORKS, Run, override, parallel, recipes_for, train_all, train_tokenizer
from .training.stages import begin, check, check_folder, estimate, save

EXTENSIONS = [file.name.replace("_", "-") for file in iter_modules(extensions.__path__)]
GALLERY = 32  # pictures
MAX_SEED = 2**32 - 1


def train(o: Namespace) -> None:
    """Train all three networks, then draw a gallery and measure."""
    device = pick_device(o.device)
    dataset = data.load_dataset(o.data, o.size)
    recipes = override(recipes_for(dataset, o.effort), o.recipe)
    networks = override(NETWORKS, o.network)
    run = Run(o.out, dataset, o.seed, device, recipes, networks)
    judge = judge_for(dataset, device)  # before the long work, in case it is missing
    with parallel.processes(device):
        check(run, o.resume)
        minutes = estimate(run, train_tokenizer(run)) / 60
        if parallel.rank() == 0:
            print(*dataset.describe(), sep="\n")
            print(f"training will take about {minutes:.1f} minutes on this machine")
        pipe = train_all(run, o.resume)
        if parallel.rank() > 0:
            return

    draw_galleries(pipe, run)
    settings = Settings(seed=o.seed, training_seed=o.seed)
    report(pipe, judge, dataset, settings, o.out / "evaluation.json")


def extend(o: Namespace) -> None:
    """Train an extension on top of a checkpoint: another checkpoint, with a gallery."""
    device = pick_device(o.device)
    pipe = StableDiffusion.from_pretrained(o.weights, device)
    dataset = dataset_of(pipe, o)
    name = o.name.replace("-", "_")
    extension = import_module(f"{extensions.__name__}.{name}")
    recipes = override(recipes_for(dataset, o.effort, {name: extension.RECIPE}), o.recipe)
    run = Run(o.out, dataset, o.seed, device, recipes)
    with parallel.processes(device):
        check_folder(run, o.resume)
        begin(run)
        pipe = save(run, extension.extend(run, pipe))
        if parallel.rank() > 0:
            return

    draw_galleries(pipe, run)


def draw_galleries(pipe: StableDiffusion, run: Run) -> None:
    """Draw what a new checkpoint saw and what it can do, and say what there is."""
    generator = torch.Generator().manual_seed(run.seed)
    real = run.dataset.batch(GALLERY, "train", generator)
    plots.save(plots.gallery(real.images, real.captions), run.folder / "examples.png")
    captions = run.dataset.gallery(GALLERY, generator)
    drawn = pipe(captions, generator=generator).images
    plots.save(plots.gallery(drawn, captions), run.folder / "gallery.png")
    files = "a checkpoint, examples.png (what it saw), gallery.png (what it draws)"
    print(f"wrote {run.folder}: {files}")
    command = ["python", "-m", "minisd", "sample", captions[0], "--weights", str(run.folder)]
    print(f"draw with it: {shlex.join(command)}")


def sample(o: Namespace) -> None:
    """Draw pictures from captions into one file."""
    plots.check_name(o.out)
    image, mask = (file and open_picture(file) for file in (o.image, o.mask))
    pipe = StableDiffusion.from_pretrained(o.weights, pick_device(o.device))
    prompts = [utf8(prompt) for prompt in o.prompts]
    images = pipe(
        prompts,
        num_inference_steps=o.steps,
        guidance_scale=o.guidance,
        guidance_rescale=o.rescale,
        negative_prompt=o.negative,
        eta=o.eta,
        generator=torch.Generator().manual_seed(o.seed),
        sampler=o.sampler,
        progress=True,
        image=image,
        mask_image=mask,
        strength=o.strength,
    ).images
    plots.save(plots.gallery(images, prompts), o.out)
    print(f"wrote {o.out}")


def measure(o: Namespace) -> None:
    """Measure a checkpoint on the data that it was trained on, or on what --data names."""
    if o.json:
        check_writable(o.json)  # before the long work
    device = pick_device(o.device)
    pipe = StableDiffusion.from_pretrained(o.weights, device)
    dataset = dataset_of(pipe, o)
    training = o.weights / "training.json"
    training_seed = read_json(training).get("seed", 0) if training.exists() else 0
    with located(training):
        check_number("the seed", training_seed, 0, MAX_SEED, whole=True)
    asked = {f.name: getattr(o, f.name) for f in fields(Settings) if hasattr(o, f.name)}
    settings = Settings(**asked, training_seed=training_seed)
    report(pipe, judge_for(dataset, device), dataset, settings, o.json)


def dataset_of(pipe: StableDiffusion, o: Namespace) -> data.Dataset:
    """The checkpoint's dataset. InputError if it is unknown or --data names another one."""
    about = pipe.data or {}
    name, size = o.data or about.get("name"), o.size or about.get("image_size")
    if not isinstance(name, str) or size not in (None, *data.SIZES):
        raise InputError(f"{o.weights} does not say what it was trained on; name it with --data")
    dataset = data.load_dataset(name, size)
    now = dataset.identity
    changed = [
        f"{key} {about.get(key)}, not {now[key]}" for key in now if now[key] != about.get(key)
    ]
    if about and changed:
        raise InputError(f"{o.weights} was trained on other data: {'; '.join(changed)}")
    return dataset


def judge_for(dataset: data.Dataset, device: torch.device) -> Judge | None:
    """The judge, which reads digits; None for other pictures."""
    return Judge.load(device=device) if isinstance(dataset, data.World) else None


def report(pipe, judge, dataset: data.Dataset, settings: Settings, file: Path | None) -> None:
    """Measure, write the numbers, print the table; each even if the other is impossible."""
    began = time.monotonic()
    results = evaluate(pipe, judge, dataset, settings)
    seconds = {"machine": describe(pipe.device), "seconds": round(time.monotonic() - began, 1)}
    try:
        if file:
            write_json(file, {**seconds, **results})
    finally:
        print(format_results(results))
