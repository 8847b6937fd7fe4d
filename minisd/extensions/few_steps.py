"""Few steps: consistency distillation. A picture in one, two or four calls of the U-Net.

A sampler follows a path from noise to a picture, step by step. The student is taught to name the
end of the path from anywhere on it. It is never shown an end: from x_t the teacher takes one step
to x_s, and what the student says at x_t has to be what it says at x_s, which is nearer to the end.
At the end itself there is nothing to guess, and from there the truth spreads back to pure noise.

Sources: Song et al. 2023, "Consistency models", algorithm 2; Luo et al. 2023, "Latent consistency
models", for guidance in the teacher's step and for its length.
"""

import copy
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from ..call import SamplingDefaults
from ..diffusion import SAMPLERS, Denoiser, NoiseSchedule, classifier_free, ddim_step, predictions
from ..models import UNet
from ..pipeline import StableDiffusion
from ..training import Recipe, Run, generator_for
from ..training.pool import encode_pool
from ..training.stages import Stage, train_stage
from . import unwrapped

RECIPE = Recipe(steps=600, batch_size=64, learning_rate=1e-3)
KNOWN = 50  # timesteps that the student learns: those that the sampler "lcm" visits
LENGTH = 6  # of the teacher's step, in known timesteps
GUIDANCE = 1.15  # of the teacher
SAMPLING = SamplingDefaults(2, 1.0, 0.0)  # the teacher's guidance is in the student


def consistency_loss(
    student: UNet,
    teacher: Denoiser,
    schedule: NoiseSchedule,
    x0: Tensor,
    context: Tensor,
    generator: torch.Generator,
) -> Tensor:
    """The squared difference between the student's guesses of x0 at both ends of a step.

    x0 (B, 4, H, W) latents of unit variance, context (B, L, D). teacher(x_t, t) predicts for that
    context, with guidance. Song et al. 2023, equation 7, with the student itself as the target.
    """
    kind = schedule.config.prediction_type
    times = torch.tensor([t for t, _ in SAMPLERS["lcm"].pairs(schedule, KNOWN)], device=x0.device)
    i = torch.randint(KNOWN, (len(x0),), generator=generator, device=x0.device)
    t, clean = times[i], i + LENGTH >= KNOWN
    s = times[(i + LENGTH).clamp(max=KNOWN - 1)]
    a_t, a_s = schedule.a(t, x0), schedule.a(s, x0)
    a_s = torch.where(clean.reshape(a_s.shape), 1.0, a_s)

    eps = torch.randn(x0.shape, generator=generator, device=x0.device)
    x_t = schedule.add_noise(x0, eps, t)
    with torch.no_grad():
        x_s = ddim_step(*predictions(kind, teacher(x_t, t).float(), x_t, a_t), a_t, a_s)
        target, _ = predictions(kind, student(x_s, s, context).float(), x_s, a_s)  # x_s if clean
    guess, _ = predictions(kind, student(x_t, t, context).float(), x_t, a_t)
    return F.mse_loss(guess, target)


def extend(run: Run, pipe: StableDiffusion) -> StableDiffusion:
    """Teach a copy of the pipeline's U-Net; returns the pipeline with the student in its place."""
    pool = encode_pool(run, pipe.autoencoder, pipe.tokenizer, pipe.text_encoder)
    student, teacher = copy.deepcopy(pipe.unet), pipe.unet
    size = run.recipes["few_steps"].batch_size

    def guided(context: Tensor) -> Denoiser:
        def answer(x: Tensor, t: Tensor, contexts: Tensor) -> Tensor:
            return teacher(x, t.repeat(len(x) // len(t)), contexts)  # guidance asks twice at once

        return classifier_free(answer, context, pool.empty.expand_as(context), GUIDANCE)

    def loss_of_step(step: int) -> Tensor:
        generator = generator_for("few steps", step, run.seed, run.device)
        x0, context, _ = pool.draw(size, generator)
        return consistency_loss(student, guided(context), pipe.schedule, x0, context, generator)

    stage = Stage("few_steps", student, loss_of_step, [student, teacher])
    return replace(pipe, unet=train_stage(run, stage), sampler="lcm", defaults=SAMPLING)


def load(folder: str | Path, pipe: StableDiffusion) -> StableDiffusion:
    """The student's checkpoint."""
    return StableDiffusion.from_pretrained(folder, unwrapped(pipe).device)
