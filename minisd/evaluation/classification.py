"""Classification accuracy score: can a classifier learn from drawn pictures alone?

Source: Ravuri and Vinyals 2019, "Classification accuracy score for conditional generative models".
"""

import torch
from torch import Tensor

from ..data import Batch, World
from ..errors import InputError
from ..pipeline import StableDiffusion
from .augmentation import distort
from .features import zero_shot
from .metrics import proportion
from .reader import train_reader

BATCH_SIZE = 128
EPOCHS = 24  # passes over the synthetic pictures, each time with other distortions


def evaluate_classifier(
    pipe: StableDiffusion,
    world: World,
    synthetic: Tensor,
    attributes: Tensor,
    test: Batch,
    seed: int,
    tricks: bool = True,
) -> dict:
    """Train a reader on drawn pictures (n, 3, 32, 32): how many real digits it then reads right.

    attributes (n, 4): what was asked for. With tricks, pictures in which the pipeline's own CLIP
    sees something else are left out, as in Ramesh et al. 2021, "Zero-shot text-to-image
    generation", section 2.6, and each is distorted anew each time. Raises InputError if CLIP leaves
    less than a batch.
    """
    asked = len(synthetic)
    if pipe.clip and tricks:
        agrees = (zero_shot(pipe, synthetic, world) == attributes).all(dim=1)
        synthetic, attributes = synthetic[agrees], attributes[agrees]
    if len(synthetic) < BATCH_SIZE:
        seen = f"CLIP sees what was asked for in only {len(synthetic)} of {asked} drawn pictures"
        raise InputError(f"{seen}; a classifier needs more")
    generator = torch.Generator().manual_seed(seed)

    def batch_of_step() -> tuple[Tensor, Tensor]:
        chosen = torch.randint(len(synthetic), (BATCH_SIZE,), generator=generator)
        images = synthetic[chosen].to(pipe.device)
        images = distort(images, generator) if tricks else images
        return images, attributes[chosen].to(pipe.device)

    steps = EPOCHS * len(synthetic) // BATCH_SIZE
    classifier = train_reader(batch_of_step, seed, steps, pipe.device)
    right = classifier(test.images)[:, 0].cpu() == test.attributes[:, 0].cpu()
    return {"pictures": len(synthetic), **proportion(right)}
