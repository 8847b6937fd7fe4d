"""The pictures that the U-Net is trained on, encoded once and noised again and again."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..data import POOL_BATCH, fits
from ..machine import mixed_precision
from ..models import Autoencoder, TextEncoder
from ..tokenizer import Tokenizer
from . import parallel
from .loop import progress
from .run import Run

CAPTION_DROPOUT = 0.1  # share of captions replaced by the empty prompt, for guidance
REFERENCES = 4096  # latents of the pool that a batch is compared with


@dataclass(frozen=True)
class Pool:
    """N latents of unit variance, their captions encoded, and what they show."""

    latents: Tensor  # (N, 4, H, W)
    contexts: Tensor  # (N, L, D)
    empty: Tensor  # (1, L, D): the context of the empty prompt
    attributes: Tensor  # (N, A) long
    mentioned: Tensor  # (N, A) bool: which of them the captions name

    def draw(
        self, size: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor]]:
        """A batch: latents (B, 4, H, W), contexts (B, L, D), references.

        Some contexts are that of the empty prompt. References are R latents (R, 4, H, W), those of
        the batch among them, and which of them each caption fits (B, R) bool.
        """
        options = {"generator": generator, "device": self.latents.device}
        chosen = torch.randint(len(self.latents), (size,), **options)
        dropped = torch.rand((size,), **options) < CAPTION_DROPOUT
        contexts = torch.where(dropped[:, None, None], self.empty, self.contexts[chosen])
        more = torch.randint(len(self.latents), (min(REFERENCES, len(self.latents)),), **options)
        shown = torch.cat([chosen, more])
        named = self.mentioned[chosen] & ~dropped[:, None]  # (B, A)
        fit = fits(self.attributes[shown], self.attributes[chosen], named).T
        return self.latents[chosen], contexts, (self.latents[shown], fit)


@torch.no_grad()
def encode_pool(
    run: Run, autoencoder: Autoencoder, tokenizer: Tokenizer, text_encoder: TextEncoder
) -> Pool:
    """Encode the pictures of the dataset's pool.

    The latents are the posterior's means: its noise, which made the decoder robust, would only blur
    what the U-Net learns.
    """
    columns = []
    batches = math.ceil(run.dataset.pool_size / POOL_BATCH)
    pool = run.dataset.pool(run.seed, run.device)
    for batch in progress(pool, desc="encoding", total=batches, unit="batch"):
        ids = tokenizer(batch.captions).to(run.device)
        with mixed_precision(run.device), parallel.shared(autoencoder.encoder, text_encoder):
            mean, context = autoencoder.encode(batch.images).mean, text_encoder(ids)
        latents = mean * autoencoder.config.scaling_factor
        columns.append((latents, context, batch.attributes, batch.mentioned))
    latents, contexts, attributes, mentioned = map(torch.cat, zip(*columns, strict=True))
    empty = text_encoder(tokenizer([""]).to(run.device))  # (1, L, D)
    return Pool(latents, contexts, empty, attributes, mentioned)
