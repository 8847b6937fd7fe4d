"""What several tests need: an independent reading of captions, tiny models, sounds."""

import math
import re
import wave
from dataclasses import replace
from functools import cache
from pathlib import Path

import torch

from minisd import StableDiffusion
from minisd.audio import RATE
from minisd.call import SamplingDefaults
from minisd.data import ONE, OneDigit
from minisd.diffusion import NoiseSchedule
from minisd.models import (
    CLIP,
    Autoencoder,
    AutoencoderConfig,
    CLIPConfig,
    TextConfig,
    UNet,
    UNetConfig,
    VisionConfig,
)
from minisd.tokenizer import Tokenizer
from minisd.training import RECIPES, Recipe, Run, run_on

# Every word that a caption may have, as a reader of English takes it: word -> (attribute, index).
MEANING = {
    word: (attribute, index)
    for attribute, words in enumerate(
        (
            "zero one two three four five six seven eight nine",
            "red orange yellow green cyan blue purple white",
            "small large",
        )
    )
    for index, word in enumerate(words.split())
} | {str(i): (0, i) for i in range(10)}
PLACES = ("at the top left", "at the top right", "at the bottom left", "at the bottom right")
PLACES = (*PLACES, "in the center")
FILLERS = {"a", "an", "the", "picture", "of", "there", "is", "digit"}


def read_caption(caption: str) -> list[int]:
    """What the caption says of (digit, colour, size, position); -1 where it says nothing.

    AssertionError if it says something twice, or has a word that means nothing here.
    """
    said = [-1] * 4
    for index, place in enumerate(PLACES):
        if place in caption:
            assert said[3] == -1, f"two places in {caption!r}"
            said[3], caption = index, caption.replace(place, "", 1)
    for word in caption.replace(",", " ").split():
        if word not in FILLERS:
            assert word in MEANING, f"{word!r} is no word of our captions"
            attribute, index = MEANING[word]
            assert said[attribute] == -1, f"{caption!r} names its {attribute} twice"
            said[attribute] = index
    return said


RELATIONS = ["left of", "right of", "above", "below"]


def read_two(caption: str) -> list[int]:
    """(digit, colour, relation, digit, colour) as an English reader takes them; -1: not said."""
    (relation,) = [i for i, words in enumerate(RELATIONS) if f" {words} " in caption]
    said = []
    for half in caption.split(f" {RELATIONS[relation]} "):
        found = [MEANING[word] for word in re.findall(r"\w+", half) if word in MEANING]
        said.append([next((i for a, i in found if a == kind), -1) for kind in (0, 1)])
    return [*said[0], relation, *said[1]]


@cache
def our_tokenizer() -> Tokenizer:
    """What every training run in the world of one digit starts with."""
    return Tokenizer.train(ONE.texts(), ONE.context_length)


TOWER = {"hidden_size": 16, "intermediate_size": 32, "num_layers": 1, "num_heads": 2}
TINY_AUTOENCODER = AutoencoderConfig(block_out_channels=(4, 8, 8), norm_num_groups=4)
TINY_UNET = UNetConfig(
    block_out_channels=(8, 16), num_heads=2, cross_attention_dim=16, norm_num_groups=4
)


def wake(unet: UNet) -> UNet:
    """A fresh U-Net answers zero to everything; give its zeros random values."""
    generator = torch.Generator().manual_seed(0)
    for p in unet.parameters():
        if not p.any():
            p.data.normal_(std=0.1, generator=generator)
    return unet


def make_tiny_pipe() -> StableDiffusion:
    """A whole pipeline with a few thousand random weights; it draws noise, in milliseconds."""
    torch.manual_seed(0)
    tokenizer = our_tokenizer()
    text = TextConfig(len(tokenizer), tokenizer.end_id, tokenizer.max_length, **TOWER)
    clip = CLIP(CLIPConfig(text, VisionConfig(**TOWER), projection_dim=8))
    unet, autoencoder = wake(UNet(TINY_UNET)), Autoencoder(TINY_AUTOENCODER)
    parts = (tokenizer, clip.text_model, unet, autoencoder, NoiseSchedule(), clip)
    return StableDiffusion(*parts, defaults=SamplingDefaults(6, 3.0, 0.9), data=ONE.about)


def equal(a, b) -> bool:
    """Bit for bit, whatever is in there: tensors, numbers, lists and dicts of them."""
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(equal, a, b))
    return a == b


def tiny_run(folder: Path, **changes) -> Run:
    """A run of a few seconds: tiny networks, few pictures, four steps a stage."""
    run = Run(
        folder,
        OneDigit(pool_size=500),
        recipes={name: Recipe(steps=4, batch_size=16) for name in RECIPES},
        networks={
            "autoencoder": TINY_AUTOENCODER,
            "text": TextConfig(**TOWER),
            "vision": VisionConfig(**TOWER),
            "unet": TINY_UNET,
        },
    )
    return replace(run, **changes)


def extend_tiny(extend, name: str, folder: Path):
    """(a tiny pipeline, what `extend` makes of it in three steps, the folder where that is)"""
    pipe, recipe = make_tiny_pipe(), {name: Recipe(steps=3, batch_size=8)}
    run = run_on(pipe, folder, OneDigit(pool_size=500), 0, recipe)
    run.working.mkdir()
    made = extend(run, pipe)
    made.save_pretrained(folder)
    return pipe, made, folder


def draw_seven(pipe, **options) -> torch.Tensor:
    """`a red seven` (1, 3, H, W) in [0, 1], from seed 0."""
    generator = torch.Generator().manual_seed(0)
    return pipe("a red seven", generator=generator, output_type="pt", **options).images


def change_recipe(run: Run, stage: str, **changes) -> Run:
    """The same run with another recipe for one stage."""
    return replace(run, recipes={**run.recipes, stage: replace(run.recipes[stage], **changes)})


def tone(hertz, seconds=1.0, rate=RATE):
    return torch.sin(2 * math.pi * hertz * torch.arange(int(seconds * rate)) / rate)


def write_wav(path, x, rate=RATE, width=2):
    """x (T,) or (T, channels) in [-1, 1]."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1 if x.dim() == 1 else x.shape[1])
        file.setsampwidth(width)
        file.setframerate(rate)
        file.writeframes((x * (2**15 - 1)).round().numpy().astype("<i2").tobytes())
    return path
