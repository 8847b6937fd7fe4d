"""CLIP guidance: a CLIP that can read what the U-Net guesses in the middle of the noise.

CLIP moves each guess of x0 towards the caption (`clip_guided` in diffusion/guidance.py). But it
was trained on finished pictures, and the first guesses are blurs of all that is still possible.
There its gradient paints what pleases CLIP and shows nothing. So its image tower is trained on such
guesses; the text tower stays, and with it the space in which the two are compared.

Source: Nichol et al. 2022, "GLIDE", section 2.4, whose "noised CLIP" reads x_t itself.
"""

import copy
from pathlib import Path

import torch
from torch import Tensor, nn

from ..checkpoint import fingerprint, load_extension, save_extension
from ..data import fits
from ..diffusion import predictions
from ..models import CLIP
from ..pipeline import StableDiffusion
from ..training import Recipe, Run, clip_loss, generator_for, random_timesteps
from ..training.stages import Stage, train_stage
from . import Wrapper, replace_parts

RECIPE = Recipe(steps=400, batch_size=64, learning_rate=1e-3)
LAYERS = 2  # of the image tower, from below: what the later ones do is the same for any picture
SCALE = 15.0
OPTIONS = {
    "--clip-guidance": {
        "type": float,
        "default": 0.0,
        "metavar": "S",
        "help": "how far CLIP moves each step towards the prompt (0; 1 is Bayes' rule)",
    }
}


@torch.no_grad()
def guess(pipe: StableDiffusion, images: Tensor, generator: torch.Generator) -> Tensor:
    """Noise pictures to random timesteps, and let the U-Net, without a caption, guess them again.

    images (B, 3, H, W) in [-1, 1] -> guesses, under the noise with which `clip_score` shows them.
    """
    x0 = pipe.encode(images / 2 + 0.5).float()  # (B, 4, H/f, W/f)
    t = random_timesteps(pipe.schedule, len(x0), generator)
    eps = torch.randn(x0.shape, generator=generator, device=x0.device)
    x_t = pipe.schedule.add_noise(x0, eps, t)
    empty = pipe.encode_prompt("").expand(len(x0), -1, -1)
    output, kind = pipe.unet(x_t, t, empty).float(), pipe.schedule.config.prediction_type
    x0, _ = predictions(kind, output, x_t, pipe.schedule.a(t, x_t))
    x0 = x0 + torch.randn(x0.shape, generator=generator, device=x0.device)
    return pipe.pixels(x0)


def lower(clip: CLIP) -> nn.ModuleList:
    """What is trained: the image tower's embeddings and first layers."""
    tower = clip.vision_model
    return nn.ModuleList([tower.embeddings, tower.pre_layrnorm, *tower.encoder.layers[:LAYERS]])


class ClipGuided(Wrapper):
    """A pipeline with a guide, a CLIP that reads guesses; it draws with clip_guidance_scale."""

    def __init__(self, pipe: StableDiffusion, guide: CLIP):
        super().__init__(replace_parts(pipe, guide=guide))

    def __call__(self, *arguments, clip_guidance_scale: float = SCALE, **options):
        return self.pipe(*arguments, clip_guidance_scale=clip_guidance_scale, **options)

    def save_pretrained(self, folder: str | Path, dtype: torch.dtype | None = None) -> None:
        save_extension(folder, lower(self.guide), {}, stands_on(self.pipe), dtype)


def stands_on(pipe: StableDiffusion) -> str:
    """The fingerprint of what guessed the pictures, and of the CLIP whose rest stays."""
    return fingerprint(pipe.unet, pipe.autoencoder, pipe.clip)


def extend(run: Run, pipe: StableDiffusion) -> ClipGuided:
    """Train the lower half of the image tower on guesses, as CLIP was trained on pictures.

    But without hard negatives, which differ in what a blur does not show.
    """
    clip = copy.deepcopy(pipe.guiding_clip()).requires_grad_(False)
    lower(clip).requires_grad_(True)
    size = run.recipes["clip_guidance"].batch_size

    def loss_of_step(step: int) -> Tensor:
        drawn = generator_for("pictures to guess", step, run.seed)
        batch = run.dataset.batch(size, "train", drawn, run.device)
        generator = generator_for("guesses", step, run.seed, run.device)
        ids = pipe.tokenizer(batch.captions).to(run.device)
        true = fits(batch.attributes, batch.attributes, batch.mentioned)
        return clip_loss(clip, guess(pipe, batch.images, generator), ids, true)

    shared = [clip.vision_model, clip.text_model, pipe.unet, pipe.autoencoder.decoder]
    return ClipGuided(pipe, train_stage(run, Stage("clip_guidance", clip, loss_of_step, shared)))


def load(folder: str | Path, pipe: StableDiffusion) -> ClipGuided:
    """The pipeline with that CLIP, from the folder."""
    clip = copy.deepcopy(pipe.guiding_clip())
    build = lambda _: lower(clip)  # noqa: E731
    load_extension(folder, "clip-guidance", build, stands_on(pipe))  # loads them where they lie
    return ClipGuided(pipe, clip.to(pipe.device, pipe.dtype))


def use(pipe: StableDiffusion, options, call: dict) -> StableDiffusion:
    """With --clip-guidance, draw with the CLIP that reads guesses."""
    if not options.clip_guidance:
        return pipe
    call["clip_guidance_scale"] = options.clip_guidance
    return load(options.extensions / "clip-guidance", pipe)
