"""What the command line does: train, extend, sample, evaluate."""

import shlex
import time
from argparse import Namespace
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import fields
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

import torch

from . import data, extensions, plots, suites
from .checkpoint import read_json, write_json
from .errors import InputError, check_number, located, renamed
from .evaluation import Judge, Settings, check_samples, evaluate, format_results, to_text
from .files import check_writable
from .film import watch
from .machine import describe, pick_device
from .pictures import open_picture
from .pipeline import StableDiffusion
from .pretrained import WEIGHTS
from .text import utf8
from .training import (
    NETWORKS,
    Run,
    override,
    parallel,
    recipes_for,
    run_on,
    train_all,
    train_tokenizer,
)
from .training.stages import begin, check, check_folder, estimate, save


def modules(package) -> dict:
    """The files of a package: {name, with hyphens: module}."""
    names = [file.name for file in iter_modules(package.__path__)]
    return {n.replace("_", "-"): import_module(f"{package.__name__}.{n}") for n in names}


EXTENSIONS = modules(extensions)
SUITES = {"text": None, **modules(suites)}  # "text" is what `evaluate` measures in any case
GALLERY = 32  # pictures
WORDS = {  # of the pipeline's messages: what the command line says
    "give prompt or prompt_embeds": "there is no caption: say what to draw",
    "image or latents": "--image",
    "strength": "--strength",
    "mask_image": "--mask",
    "guidance_scale": "--guidance",
    "guidance_rescale": "--rescale",
    "clip_guidance_scale": "--clip-guidance",
}
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
    """Train an extension on top of a checkpoint, and draw what it can do."""
    device = pick_device(o.device)
    pipe = StableDiffusion.from_pretrained(o.weights, device)
    dataset = dataset_of(pipe, o)
    name, extension = o.name.replace("-", "_"), EXTENSIONS[o.name]
    recipes = override(recipes_for(dataset, o.effort, {name: extension.RECIPE}), o.recipe)
    folder = o.out or Path("runs/extensions") / o.name
    if folder.resolve() == o.weights.resolve():
        raise InputError("--out is --weights, which the extension stands on; choose another --out")
    run = run_on(pipe, folder, dataset, o.seed, recipes)
    with parallel.processes(device):
        check_folder(run, o.resume)
        begin(run)
        save(run, extension.extend(run, pipe))
        if parallel.rank() > 0:
            return

    extended = extension.load(run.folder, pipe)
    draw_galleries(extended, run, getattr(extension, "examples", draw_captions))


def draw_captions(pipe, dataset: data.Dataset, generator: torch.Generator) -> tuple[list, list]:
    """Pictures for captions of the dataset, and the captions."""
    captions = dataset.gallery(GALLERY, generator)
    return pipe(captions, generator=generator).images, captions


def draw_galleries(pipe, run: Run, examples: Callable = draw_captions) -> None:
    """Draw what a new checkpoint or extension saw and what it can do, and say what there is."""
    generator = torch.Generator().manual_seed(run.seed)
    real = run.dataset.batch(GALLERY, "train", generator)
    plots.save(plots.gallery(real.images, real.captions), run.folder / "examples.png")
    images, captions = examples(pipe, run.dataset, generator)
    plots.save(plots.gallery(images, captions), run.folder / "gallery.png")
    files = "examples.png (what it saw), gallery.png (what it draws)"
    print(f"wrote {run.folder}: weights, {files}")
    if (run.folder / "model_index.json").exists():
        command = ["python", "-m", "minisd", "sample", captions[0], "--weights", str(run.folder)]
        print(f"draw with it: {shlex.join(command)}")


