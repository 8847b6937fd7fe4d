"""Pipelines and datasets with known answers, so that what is tested is the evaluation itself."""

from types import SimpleNamespace

import torch

from minisd.data import ONE, Batch, Dataset, OneDigit, all_combinations
from tests.helpers import read_caption

WORLD = OneDigit(pool_size=1000)  # few training pictures to search for copies
SAMPLES = 400


class Stub:
    """A "pipeline" that draws real renders: what the caption says if it `listens`, else anything.

    Its "autoencoder" loses a little contrast or, if `blank`, everything.
    """

    device, clip, sampler = torch.device("cpu"), None, "ddpm"
    defaults = SimpleNamespace(num_inference_steps=4, guidance_scale=3.5, guidance_rescale=0.7)

    def __init__(self, listens=True, blank=False):
        self.listens, contrast = listens, 0.0 if blank else 0.9
        self.captions, self.calls = [], []
        self.autoencoder = SimpleNamespace(
            encode=lambda images: SimpleNamespace(mean=images),
            decode=lambda latents: contrast * (latents + 1) - 1,
        )

    def __call__(self, captions, generator, output_type, **options):
        self.captions += captions
        self.calls.append(options)
        said = torch.tensor([read_caption(c) for c in captions])  # -1 where it says nothing
        chance = all_combinations()[torch.randint(800, (len(said),), generator=generator)]
        wanted = torch.where((said >= 0) & self.listens, said, chance)
        images = ONE.batch(len(wanted), "test", generator, attributes=wanted).images
        return SimpleNamespace(images=(images + 1) / 2)


class Album(Dataset):
    """Pictures of noise, each with its own caption. Odd ones are training pictures."""

    name, image_size, pool_size = "album", 32, 100

    def __init__(self):
        generator = torch.Generator().manual_seed(0)
        self.images = 2 * torch.rand(200, 3, 32, 32, generator=generator) - 1
        self.captions = [f"a {WORLD.values[1][i % 8]} digit {i}" for i in range(200)]
        self.indices = {"train": torch.arange(1, 200, 2), "test": torch.arange(0, 200, 2)}

    def take(self, indices):
        captions = [self.captions[i] for i in indices.tolist()]
        numbers = indices[:, None]
        return Batch(self.images[indices], captions, numbers, torch.ones_like(numbers).bool())

    def texts(self):
        return self.captions

    def batch(self, size, split="train", generator=None, device="cpu"):
        indices = self.indices[split]
        return self.take(indices[torch.randint(len(indices), (size,), generator=generator)])

    def pool(self, seed=0, device="cpu"):
        yield self.take(self.indices["train"][:60])
        yield self.take(self.indices["train"][torch.arange(60, 120) % 100])  # filled up

    def test_groups(self, count, seed):
        n = min(count // 2, 30)
        train, test = self.indices["train"], self.indices["test"]
        return {
            "seen": (self.take(train[:n]), self.take(train[n : 2 * n])),
            "held_out": (self.take(test[:n]), self.take(train[2 * n : 3 * n])),
        }

    def gallery(self, count, generator):
        return self.captions[:count]

    def describe(self):
        return ["noise"]
