"""All measurements of a checkpoint: draws the pictures, then runs what applies to them."""

import warnings
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor
from tqdm import tqdm

from ..data import Batch, Dataset, OneDigit, World, cycle
from ..errors import InputError, check_number
from ..pipeline import StableDiffusion
from . import features
from .autoencoder import evaluate_autoencoder
from .classification import evaluate_classifier
from .incomplete import evaluate_incomplete
from .judge import Judge
from .metrics import accuracy

BATCH = 100  # pictures drawn at a time
MOST = 100_000  # pictures that may be asked for: they are held in memory
MIN_SYNTHETIC = 1000  # the fewest pictures that a classifier is trained on
PLAIN = 10_000  # pictures for a classifier trained without tricks: none left out or distorted


@dataclass(frozen=True)
class Settings:
    """What is drawn and measured. None stands for the checkpoint's own value."""

    samples: int = 2000  # half of them for captions like those of training, half for new ones
    steps: int = 10
    sampler: str | None = "ddim"  # the same for every checkpoint, so that tables compare
    guidance: float | None = None
    rescale: float | None = None
    seed: int = 0
    training_seed: int = 0  # of the run that trained the checkpoint: decides the training pictures
    synthetic: int = 0  # pictures drawn to train a classifier on; 0 leaves it out

    def resolved(self, pipe: StableDiffusion) -> "Settings":
        """With the checkpoint's numbers in place of None."""
        own = pipe.defaults
        guidance = own.guidance_scale if self.guidance is None else self.guidance
        rescale = own.guidance_rescale if self.rescale is None else self.rescale
        sampler = self.sampler or pipe.sampler
        return replace(self, guidance=guidance, rescale=rescale, sampler=sampler)


@torch.no_grad()
def draw(
    pipe: StableDiffusion, captions: list[str], seed: int, settings: Settings, label: str
) -> Tensor:
    """Pictures (B, 3, S, S) in [-1, 1] for the captions."""
    generator = torch.Generator().manual_seed(seed)
    pictures = []
    for i in tqdm(range(0, len(captions), BATCH), desc=label, unit="batch", delay=0.1):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # new captions may have unknown words
            out = pipe(
                captions[i : i + BATCH],
                num_inference_steps=settings.steps,
                guidance_scale=settings.guidance,
                guidance_rescale=settings.rescale,
                sampler=settings.sampler,
                generator=generator,
                output_type="pt",
            )
        pictures.append(out.images.cpu() * 2 - 1)
    return torch.cat(pictures)


def draw_groups(
    pipe: StableDiffusion, batches: dict[str, Batch], settings: Settings
) -> dict[str, Tensor]:
    """Pictures (B, 3, S, S) for the captions of each group."""
    return {
        name: draw(pipe, batch.captions, settings.seed + i, settings, f"drawing {name}")
        for i, (name, batch) in enumerate(batches.items())
    }


def draw_synthetic(pipe: StableDiffusion, world: World, settings: Settings):
    """Pictures to train a classifier on, (n, 3, S, S), and the attributes asked for, (n, A)."""
    wanted = cycle(world.all_combinations(), settings.synthetic, settings.seed)
    generator = torch.Generator().manual_seed(settings.seed)
    captions, _ = world.write_captions(wanted, generator, 1.0)
    settings = replace(settings, guidance=1.0)  # for the most varied pictures
    return draw(pipe, captions, settings.seed + 200, settings, "drawing to train on"), wanted


def check_samples(count: int) -> None:
    """InputError for too few, or too many: one seen and one held out is the least."""
    check_number("samples", count, 2, MOST, whole=True)


def check(settings: Settings, dataset: Dataset) -> None:
    """InputError for what cannot be measured."""
    check_samples(settings.samples)
    synthetic = settings.synthetic
    if synthetic:
        name = "the number of pictures to train a classifier on"
        check_number(name, synthetic, MIN_SYNTHETIC, MOST, whole=True)
    if synthetic and not isinstance(dataset, OneDigit):
        raise InputError("the classifier reads pictures of one digit only")


