"""The three stages. Each is a model and the loss of a step; the loop trains them in order."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from ..call import SamplingDefaults
from ..checkpoint import check_configs, write_json
from ..data import POOL_BATCH, fits
from ..errors import InputError
from ..files import check_writable
from ..machine import describe
from ..models import CLIP, Autoencoder, TextEncoder, UNet
from ..pipeline import StableDiffusion
from ..tokenizer import Tokenizer
from . import parallel
from .loop import generator_for, repeat_bits, train
from .losses import autoencoder_loss, clip_loss, denoising_loss
from .pool import REFERENCES, Pool, encode_pool
from .run import NETWORKS, Run

MODEL_GUIDANCE = 1 / 3  # as classifier-free guidance of scale 1 / (1 - 1/3) = 1.5
MODEL_GUIDANCE_FROM = 0.3, 0.6  # shares of the steps between which it rises
SAMPLER, SAMPLING = "ddpm", SamplingDefaults(20, 1.0, 0.0)  # chosen in benchmarks/README.md
TIMED = 3  # steps of each stage, to estimate how long a run will take

# The names of the streams of random numbers are hashed into seeds, so another name trains other
# weights. Change them only together with the weights in data/.
IMAGES, POSTERIOR_NOISE = "pictures to compress", "noise in latents"
SCALE_IMAGES, PAIRS, LATENT_NOISE = "pictures to measure", "pictures to name", "latents to noise"


@dataclass(frozen=True)
class Stage:
    """One of the three stages: a model and its loss."""

    name: str
    model: nn.Module
    loss_of_step: Callable[[int], Tensor]
    shared: Sequence[nn.Module]  # the modules whose work several processes share


def train_tokenizer(run: Run) -> Tokenizer:
    """Byte-pair encoding of the dataset's captions."""
    data = run.dataset
    return Tokenizer.train(data.texts(), data.context_length, data.num_merges)


def autoencoder_stage(run: Run) -> Stage:
    """Stage 1: compress pictures into latents."""
    torch.manual_seed(run.seed)
    model = Autoencoder(run.autoencoder_config).to(run.device)
    size = run.recipes["autoencoder"].batch_size

    def loss_of_step(step: int) -> Tensor:
        generator = generator_for(IMAGES, step, run.seed)
        batch = run.dataset.batch(size, "train", generator, run.device)
        noise = generator_for(POSTERIOR_NOISE, step, run.seed, run.device)
        return autoencoder_loss(model, batch.images, noise)

    return Stage("autoencoder", model, loss_of_step, [model.encoder, model.decoder])


def clip_stage(run: Run, tokenizer: Tokenizer) -> Stage:
    """Stage 2: embed captions and pictures in one space."""
    torch.manual_seed(run.seed + 1)
    model = CLIP(run.clip_config(tokenizer)).to(run.device)
    size = run.recipes["clip"].batch_size

    def loss_of_step(step: int) -> Tensor:
        generator = generator_for(PAIRS, step, run.seed)
        batch = run.dataset.contrastive_batch(size, generator, run.device)
        ids = tokenizer(batch.captions).to(run.device)
        true = fits(batch.attributes, batch.attributes, batch.mentioned)
        return clip_loss(model, batch.images, ids, true)

    return Stage("clip", model, loss_of_step, [model.vision_model, model.text_model])


def unet_stage(run: Run, pool: Pool, name: str = "unet", network: type[UNet] = UNet) -> Stage:
    """Stage 3: predict v in noised latents, given their captions. Extensions name their own."""
    torch.manual_seed(run.seed + 2)
    model, recipe = network(run.unet_config).to(run.device), run.recipes[name]

    def loss_of_step(step: int) -> Tensor:
        generator = generator_for(LATENT_NOISE, step, run.seed, run.device)
        x0, context, references = pool.draw(recipe.batch_size, generator)
        guidance = model_guidance(step / recipe.steps)
        more = {"references": references, "empty": pool.empty, "guidance": guidance}
        return denoising_loss(model, run.schedule, x0, context, generator, **more)

    return Stage(name, model, loss_of_step, [model])


def model_guidance(share: float) -> float:
    """The guidance in the U-Net's loss after that share of its steps.

    None at first: what the model adds for a caption is worth little before it has learnt to listen.
    """
    begin, end = MODEL_GUIDANCE_FROM
    return MODEL_GUIDANCE * min(max((share - begin) / (end - begin), 0.0), 1.0)


def train_stage(run: Run, stage: Stage, after_step=None) -> nn.Module:
    """Train a stage's model, or resume where a killed run stopped. `after_step` as in `train`."""
    name, stages = stage.name, list(run.recipes)
    options = {
        "label": f"{stages.index(name) + 1}/{len(stages)} {name}",
        "checkpoint": run.working / f"{name}.ckpt",
        "identity": {
            "seed": run.seed,
            "stage": name,
            "data": run.dataset.identity,
            "schedule": repr(run.schedule.config),
        },
        "shared": stage.shared,
        "after_step": after_step,
    }
    return train(stage.model, stage.loss_of_step, run.recipes[name], **options)


def train_autoencoder(run: Run) -> Autoencoder:
    """Train the autoencoder, then measure its scale: 1 / standard deviation of the latents.

    The latents are those of 2,048 pictures. Rombach et al. 2022, appendix G.
    """
    model = train_stage(run, autoencoder_stage(run))
    generator = generator_for(SCALE_IMAGES, 0, run.seed)
    images = run.dataset.batch(2048, "train", generator, run.device).images
    with torch.no_grad():
        deviation = model.encode(images).mean.std().item()
    model.config = replace(model.config, scaling_factor=1.0 / deviation)
    return model


def train_clip(run: Run, tokenizer: Tokenizer) -> CLIP:
    return train_stage(run, clip_stage(run, tokenizer))


