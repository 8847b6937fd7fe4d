"""Noise: all that is random in sampling comes from here."""

from collections.abc import Sequence

import torch
from torch import Tensor

Generators = torch.Generator | Sequence[torch.Generator] | None


def draw_noise(shape, generator: Generators = None, device="cpu", dtype=None) -> Tensor:
    """Normal noise of this shape (B, ...) on the device, whatever device the generator is on.

    B generators draw one picture each, so that each picture has the noise that it has alone.
    """
    if isinstance(generator, Sequence):
        rows = [draw_noise((1, *shape[1:]), one, device, dtype) for one in generator]
        return torch.cat(rows)
    source = generator.device if generator else device
    return torch.randn(shape, generator=generator, device=source, dtype=dtype).to(device)
