"""The three stages in order. Each is a model, the batch of a step, its loss, and the loop."""

import math
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from .. import data
from ..checkpoint import write_json
from ..data import POOL_BATCH, World
from ..diffusion import NoiseSchedule
from ..machine import describe, mixed_precision
from ..models import (
    CLIP,
    Autoencoder,
    CLIPConfig,
    TextConfig,
    TextEncoder,
    UNet,
    UNetConfig,
    VisionConfig,
)
from ..pipeline import SamplingDefaults, StableDiffusion
from ..tokenizer import Tokenizer
from . import parallel
from .loop import Recipe, generator_for, progress, repeat_bits, train
from .losses import autoencoder_loss, clip_loss, denoising_loss

RECIPES = {
    "autoencoder": Recipe(steps=500, batch_size=32, learning_rate=3e-3),
    "clip": Recipe(steps=950, batch_size=128, learning_rate=2e-3, weight_decay=0.1),
    "unet": Recipe(steps=1350, batch_size=64, learning_rate=5e-3),
}

SAMPLING = SamplingDefaults(6, 3.0, 0.9)  # steps, guidance, rescale; see benchmarks/README.md
CONTEXT_LENGTH = 16  # tokens; the longest of our captions has 13, marks included
CAPTION_DROPOUT = 0.1  # how often the U-Net is shown the empty prompt instead


