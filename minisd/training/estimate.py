"""How long a run will take on this machine, measured with a few steps of each stage."""

import time
from dataclasses import replace

import torch

from ..diffusion import NoiseSchedule
from ..models import CLIP, Autoencoder, UNet
from ..tokenizer import Tokenizer
from .loop import train
from .losses import autoencoder_loss, clip_loss, denoising_loss
from .run import Run

TIMED = 3  # steps


def estimate(run: Run, tokenizer: Tokenizer) -> float:
    """Seconds that the three training loops will take. The networks learn from noise meanwhile."""
    vae, unet = Autoencoder(run.autoencoder_config), UNet(run.unet_config)
    clip, schedule = CLIP(run.clip_config(tokenizer)), NoiseSchedule()
    for model in (vae, clip, unet):
        model.to(run.device)
    sizes = {stage: recipe.batch_size for stage, recipe in run.recipes.items()}
    side, text = run.dataset.image_size, clip.config.text
    generator = torch.Generator(run.device).manual_seed(0)

    def noise(*shape: int) -> torch.Tensor:
        return torch.rand(shape, generator=generator, device=run.device)

    images = {stage: noise(size, 3, side, side) for stage, size in sizes.items()}
    ids = tokenizer([""] * sizes["clip"]).to(run.device)
    pairs = torch.eye(sizes["clip"], dtype=torch.bool, device=run.device)
    c, s = unet.config.in_channels, unet.config.sample_size
    x0 = noise(sizes["unet"], c, s, s)
    context = noise(sizes["unet"], text.max_length, text.hidden_size)
    stages = {
        "autoencoder": (
            vae,
            lambda step: autoencoder_loss(vae, images["autoencoder"], generator),
            [vae.encoder, vae.decoder],
        ),
        "clip": (
            clip,
            lambda step: clip_loss(clip, images["clip"], ids, pairs),
            [clip.vision_model, clip.text_model],
        ),
        "unet": (unet, lambda step: denoising_loss(unet, schedule, x0, context, generator), [unet]),
    }
    total = 0.0
    for stage, (model, loss_of_step, shared) in stages.items():
        for steps in (1, TIMED):  # the first step also sets up what later steps reuse
            began = time.monotonic()
            recipe = replace(run.recipes[stage], steps=steps)
            train(model, loss_of_step, recipe, label=None, shared=shared)
        total += (time.monotonic() - began) / TIMED * run.recipes[stage].steps
    return total
