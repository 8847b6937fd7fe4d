"""A Hugging Face pipeline directory <-> our objects. Nothing else knows how diffusers lays it out.

Every load raises InputError, one clear line, if a file is missing, damaged or of an architecture
other than Stable Diffusion 1.x. A `dtype` is how weights are stored; they are loaded as float32.
"""

from collections.abc import Iterable
from functools import partial
from pathlib import Path

from ..errors import InputError, quote
from ..models import CLIP, Autoencoder, TextEncoder, UNet
from . import configs, keys
from .configs import check_configs, unet_from_hf, unet_to_hf
from .extensions import fingerprint, load_extension, save_extension
from .files import load_model, read_json, save_model, write_json
from .options import values_like
from .parts import check_index, check_parts, clear, save_index
from .schedulers import SAMPLER_CLASSES, load_scheduler, save_scheduler
from .tokenizers import load_tokenizer, save_tokenizer

DIFFUSERS = "diffusion_pytorch_model.safetensors"
TRANSFORMERS = "model.safetensors"

# Each network's save(folder, model, dtype=None) and load(folder) -> model
save_unet = partial(save_model, DIFFUSERS, configs.unet_to_hf)
load_unet = partial(load_model, DIFFUSERS, UNet, configs.unet_from_hf)
save_autoencoder = partial(save_model, DIFFUSERS, configs.autoencoder_to_hf)  # and sample_size=
load_autoencoder = partial(
    load_model,
    DIFFUSERS,
    Autoencoder,
    configs.autoencoder_from_hf,
    rename=keys.autoencoder_keys_from_hf,
)
save_text_encoder = partial(
    save_model, TRANSFORMERS, configs.text_to_hf, rename=keys.text_keys_to_hf
)
load_text_encoder = partial(
    load_model, TRANSFORMERS, TextEncoder, configs.text_from_hf, rename=keys.text_keys_from_hf
)
save_clip = partial(save_model, TRANSFORMERS, configs.clip_to_hf)
load_clip = partial(
    load_model, TRANSFORMERS, CLIP, configs.clip_from_hf, rename=keys.clip_keys_from_hf
)


def save_image_encoder(folder: Path, clip: CLIP, dtype=None) -> None:
    """CLIP's vision tower by itself, and how to prepare pictures for it."""
    keys_to_hf = keys.image_keys_to_hf
    save_model(TRANSFORMERS, configs.image_encoder_to_hf, folder, clip, dtype, keys_to_hf)
    prepare = configs.preprocessor_to_hf(clip.config.vision.image_size)
    write_json(folder / "preprocessor_config.json", prepare)


# minisd.json: what belongs to a checkpoint and has no place in diffusers' files


def save_sampling(directory: Path, sampling: dict, data: dict | None) -> None:
    """sampling: how the checkpoint is best sampled; data: what it was trained on, if known."""
    write_json(directory / "minisd.json", {"sampling": sampling, "data": data})


def load_sampling(directory: Path, fields: Iterable[str]) -> tuple[dict, dict | None]:
    """(sampling, with exactly these fields, and data), or ({}, None) if the file is missing."""
    path = directory / "minisd.json"
    if not path.exists():
        return {}, None
    content = read_json(path)
    sampling, data = content.get("sampling"), content.get("data")
    if not isinstance(sampling, dict) or set(sampling) != set(fields):
        raise InputError(f'{path}: "sampling" must be an object with {", ".join(fields)}')
    if not isinstance(data, dict | None):
        raise InputError(f'{path}: "data" must be an object or null, not {quote(data)}')
    return sampling, data