def train_tokenizer(world: World = data.ONE) -> Tokenizer:
    """Byte-pair encoding of every word that a caption can have."""
    every = world.all_combinations()
    batch = every.repeat(-(-6400 // len(every)), 1)
    captions, _ = world.write_captions(batch, torch.Generator().manual_seed(0))
    return Tokenizer.train(captions, max_length=CONTEXT_LENGTH)


def train_autoencoder(
    directory: Path, seed: int, device, recipe: Recipe, world: World = data.ONE
) -> Autoencoder:
    """Stage 1: compress pictures 12 times; then measure the scale of the latents."""
    torch.manual_seed(seed)
    model = Autoencoder().to(device)

    def loss_of_step(step: int) -> Tensor:
        generator = generator_for("pictures to compress", step, seed)
        batch = world.draw_batch(recipe.batch_size, "train", generator, device)
        noise = generator_for("noise in latents", step, seed, device)
        return autoencoder_loss(model, batch.images, noise)

    model = train(
        model,
        loss_of_step,
        recipe,
        directory / "autoencoder.ckpt",
        seed,
        f"1/3 autoencoder, {world.name}",
        shared=(model.encoder, model.decoder),
    )
    model.config = replace(model.config, scaling_factor=measure_scale(model, seed, device, world))
    return model


@torch.no_grad()
def measure_scale(model: Autoencoder, seed: int, device, world: World = data.ONE) -> float:
    """1 / standard deviation of 2,048 pictures' latents. Rombach et al. 2022, appendix G."""
    generator = generator_for("pictures to measure", 0, seed)
    batch = world.draw_batch(2048, "train", generator, device)
    return 1.0 / model.encode(batch.images).mean.std().item()


def hard_negatives(size: int, generator: torch.Generator, world: World = data.ONE) -> Tensor:
    """Combinations (size, A), about three quarters of them in groups that are hard to tell apart.

    The digit, and of two digits their arrangement, is what CLIP learns last: where nothing else
    tells the pictures of a group apart, it has to look at it. The rest of the batch is random and
    teaches everything else.
    """
    seen = world.seen_combinations()
    drawn = seen[torch.randint(len(seen), (size,), generator=generator)]
    groups = world.near(drawn)  # (size, k, A)
    count = size * 15 // (16 * groups.shape[1])  # so many, as a fifth of each will be held out
    hard = groups[:count][~world.is_held_out(groups[:count])]
    return torch.cat([hard, drawn[len(hard) :]])


def train_clip(
    directory: Path,
    seed: int,
    device,
    recipe: Recipe,
    tokenizer: Tokenizer,
    world: World = data.ONE,
) -> CLIP:
    """Stage 2: text and pictures into one space."""
    torch.manual_seed(seed + 1)
    text = TextConfig(len(tokenizer), tokenizer.end_id, tokenizer.max_length)
    model = CLIP(CLIPConfig(text, VisionConfig())).to(device)

    def loss_of_step(step: int) -> Tensor:
        generator = generator_for("pictures to name", step, seed)
        attributes = hard_negatives(recipe.batch_size, generator, world)
        batch = world.draw_batch(recipe.batch_size, "train", generator, device, attributes)
        ids = tokenizer(batch.captions).to(device)
        same = batch.attributes[:, None] == batch.attributes[None]  # (pictures, captions, A)
        fits = (same | ~batch.mentioned[None]).all(dim=-1)
        return clip_loss(model, batch.images, ids, fits)

    towers = (model.vision_model, model.text_model)
    label = f"2/3 CLIP, {world.name}"
    return train(model, loss_of_step, recipe, directory / "clip.ckpt", seed, label, shared=towers)


@torch.no_grad()
def encode_pool(
    autoencoder: Autoencoder,
    tokenizer: Tokenizer,
    text_encoder: TextEncoder,
    seed: int,
    device,
    world: World = data.ONE,
) -> tuple[Tensor, Tensor]:
    """The world's pool of N captioned pictures: latents (N, 4, H, W) and contexts (N, L, D).

    They are encoded once and noised again and again. The latents are the encoder's means: its own
    noise made the decoder robust, and would only blur what the U-Net is to learn.
    """
    latents, contexts = [], []
    pool = world.draw_pool(seed=seed, device=device)
    batches = math.ceil(world.pool_size / POOL_BATCH)
    for batch in progress(pool, "3/3 encoding", batches, unit="batch"):
        ids = tokenizer(batch.captions).to(device)
        with mixed_precision(device), parallel.shared(autoencoder.encoder, text_encoder):
            mean = autoencoder.encode(batch.images).mean
            contexts.append(text_encoder(ids))
        latents.append(mean * autoencoder.config.scaling_factor)
    return torch.cat(latents), torch.cat(contexts)


def train_unet(
    directory: Path,
    seed: int,
    device,
    recipe: Recipe,
    tokenizer: Tokenizer,
    text_encoder: TextEncoder,
    autoencoder: Autoencoder,
    schedule: NoiseSchedule,
    world: World = data.ONE,
    watch=None,
) -> UNet:
    """Stage 3: predict v in noised latents, given the caption. `watch` as in `train`."""
    torch.manual_seed(seed + 2)
    model = UNet(UNetConfig()).to(device)
    latents, contexts = encode_pool(autoencoder, tokenizer, text_encoder, seed, device, world)
    with torch.no_grad():
        empty = text_encoder(tokenizer([""]).to(device))  # (1, L, D)

    def loss_of_step(step: int) -> Tensor:
        generator = generator_for("latents to noise", step, seed, device)
        size = (recipe.batch_size,)
        chosen = torch.randint(len(latents), size, generator=generator, device=device)
        dropped = torch.rand(size, generator=generator, device=device) < CAPTION_DROPOUT
        context = torch.where(dropped[:, None, None], empty, contexts[chosen])  # (B, L, D)
        return denoising_loss(model, schedule, latents[chosen], context, generator)

    label, checkpoint = f"3/3 U-Net, {world.name}", directory / "unet.ckpt"
    return train(model, loss_of_step, recipe, checkpoint, seed, label, [model], watch)


def cost(checkpoint: Path, recipe: Recipe) -> dict:
    """What one stage took: pictures, and seconds in the training loop, stops left out."""
    seconds = torch.load(checkpoint, map_location="cpu", weights_only=True)["seconds"]
    return {"pictures": recipe.steps * recipe.batch_size, "seconds": round(seconds, 1)}


def train_all(
    directory: Path,
    seed: int = 0,
    device="cpu",
    resume: bool = False,
    recipes=None,
    world: World = data.ONE,
) -> StableDiffusion:
    """All three stages from nothing, or from where a killed run stopped; saves the pipeline.

    recipes: {stage: Recipe}, else RECIPES with as many times the steps as the world asks for.

    Raises ValueError if `directory` holds a run already and `resume` is not asked for, or the other
    way round; and if the processes cannot share the batches.
    """
    working = directory / "training"
    if recipes is None:
        recipes = {k: replace(r, steps=world.effort * r.steps) for k, r in RECIPES.items()}
    for size in (*(recipe.batch_size for recipe in recipes.values()), POOL_BATCH):
        if size % parallel.count():
            raise ValueError(
                f"{parallel.count()} processes cannot share batches of {size}; take 1, 2, 4 or 8"
            )
    if not resume and directory.exists() and any(directory.iterdir()):
        raise ValueError(f"{directory} is not empty; go on with --resume, or choose another --out")
    if resume and not working.exists():
        raise ValueError(f"{directory} holds no run to resume; leave out --resume to start one")
    parallel.wait()  # until every process has looked
    working.mkdir(parents=True, exist_ok=True)
    repeat_bits()

    tokenizer = train_tokenizer(world)
    schedule = NoiseSchedule()
    autoencoder = train_autoencoder(working, seed, device, recipes["autoencoder"], world)
    clip = train_clip(working, seed, device, recipes["clip"], tokenizer, world)
    unet = train_unet(
        working,
        seed,
        device,
        recipes["unet"],
        tokenizer,
        clip.text_model,
        autoencoder,
        schedule,
        world,
    )
    parts = (tokenizer, clip.text_model, unet, autoencoder, schedule, clip)
    pipe = StableDiffusion(*parts, defaults=SAMPLING, data={"name": world.name})
    if parallel.rank() == 0:
        pipe.save_pretrained(directory, dtype=torch.float16)
        stages = {name: cost(working / f"{name}.ckpt", recipes[name]) for name in recipes}
        run = {"machine": describe(device), "processes": parallel.count(), "stages": stages}
        write_json(directory / "training.json", {"seed": seed, "world": world.name, **run})
    parallel.wait()
    return StableDiffusion.from_pretrained(directory, device)