def sample(o: Namespace) -> None:
    """Draw pictures from captions into one file."""
    plots.check_name(o.out)
    if o.animate:
        plots.check_film(o.animate)
    image, mask = (file and open_picture(file) for file in (o.image, o.mask))
    pipe = StableDiffusion.from_pretrained(o.weights, pick_device(o.device))
    o.prompts = [utf8(prompt) for prompt in o.prompts]
    call = {
        "prompt": o.prompts or None,
        "num_inference_steps": o.steps,
        "guidance_scale": o.guidance,
        "guidance_rescale": o.rescale,
        "negative_prompt": o.negative,
        "eta": o.eta,
        "generator": torch.Generator().manual_seed(o.seed),
        "sampler": o.sampler,
        "progress": True,
        "image": image,
        "mask_image": mask,
        "strength": o.strength,
        "combine": [(utf8(prompt), weight) for prompt, weight in o.combine],
    }
    for extension in EXTENSIONS.values():
        if hasattr(extension, "use"):
            pipe = extension.use(pipe, o, call)
    watched = watch(pipe) if o.animate else nullcontext(([], {}))
    with renamed(WORDS), watched as (frames, watching):
        images = pipe(**call, **watching).images
    if o.animate and not frames:
        raise InputError("there is no step for --animate to show; give a higher --strength")
    more = [f"{'and' if weight > 0 else 'not'} {prompt}" for prompt, weight in call["combine"]]
    titles = [", ".join([prompt, *more]) for prompt in o.prompts or [""] * len(images)]
    plots.save(plots.gallery(images, titles), o.out)
    print(f"wrote {o.out}")
    if o.animate:
        tokens = [words(pipe, prompt) for prompt in o.prompts or [""] * len(images)]
        film = (plots.frame(f.t, f.noisy, f.guess, f.maps[:, 1:], tokens) for f in frames)
        plots.save_film(film, o.animate)
        print(f"wrote {o.animate}")


def words(pipe: StableDiffusion, prompt: str) -> list[str]:
    """The tokens of a prompt that the U-Net reads, without start and end."""
    ids = pipe.tokenizer.encode(prompt)[: pipe.tokenizer.max_length - 2]
    return [pipe.tokenizer.decode([i]).strip() for i in ids]


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
    given = {f.name: getattr(o, f.name, None) for f in fields(Settings)}
    asked = {name: value for name, value in given.items() if value is not None}
    settings = Settings(**asked, training_seed=training_seed)
    judge = judge_for(dataset, device)
    if o.suite == "text":
        report(pipe, judge, dataset, settings, o.json)
    else:
        report_suite(pipe, judge, o)


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
    """What `evaluate` measures in any case."""
    publish(lambda: evaluate(pipe, judge, dataset, settings), format_results, file, {}, pipe)


def report_suite(pipe: StableDiffusion, judge: Judge | None, o: Namespace) -> None:
    """What one of the other suites measures."""
    suite = SUITES[o.suite]
    own = {"classifier": o.synthetic, "steps": o.steps, "sampler": o.sampler}
    own |= {"guidance": o.guidance, "rescale": o.rescale}
    for flag, value in own.items():
        if value is not None:
            raise InputError(f"--suite {o.suite} has its own settings: leave out --{flag}")
    if judge is None:
        raise InputError(f"the suite {o.suite} needs a judge, which reads digits only")
    samples = suite.SAMPLES if o.samples is None else o.samples
    check_samples(samples)
    asked = suites.Asked(samples, o.seed, o.extensions)
    about = {"suite": o.suite, "samples": samples, "seed": o.seed}
    about |= {} if o.weights == WEIGHTS else {"weights": str(o.weights)}

    def measured() -> dict:
        return {"results": suite.measure(pipe, judge, asked)}

    def show(found: dict) -> str:
        tables = suite.tables(found["results"]).items()
        return "".join(f"{heading}\n{to_text(table)}\n\n" for heading, table in tables)

    publish(measured, show, o.json, about, pipe)


def publish(measured: Callable, show: Callable, file: Path | None, about: dict, pipe) -> None:
    """Measure, write the numbers, print the table; each even if the other is impossible."""
    began = time.monotonic()
    with renamed(WORDS):
        results = measured()
    seconds = {"machine": describe(pipe.device), "seconds": round(time.monotonic() - began, 1)}
    try:
        if file:
            write_json(file, {**about, **seconds, **results})
    finally:
        print(show(results))
