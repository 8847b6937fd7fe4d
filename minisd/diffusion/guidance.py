"""Guidance: wrappers that turn one denoiser into another."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .sampler import Denoiser
from .schedule import NoiseSchedule, predictions


def classifier_free(
    model: Callable[[Tensor, Tensor, Tensor], Tensor],
    context: Tensor,
    negative_context: Tensor,
    scale: float,
    rescale: float = 0.0,
    combined: Sequence[tuple[Tensor, float]] = (),
) -> Denoiser:
    """Follow the prompt more closely: empty + scale * (prompt - empty), all in one call.

    model(x, t, context) -> prediction; context and negative_context (B, L, D): the prompts, and the
    empty or negative prompts. Scale 1 is the prompt alone, scale 0 the empty prompt alone. Source:
    Ho and Salimans 2022, "Classifier-free diffusion guidance", equation 6 (whose w is scale - 1).

    combined: contexts of further prompts, and their weights w: empty + scale * sum of
    w (prompt - empty), where the first prompt's w is 1. A negative w is NOT. Source: Liu et al.
    2022, "Compositional visual generation with composable diffusion models", section 3.

    Guided predictions are too large, which makes colours pale; `rescale` from 0 to 1 brings their
    standard deviation back towards the prompt's own. Source: Lin et al. 2024, equations 14 to 16.
    """
    if scale == 0 or (scale == 1 and not combined):
        alone = context if scale else negative_context
        return lambda x, t: model(x, t, alone)
    contexts, weights = zip((context, 1.0), *combined)
    every = torch.cat([negative_context, *contexts])  # ((1 + prompts) B, L, D)

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        count = 1 + len(contexts)
        empty, *prompts = model(torch.cat([x] * count), t, every).chunk(count)
        direction = sum(w * (prompt - empty) for w, prompt in zip(weights, prompts))
        guided = empty + scale * direction
        if rescale:
            deviation = picture_std(guided).clamp(min=1e-12)
            guided = guided * (1 - rescale + rescale * picture_std(prompts[0]) / deviation)
        return guided

    return denoise


def picture_std(x: Tensor) -> Tensor:
    """The standard deviation within each picture: (B, ...) -> (B, 1, ...)."""
    return x.std(dim=tuple(range(1, x.dim())), keepdim=True)


def clip_guided(
    denoise: Denoiser,
    schedule: NoiseSchedule,
    score: Callable[[Tensor], Tensor],
    scale: float,
    most: float = 2.0,
) -> Denoiser:
    """Move each guess of x0 to where it scores higher.

    score: guesses of x0 (B, C, H, W) -> (B,), differentiable. By Bayes' rule eps becomes eps -
    sqrt(1 - a) * scale * gradient of the score to x_t, if that is the logarithm of a likelihood and
    scale is 1. The gradient goes through the denoiser: what x_t does to the guess is what the guess
    leaves open. For x0 that is a push of (1 - a) / sqrt(a) * scale * gradient. Near pure noise this
    magnifies every error of the denoiser's slope, so no push is larger than `most`, root mean
    square; in pure noise (a = 0) x_t says nothing, and there is none. Sources: Dhariwal and Nichol
    2021, "Diffusion models beat GANs on image synthesis", algorithm 2; Nichol et al. 2022, "GLIDE",
    section 2.4, for CLIP as the score.
    """
    kind = schedule.config.prediction_type

    def guided(x_t: Tensor, t: Tensor) -> Tensor:
        a = schedule.alphas_cumprod.to(x_t.device)[t.long()]
        if a == 0:
            return denoise(x_t, t)
        with torch.enable_grad():
            x_t = x_t.detach().requires_grad_()
            output = denoise(x_t, t)
            x0, _ = predictions(kind, output, x_t, a)
            (gradient,) = torch.autograd.grad(score(x0).sum(), x_t)
        push = (1 - a) / a.sqrt() * scale * gradient  # (B, C, H, W)
        size = push.square().mean(dim=(1, 2, 3), keepdim=True).sqrt()
        push = push / (size / most).clamp(min=1)
        return output.detach() - push * (a.sqrt() if kind == "epsilon" else 1) / (1 - a).sqrt()

    return guided
