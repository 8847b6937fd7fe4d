"""Guidance: wrappers that turn one denoiser into another."""

from collections.abc import Callable

import torch
from torch import Tensor

from .sampler import Denoiser


def classifier_free(
    model: Callable[[Tensor, Tensor, Tensor], Tensor],
    context: Tensor,
    negative_context: Tensor,
    scale: float,
    rescale: float = 0.0,
) -> Denoiser:
    """Follow the prompt more closely: empty + scale * (prompt - empty), both in one call.

    model(x, t, context) -> prediction; context and negative_context (B, L, D): the prompts, and the
    empty or negative prompts. Scale 1 is the model alone. Guided predictions are too large, which
    makes colours pale; `rescale` from 0 to 1 brings their standard deviation back towards the
    prompt's own. Sources: Ho and Salimans 2022, "Classifier-free diffusion guidance", equation 6
    (whose w is scale - 1); Lin et al. 2024, equations 14 to 16, for `rescale`.
    """
    if scale == 1:
        return lambda x, t: model(x, t, context)
    both = torch.cat([negative_context, context])  # (2B, L, D)

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        empty, prompt = model(torch.cat([x, x]), t, both).chunk(2)
        guided = empty + scale * (prompt - empty)
        if rescale:
            deviation = picture_std(guided).clamp(min=1e-12)
            guided = guided * (1 - rescale + rescale * picture_std(prompt) / deviation)
        return guided

    return denoise


def picture_std(x: Tensor) -> Tensor:
    """The standard deviation within each picture: (B, ...) -> (B, 1, ...)."""
    return x.std(dim=tuple(range(1, x.dim())), keepdim=True)