def train_unet(
    run: Run,
    tokenizer: Tokenizer,
    text_encoder: TextEncoder,
    autoencoder: Autoencoder,
    after_step: Callable[[int, nn.Module], None] | None = None,
) -> UNet:
    """Encode the pool, then train the U-Net on it. `after_step` as in `train`."""
    pool = encode_pool(run, autoencoder, tokenizer, text_encoder)
    return train_stage(run, unet_stage(run, pool), after_step)


def check(run: Run, resume: bool) -> None:
    """InputError for what would fail later: folder, batches, networks that do not fit together."""
    check_folder(run, resume)
    try:
        check_networks(run)
    except Exception as error:
        if run.networks == NETWORKS:  # then it is a bug, not the user's configuration
            raise
        raise InputError(f"these networks do not fit together: {error}") from error


def check_folder(run: Run, resume: bool) -> None:
    """InputError unless the folder is one to write in, and the processes can share the batches.

    Without `resume` it must be new or empty, with it that of a run to resume: one that trains the
    same stages, or none yet.
    """
    sizes = {f"{name}.batch_size": recipe.batch_size for name, recipe in run.recipes.items()}
    for name, size in (sizes | {"the pool's batch": POOL_BATCH}).items():
        if size % parallel.count():
            raise InputError(f"{parallel.count()} processes cannot share {name} of {size}")
    files = set(run.folder.iterdir()) if run.folder.exists() else set()
    stages = {file.stem for file in run.working.glob("*.ckpt")}
    if others := sorted(stages - set(run.recipes)):
        what = ", ".join(others).replace("_", "-")
        raise InputError(f"{run.folder} holds another run, of {what}; choose another --out")
    begun = run.working in files and (stages or len(files) == 1)
    if resume and not begun:
        how = "start one without --resume, in a new --out"
        raise InputError(f"{run.folder} holds no run to resume; {how}")
    if files and not resume:
        how = "go on with --resume, or choose" if begun else "choose"
        raise InputError(f"{run.folder} is not empty; {how} another --out")
    check_writable(run.working / "any.ckpt")


@torch.no_grad()
def check_networks(run: Run) -> None:
    """Look whether a checkpoint can hold all networks; then build each and run it once."""
    check_configs(run.unet_config, run.autoencoder_config, run.clip_config())
    images = torch.zeros(2, 3, run.dataset.image_size, run.dataset.image_size)
    clip = CLIP(run.clip_config())
    ids = torch.zeros(2, clip.config.text.max_length, dtype=torch.long)
    clip(images, ids)
    _, posterior = Autoencoder(run.autoencoder_config)(images)
    UNet(run.unet_config)(posterior.mean, torch.zeros(()), clip.text_model(ids))


def estimate(run: Run, tokenizer: Tokenizer) -> float:
    """Seconds that the three training loops will take here; times the U-Net on a random pool."""
    autoencoder, clip = autoencoder_stage(run), clip_stage(run, tokenizer)
    unet, text = run.unet_config, clip.model.config.text
    n, size = min(REFERENCES, run.dataset.pool_size), unet.sample_size
    latents = torch.randn(n, unet.in_channels, size, size, device=run.device)
    empty = torch.randn(1, text.max_length, text.hidden_size, device=run.device)
    numbers = torch.arange(n, device=run.device)[:, None]
    pool = Pool(latents, empty.expand(n, -1, -1), empty, numbers, torch.ones_like(numbers).bool())
    denoiser = unet_stage(run, pool)
    total = 0.0
    for stage in (autoencoder, clip, denoiser):
        for steps in (1, TIMED):  # the first step also sets up what later steps reuse
            began = time.monotonic()
            recipe = replace(run.recipes[stage.name], steps=steps)
            train(stage.model, stage.loss_of_step, recipe, label=None, shared=stage.shared)
        total += (time.monotonic() - began) / TIMED * run.recipes[stage.name].steps
    return total


def begin(run: Run) -> None:
    """Make the folder, when every process has checked it."""
    parallel.wait()
    run.working.mkdir(parents=True, exist_ok=True)
    repeat_bits()


def train_all(run: Run, resume: bool = False) -> StableDiffusion:
    """Run all three stages, or resume where a killed run stopped.

    Saves the pipeline, and returns it as it is read again.
    """
    check(run, resume)
    begin(run)

    tokenizer = train_tokenizer(run)
    autoencoder = train_autoencoder(run)
    clip = train_clip(run, tokenizer)
    unet = train_unet(run, tokenizer, clip.text_model, autoencoder)
    own = {"sampler": SAMPLER, "defaults": SAMPLING, "data": run.dataset.about}
    pipe = StableDiffusion(tokenizer, clip.text_model, unet, autoencoder, run.schedule, clip, **own)
    save(run, pipe)
    return StableDiffusion.from_pretrained(run.folder, run.device)


def save(run: Run, trained) -> None:
    """Write a pipeline, or an extension of one, and how it was made."""
    if parallel.rank() == 0:
        trained.save_pretrained(run.folder, dtype=torch.float16)
        write_json(run.folder / "training.json", record(run))
    parallel.wait()


def record(run: Run) -> dict:
    """How the weights were made. Seconds are those spent in the training loops."""
    stages = {}
    for name, recipe in run.recipes.items():
        state = torch.load(run.working / f"{name}.ckpt", map_location="cpu", weights_only=True)
        pictures, seconds = recipe.steps * recipe.batch_size, round(state["seconds"], 2)
        stages[name] = {"pictures": pictures, "seconds": seconds}
    about = {"seed": run.seed, "data": run.dataset.about, "machine": describe(run.device)}
    return about | {"processes": parallel.count(), "stages": stages}
