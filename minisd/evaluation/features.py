"""Pictures as points in a feature space: Frechet distance, copies, and what CLIP says of them.

In CLIP's space captions are points, too: its score, retrieval, zero-shot classification.
"""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from ..data import Batch, World, fits
from ..pipeline import StableDiffusion
from .metrics import clip_score, copy_ratio, frechet_distance, proportion, recalled

COPY = 1 / 3  # a picture whose copy_ratio is below this is a copy
RECALL_AT = (1, 10)
Features = Callable[[Tensor], Tensor]  # pictures (n, 3, S, S) -> (n, D)


def evaluate_frechet(features: Features, real: Tensor, **pictures: Tensor) -> dict[str, float]:
    """The distance of each kind of pictures (n, 3, S, S) from the real ones."""
    reference = features(real)  # (n, D)
    return {kind: frechet_distance(features(x), reference) for kind, x in pictures.items()}


def evaluate_copies(
    features: Features, drawn: Tensor, unseen: Tensor, pool: Iterable[Batch], m: int
) -> dict:
    """How many of the drawn, and of the unseen real pictures, are copies of training pictures?

    Training pictures are the first m of `pool`, whose last batch may repeat some to be full.
    """
    training = torch.cat([features(batch.images) for batch in pool])[:m]  # (m, D)
    kinds = {"drawn": drawn, "real": unseen}
    ratios = {kind: copy_ratio(features(images), training) for kind, images in kinds.items()}
    return {kind: proportion((ratio < COPY).cpu()) for kind, ratio in ratios.items()}


@torch.no_grad()
def encode_images(pipe: StableDiffusion, images: Tensor) -> Tensor:
    """CLIP's unit vectors of pictures (B, 3, S, S) in [-1, 1]: (B, P)."""
    return torch.cat([pipe.clip.encode_image(x.to(pipe.device)) for x in images.split(250)])


@torch.no_grad()
def encode_texts(pipe: StableDiffusion, captions: list[str]) -> Tensor:
    """CLIP's unit vectors of captions: (B, P)."""
    ids = pipe.tokenizer(captions).to(pipe.device)
    return torch.cat([pipe.clip.encode_text(x) for x in ids.split(250)])


def evaluate_clip_score(pipe: StableDiffusion, captions: list[str], **pictures: Tensor) -> dict:
    """CLIP score of each kind of pictures (n, 3, S, S), one picture for every caption."""
    texts = encode_texts(pipe, captions)
    return {kind: clip_score(encode_images(pipe, x), texts) for kind, x in pictures.items()}


def evaluate_retrieval(pipe: StableDiffusion, batch: Batch, drawn: Tensor) -> dict[str, dict]:
    """Recall@k: is a picture's caption among the k captions of the batch that CLIP ranks first?

    drawn (n, 3, S, S): a picture for each caption. Captions that are true of the same pictures,
    such as equal ones, count as one. Chance is the recall of a random ranking.
    """
    true = fits(batch.attributes, batch.attributes, batch.mentioned).cpu()
    distinct = true.int().argmax(dim=0) == torch.arange(len(true))  # true of no earlier picture
    texts, true = encode_texts(pipe, batch.captions)[distinct.to(pipe.device)], true[:, distinct]
    results: dict = {"chance": {f"recall@{k}": min(k / len(texts), 1.0) for k in RECALL_AT}}
    for kind, images in {"drawn": drawn, "real": batch.images}.items():
        similarity = (encode_images(pipe, images) @ texts.T).cpu()
        found = {k: recalled(similarity, true, k) for k in RECALL_AT}
        results[kind] = {f"recall@{k}": proportion(right) for k, right in found.items()}
    return results


def zero_shot(pipe: StableDiffusion, images: Tensor, world: World) -> Tensor:
    """The combinations (B, A) whose full captions are most similar to the pictures (B, 3, S, S)."""
    candidates = world.canonical(world.all_combinations()).unique(dim=0)
    texts = encode_texts(pipe, [world.say(c) for c in candidates.tolist()])
    return candidates[(encode_images(pipe, images) @ texts.T).argmax(dim=1).cpu()]