def evaluate(
    pipe: StableDiffusion, judge: Judge | None, dataset: Dataset, settings: Settings | None = None
) -> dict:
    """All measurements of one checkpoint, as plain numbers that JSON can hold.

    What needs attributes is measured in a World only, what needs CLIP only if the pipeline has one.
    Frechet distance and copies compare the judge's features in a World; elsewhere CLIP's, and the
    judge may be None. Raises InputError for what `check` refuses.
    """
    settings = (settings or Settings()).resolved(pipe)
    check(settings, dataset)
    world = dataset if isinstance(dataset, World) else None
    groups = dataset.test_groups(settings.samples, settings.seed)
    batches = {name: batch for name, (batch, _) in groups.items()}
    kinds = {"drawn": draw_groups(pipe, batches, settings)}
    if world and settings.guidance != 1:
        kinds["unguided"] = draw_groups(pipe, batches, replace(settings, guidance=1.0))
    sets = {kind: torch.cat(list(drawn.values())) for kind, drawn in kinds.items()}
    pictures = sets["drawn"]
    real, again = (torch.cat([pair[i].images for pair in groups.values()]) for i in (0, 1))
    generator = torch.Generator().manual_seed(settings.seed + 100)
    count = settings.samples if world else len(batches["held_out"].captions)
    test = dataset.batch(count, "test", generator)
    results: dict = {"data": dataset.about}
    results["settings"] = vars(settings) | {"samples": len(pictures)}  # a small dataset has fewer
    for name, batch in batches.items() if world else ():
        images = {kind: drawn[name] for kind, drawn in kinds.items()} | {"real": batch.images}
        results[name] = {
            kind: accuracy(world.read(judge, x), batch.attributes, world)
            for kind, x in images.items()
        }
    if world and world.incomplete:
        default = replace(settings, steps=None, sampler=None)  # as a call without arguments draws
        draw_some = partial(draw, pipe, settings=default, label="drawing incomplete captions")
        each = max(1, settings.samples // len(world.incomplete))
        seed = settings.seed + 300
        results["incomplete"] = evaluate_incomplete(world, judge, draw_some, each, seed)
    clip = partial(features.encode_images, pipe) if pipe.clip else None
    if embed := judge.features if world else clip:
        frechet = features.evaluate_frechet(embed, real, **sets, floor=again)
        results["frechet"] = {**frechet, "features": "judge" if world else "CLIP"}
        # A world's real pictures are new renders; elsewhere the seen ones are training pictures.
        unseen = real if world else batches["held_out"].images
        pool = dataset.pool(settings.training_seed, pipe.device)
        copies = features.evaluate_copies(embed, pictures, unseen, pool, dataset.pool_size)
        results["copies"] = copies
    if pipe.clip:
        captions = [caption for batch in batches.values() for caption in batch.captions]
        score = features.evaluate_clip_score(pipe, captions, drawn=pictures, real=real)
        results["clip_score"] = score
        results["retrieval"] = {
            name: features.evaluate_retrieval(pipe, batch, kinds["drawn"][name])
            for name, batch in batches.items()
        }
    if settings.synthetic:
        images, wanted = draw_synthetic(pipe, world, settings)
        ways = {
            "classification_accuracy": (len(images), True),
            "plain_classification": (PLAIN, False),
        }
        for name, (n, tricks) in ways.items():
            learnt_from = images[:n], wanted[:n]
            score = evaluate_classifier(pipe, world, *learnt_from, test, settings.seed, tricks)
            results[name] = score
    results["autoencoder"] = evaluate_autoencoder(pipe, judge, dataset, test)
    if world and pipe.clip:
        named = features.zero_shot(pipe, test.images, world)
        results["zero_shot"] = accuracy(named, test.attributes, world)
    return results
