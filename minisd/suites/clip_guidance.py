"""CLIP guidance: what pleases CLIP, and what shows the caption.

Alone: the U-Net gets the empty prompt, and only CLIP knows the caption. On top: the U-Net knows it
as well. CLIP as it was trained on pictures, or trained further on guesses; the gradient as far as
the guess of x0 only, or through the U-Net. Beside the judge stands the similarity that CLIP as
trained on pictures finds, which rises even where nothing of the caption is drawn.
"""

import torch
from torch import Tensor
from tqdm import tqdm

from ..data import ONE
from ..diffusion import clip_guided, sample
from ..evaluation import Judge, Table, accuracy, clip_score, percent
from ..extensions.clip_guidance import SCALE, load
from ..pipeline import StableDiffusion
from . import Asked

SAMPLES, STEPS, BATCH = 400, 25, 100
NO_CLIP, TO_X0, THROUGH = "no CLIP", "to the guess", "through the U-Net"


def draw(pipe, captions: list[str], knows: float, gradient: str, scale: float, generator) -> Tensor:
    """Pictures (B, 3, S, S) in [-1, 1]; knows: guidance scale, 0 if the U-Net has no caption."""
    contexts = (pipe.encode_prompt(words) for words in (captions, [""] * len(captions)))
    denoise = pipe.denoiser(*contexts, knows, 0.0)
    if gradient == TO_X0:
        denoise = torch.no_grad()(denoise)
    if gradient != NO_CLIP:
        denoise = clip_guided(denoise, pipe.schedule, pipe.clip_score(captions), scale)
    noise = pipe.draw_latents(len(captions), generator=generator)
    options = {"sampler": pipe.sampler, "generator": generator}
    return 2 * pipe.decode(sample(denoise, pipe.schedule, noise, STEPS, **options)) - 1


@torch.no_grad()
def measure(pipe: StableDiffusion, judge: Judge, asked: Asked) -> dict:
    """{way: {scale: its rates and CLIP's similarity}}"""
    further, own = load(asked.extensions / "clip-guidance", pipe).pipe, pipe.defaults.guidance_scale
    ways = {
        ("alone", NO_CLIP, ""): (pipe, 0.0, [0.0]),
        ("alone", "CLIP of pictures", TO_X0): (pipe, 0.0, [SCALE]),
        ("alone", "CLIP of pictures", THROUGH): (pipe, 0.0, [SCALE]),
        ("alone", "CLIP of guesses", TO_X0): (further, 0.0, [SCALE]),
        ("alone", "CLIP of guesses", THROUGH): (further, 0.0, [1.0, SCALE]),
        ("on top", NO_CLIP, ""): (pipe, own, [0.0]),
        ("on top", "CLIP of guesses", THROUGH): (further, own, [1.0, SCALE]),
    }
    generator = torch.Generator().manual_seed(asked.seed + 1000)  # not that of the noise
    batch = ONE.batch(asked.samples, "test", generator, complete=1.0)
    texts = pipe.clip.encode_text(pipe.tokenizer(batch.captions).to(pipe.device))
    results: dict = {}
    for (where, clip, gradient), (using, knows, scales) in ways.items():
        for scale in scales:
            noise, parts = torch.Generator().manual_seed(asked.seed), []
            label = f"{where}, {clip} {gradient}"
            for i in tqdm(range(0, asked.samples, BATCH), desc=label, unit="batch"):
                captions = batch.captions[i : i + BATCH]
                kind = gradient or NO_CLIP
                parts.append(draw(using, captions, knows, kind, scale, noise))
            images = torch.cat(parts)
            rates = accuracy(judge(images), batch.attributes, ONE)
            similarity = clip_score(pipe.clip.encode_image(images), texts)
            row = {"scale": scale, "rates": rates, "similarity": similarity}
            results.setdefault(label.strip(), []).append(row)
    return results


def tables(results: dict) -> dict[str, Table]:
    rows = [
        [way, f"{row['scale']:g}", f"{row['similarity']:.1f}", *map(percent, row["rates"].values())]
        for way, found in results.items()
        for row in found
    ]
    names = list(next(iter(results.values()))[0]["rates"])
    head = ["who knows the caption", "scale", "CLIP's similarity", *(f"{n}, %" for n in names)]
    return {"CLIP guidance": [head, *rows]}
