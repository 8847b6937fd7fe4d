"""CLIP guidance: what pleases CLIP, and what shows the caption.

Alone: the U-Net gets the empty prompt, and only CLIP knows the caption. On top: the U-Net knows it
as well. CLIP as it was trained on pictures, or trained further on guesses; the gradient as far as
the guess of x0 only, or through the U-Net. Beside the judge stands the similarity that CLIP as
trained on pictures finds, which rises even where nothing of the caption is drawn.
"""

import torch
from torch import Tensor

from ..data import ONE
from ..diffusion import clip_guided, sample
from ..evaluation import Judge, Table, accuracy, clip_score, percent
from ..extensions.clip_guidance import SCALE, load
from ..pipeline import StableDiffusion
from . import Asked, batches

SAMPLES, STEPS = 100, 50
NONE, TO_X0, THROUGH = "", "to the guess", "through the U-Net"
STRAIGHT = 3.0  # the scale of the gradient to the guess, which no slope of the U-Net makes smaller
PICTURES, GUESSES = "CLIP of pictures", "CLIP of guesses"


def draw(pipe, captions: list[str], knows: float, gradient: str, scale: float, generator) -> Tensor:
    """Pictures (B, 3, S, S) in [-1, 1]; knows: guidance scale, 0 if the U-Net has no caption."""
    contexts = (pipe.encode_prompt(words) for words in (captions, [""] * len(captions)))
    denoise = pipe.denoiser(*contexts, knows, 0.0)
    if gradient == TO_X0:
        denoise = torch.no_grad()(denoise)
    if gradient:
        score = pipe.clip_score(captions, 1, generator)
        denoise = clip_guided(denoise, pipe.schedule, score, scale)
    noise = pipe.draw_latents(len(captions), generator=generator)
    options = {"sampler": pipe.sampler, "generator": generator}
    return 2 * pipe.decode(sample(denoise, pipe.schedule, noise, STEPS, **options)).cpu() - 1


@torch.no_grad()
def measure(pipe: StableDiffusion, judge: Judge, asked: Asked) -> list[dict]:
    """A row for each way: what it is, the judge's rates, CLIP's similarity."""
    further, own = load(asked.extensions / "clip-guidance", pipe).pipe, pipe.defaults.guidance_scale
    ways = [
        ("CLIP alone", "no CLIP", pipe, 0.0, NONE, 0.0),
        ("CLIP alone", PICTURES, pipe, 0.0, TO_X0, STRAIGHT),
        ("CLIP alone", PICTURES, pipe, 0.0, THROUGH, SCALE),
        ("CLIP alone", GUESSES, further, 0.0, TO_X0, STRAIGHT),
        ("CLIP alone", GUESSES, further, 0.0, THROUGH, 1.0),
        ("CLIP alone", GUESSES, further, 0.0, THROUGH, SCALE),
        ("the U-Net", "no CLIP", pipe, own, NONE, 0.0),
        ("the U-Net", GUESSES, further, own, THROUGH, 1.0),
        ("the U-Net", GUESSES, further, own, THROUGH, SCALE),
    ]
    batch = ONE.batch(
        asked.samples, "test", torch.Generator().manual_seed(asked.seed + 1000), complete=1.0
    )
    texts = pipe.clip.encode_text(pipe.tokenizer(batch.captions).to(pipe.device))
    rows = []
    for knows, clip, using, guidance, gradient, scale in ways:
        generator, parts = torch.Generator().manual_seed(asked.seed), []
        about = {"knows": knows, "CLIP": clip, "gradient": gradient, "scale": scale}
        label = " ".join(map(str, about.values()))
        for part in batches(asked.samples, label):
            captions = batch.captions[part]
            parts.append(draw(using, captions, guidance, gradient, scale, generator))
        images = torch.cat(parts)
        rates = accuracy(judge(images), batch.attributes, ONE)
        similarity = clip_score(pipe.clip.encode_image(images.to(pipe.device)), texts)
        rows.append({**about, "rates": rates, "similarity": similarity})
    return rows


def tables(results: list[dict]) -> dict[str, Table]:
    names = list(results[0]["rates"])
    head = ["who knows the caption", "CLIP", "gradient", "scale", *(f"{n}, %" for n in names)]
    rows = [
        [
            *(f"{row[key]}" for key in ("knows", "CLIP", "gradient", "scale")),
            *map(percent, row["rates"].values()),
            f"{row['similarity']:.1f}",
        ]
        for row in results
    ]
    return {"CLIP guidance": [[*head, "CLIP's similarity"], *rows]}


def headlines(results: list[dict]) -> dict[str, str]:
    """Of the last way in which CLIP alone knows the caption."""
    joint = [row["rates"]["joint"] for row in results if row["knows"] == "CLIP alone"][-1]
    return {"all four attributes as CLIP alone is told, %": percent(joint)}
