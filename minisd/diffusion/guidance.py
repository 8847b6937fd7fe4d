"""Guidance: wrappers that turn one denoiser into another."""

from collections.abc import Callable

import torch
from torch import Tensor

from .samplers import Denoiser


def classifier_free(
    model: Callable[[Tensor, Tensor, Tensor], Tensor],
    context: Tensor,
    empty_context: Tensor,
    scale: float,
) -> Denoiser:
    """Follow the prompt more closely: empty + scale * (prompt - empty), both halves in one call.

    model(x, t, context) -> prediction; context and empty_context (B, L, D): the prompts and the
    empty or negative prompts. Scale 1 is the bare model. Source: Ho and Salimans 2022,
    "Classifier-free diffusion guidance", equation 6 (whose w is scale - 1).
    """
    if scale == 1:
        return lambda x, t: model(x, t, context)
    both = torch.cat([empty_context, context])  # (2B, L, D)

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        empty, prompt = model(torch.cat([x, x]), t, both).chunk(2)
        return empty + scale * (prompt - empty)

    return denoise
