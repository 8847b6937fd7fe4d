"""A call, watched step by step: the noisy latents, the guess of x0, and where each word looks."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from .models import cross_attention_maps
from .pipeline import StableDiffusion


@dataclass(frozen=True)
class Frame:
    """What there is to see after one step."""

    t: float
    noisy: Tensor  # (B, 3, H, W) in [-1, 1]: the latents, decoded
    guess: Tensor  # (B, 3, H, W) in [-1, 1]: the guess of x0, decoded
    maps: Tensor  # (B, L, h, w): how much each place looks at each token, the mean of all heads


@contextmanager
def watch(pipe: StableDiffusion) -> Iterator[tuple[list[Frame], dict]]:
    """`with watch(pipe) as (frames, options): pipe(prompts, **options)` fills `frames`."""
    frames: list[Frame] = []
    with cross_attention_maps(pipe.unet) as calls:

        def keep(_, step: int, t: float, tensors: dict[str, Tensor]) -> dict:
            latents, guess = tensors["latents"], tensors["pred_original_sample"]
            noisy, clean = (2 * pipe.decode(x) - 1 for x in (latents, guess))
            frames.append(Frame(t, noisy, clean, look(calls, *latents.shape[2:], len(latents))))
            calls.clear()
            return {}

        names = ("latents", "pred_original_sample")
        yield (
            frames,
            {
                "callback_on_step_end": keep,
                "callback_on_step_end_tensor_inputs": names,
            },
        )


def look(calls: dict[str, list[Tensor]], height: int, width: int, count: int) -> Tensor:
    """The mean of the maps at full resolution, for the `count` prompts: (B, L, H, W)."""
    full = [maps[-1] for maps in calls.values() if maps[-1].shape[2] == height * width]
    mean = torch.stack(full).mean(dim=(0, 2))  # (B, H * W, L), with guidance more than B
    prompts = mean[count : 2 * count] if len(mean) > count else mean  # empty prompts come first
    return prompts.transpose(1, 2).unflatten(2, (height, width))  # (B, L, H, W)
