"""The autoencoder: how close its reconstructions are, and whether they show the same."""

import torch

from ..data import Batch, Dataset, World
from ..errors import InputError
from ..pipeline import StableDiffusion
from .judge import Judge
from .metrics import accuracy, psnr


@torch.no_grad()
def evaluate_autoencoder(
    pipe: StableDiffusion, judge: Judge | None, dataset: Dataset, test: Batch
) -> dict:
    """PSNR; in a World also "kept": of the pictures read right, those still right after decoding.

    Raises InputError if the judge reads none of the real pictures right.
    """
    model = pipe.autoencoder
    chunks = (model.encode(x.to(pipe.device)).mean for x in test.images.split(250))
    decoded = torch.cat([model.decode(latents).cpu() for latents in chunks])
    results: dict = {"psnr": psnr(decoded, test.images)}
    if isinstance(dataset, World):
        truth = test.attributes.cpu()
        before = dataset.read(judge, test.images).cpu()
        readable = (before == dataset.canonical(truth)).all(dim=1)
        if not readable.any():
            count = len(truth)
            raise InputError(f"the judge reads none of {count} real pictures; take more samples")
        after = dataset.read(judge, decoded[readable])
        results["kept"] = accuracy(after, truth[readable], dataset)
    return results
