"""The parts of a pipeline: model_index.json, which names them, and whether they fit one another."""

import shutil
from operator import eq, ge
from pathlib import Path

from ..errors import InputError, located
from .files import read_json, write_json
from .options import Keys, read
from .schedulers import SAMPLER_CLASSES

INDEX = Keys(
    sizes={},
    options={
        "_class_name": ["StableDiffusionPipeline"],
        "text_encoder": [["transformers", "CLIPTextModel"]],
        "tokenizer": [["transformers", "CLIPTokenizer"], ["transformers", "CLIPTokenizerFast"]],
        "unet": [["diffusers", "UNet2DConditionModel"]],
        "vae": [["diffusers", "AutoencoderKL"]],
    },
    free="feature_extractor image_encoder requires_safety_checker safety_checker scheduler",
)


def clear(directory: Path) -> None:
    """Before anything else is written: a save that is cut short must not pass for a checkpoint."""
    (directory / "model_index.json").unlink(missing_ok=True)
    shutil.rmtree(directory / "clip", ignore_errors=True)  # the one part that may be left out


def save_index(directory: Path, sampler: str) -> None:
    """model_index.json, which tells diffusers what each folder of the directory holds."""
    index = {
        **{key: supported[0] for key, supported in INDEX.options.items()},
        "_diffusers_version": "0.42.1",
        "feature_extractor": [None, None],
        "image_encoder": [None, None],
        "requires_safety_checker": False,
        "safety_checker": [None, None],
        "scheduler": ["diffusers", SAMPLER_CLASSES[sampler]],
    }
    write_json(directory / "model_index.json", dict(sorted(index.items())))


def check_index(directory: Path) -> None:
    """InputError unless model_index.json names the parts of Stable Diffusion 1.x."""
    path = directory / "model_index.json"
    index = read_json(path)
    with located(f"{path} is not of Stable Diffusion 1.x"):
        read(INDEX, index)


def check_parts(directory: Path, tokenizer, text_encoder, unet, autoencoder, clip=None) -> None:
    """InputError, which names keys of the files, unless the parts fit one another."""
    text, unet, vae = text_encoder.config, unet.config, autoencoder.config
    latent = "vae's latent_channels", vae.latent_channels
    width = "text_encoder's hidden_size", text.hidden_size
    length = "the tokenizer's length", tokenizer.max_length
    ids = "the tokenizer's number of ids", len(tokenizer)
    rules = [
        ("unet's in_channels", unet.in_channels, eq, *latent),
        ("unet's out_channels", unet.out_channels, eq, *latent),
        ("unet's cross_attention_dim", unet.cross_attention_dim, eq, *width),
        ("vae's in_channels", vae.in_channels, eq, "a picture's channels", 3),
        ("text_encoder's max_position_embeddings", text.max_length, ge, *length),
        ("text_encoder's vocab_size", text.vocab_size, ge, *ids),
    ]
    if clip:
        text, end = clip.config.text, ("the tokenizer's end of text", tokenizer.end_id)
        rules += [
            ("clip's max_position_embeddings", text.max_length, ge, *length),
            ("clip's vocab_size", text.vocab_size, ge, *ids),
            ("clip's eos_token_id", text.end_id, eq, *end),
        ]
    for part, value, relation, other, bound in rules:
        if not relation(value, bound):
            must = "equal" if relation is eq else "be at least"
            raise InputError(f"{directory}: {part} is {value}, but must {must} {other}, {bound}")
