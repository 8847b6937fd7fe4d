"""How long a run will take on this machine, measured with a few steps of each stage."""

import time
from dataclasses import replace

import torch

from ..diffusion import NoiseSchedule
from ..tokenizer import Tokenizer
from .loop import train
from .run import Run
from .stages import autoencoder_stage, clip_stage, unet_stage

TIMED = 3  # steps


def estimate(run: Run, tokenizer: Tokenizer) -> float:
    """Seconds that the three training loops will take. The U-Net learns from noise meanwhile."""
    autoencoder, clip = autoencoder_stage(run), clip_stage(run, tokenizer)
    unet, text = run.unet_config, clip.model.config.text
    latents = torch.randn(16, unet.in_channels, unet.sample_size, unet.sample_size).to(run.device)
    contexts = torch.randn(16, text.max_length, text.hidden_size).to(run.device)
    denoiser = unet_stage(run, latents, contexts, contexts[:1], NoiseSchedule())
    total = 0.0
    for stage in (autoencoder, clip, denoiser):
        for steps in (1, TIMED):  # the first step also sets up what later steps reuse
            began = time.monotonic()
            recipe = replace(run.recipes[stage.name], steps=steps)
            train(stage.model, stage.loss_of_step, recipe, label=None, shared=stage.shared)
        total += (time.monotonic() - began) / TIMED * run.recipes[stage.name].steps
    return total
