"""One training run: everything that decides its result, in one object."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch

from ..data import Dataset
from ..diffusion import NoiseSchedule
from ..errors import InputError, located, quote
from ..models import AutoencoderConfig, CLIPConfig, TextConfig, UNetConfig, VisionConfig
from ..tokenizer import Tokenizer
from .loop import Recipe

RECIPES = {
    "autoencoder": Recipe(steps=1000, batch_size=16, learning_rate=3e-3),
    "clip": Recipe(steps=1900, batch_size=64, learning_rate=2e-3, weight_decay=0.1),
    "unet": Recipe(steps=1400, batch_size=64, learning_rate=5e-3),
}
NETWORKS = {
    "autoencoder": AutoencoderConfig(),
    "text": TextConfig(),
    "vision": VisionConfig(),
    "unet": UNetConfig(),
}
DERIVED = {  # fields set by the dataset, the tokenizer, other networks or measurements
    "autoencoder": {"in_channels", "scaling_factor"},
    "text": {"vocab_size", "end_id", "max_length"},
    "vision": {"image_size"},
    "unet": {"sample_size", "in_channels", "out_channels", "cross_attention_dim"},
}


def recipes_for(
    dataset: Dataset, effort: float = 1, recipes: Mapping[str, Recipe] = RECIPES
) -> dict[str, Recipe]:
    """Recipes with as many times the steps as the dataset and the user ask for."""
    times = dataset.effort * effort
    return {name: replace(r, steps=max(1, round(times * r.steps))) for name, r in recipes.items()}


@dataclass(frozen=True)
class Run:
    """What is trained, on what, how, where, and from which seed.

    folder: where the checkpoint goes; networks: their configurations, of which `clip_config` and
    `unet_config` fill in the fields that other parts decide.
    """

    folder: Path
    dataset: Dataset
    seed: int = 0
    device: str | torch.device = "cpu"
    recipes: Mapping[str, Recipe] = field(default_factory=RECIPES.copy)
    networks: Mapping[str, Any] = field(default_factory=NETWORKS.copy)
    schedule: NoiseSchedule = field(default_factory=NoiseSchedule)

    @property
    def working(self) -> Path:
        """The folder of the files that a killed run resumes from."""
        return self.folder / "training"

    @property
    def autoencoder_config(self) -> AutoencoderConfig:
        return self.networks["autoencoder"]

    def clip_config(self, tokenizer: Tokenizer | None = None) -> CLIPConfig:
        """Without a tokenizer, the fields that it decides keep their defaults."""
        text = self.networks["text"]
        if tokenizer:
            size, end, length = len(tokenizer), tokenizer.end_id, tokenizer.max_length
            text = replace(text, vocab_size=size, end_id=end, max_length=length)
        vision = replace(self.networks["vision"], image_size=self.dataset.image_size)
        return CLIPConfig(text, vision)

    @property
    def unet_config(self) -> UNetConfig:
        latents, width = self.autoencoder_config, self.networks["text"].hidden_size
        size, channels = self.dataset.image_size // latents.downscale, latents.latent_channels
        shape = {"sample_size": size, "in_channels": channels, "out_channels": channels}
        return replace(self.networks["unet"], **shape, cross_attention_dim=width)


def run_on(pipe, folder: Path, dataset: Dataset, seed: int, recipes: Mapping[str, Recipe]) -> Run:
    """A run on top of a checkpoint: its networks, its schedule, its device."""
    parts = {"autoencoder": pipe.autoencoder, "text": pipe.text_encoder, "unet": pipe.unet}
    networks = NETWORKS | {name: network.config for name, network in parts.items()}
    return Run(folder, dataset, seed, pipe.device, recipes, networks, pipe.schedule)


def override(configs: Mapping[str, Any], settings: Iterable[str]) -> dict[str, Any]:
    """Configurations {name: dataclass} changed by strings `name.field=value`.

    A value has the type of the field's present value; commas separate the members of a tuple.
    Raises InputError, one line that names what exists, for a field that is unknown or in DERIVED
    and for a value of the wrong type.
    """
    changes = {name: {} for name in configs}
    for setting in settings:
        target, equals, text = setting.partition("=")
        name, _, key = target.partition(".")
        if not equals or name not in configs:
            names = ", ".join(f"{n}.FIELD=VALUE" for n in configs)
            raise InputError(f"{quote(setting)} is not one of {names}")
        known = [f.name for f in fields(configs[name]) if f.name not in DERIVED.get(name, ())]
        if key not in known:
            raise InputError(f"{name} has no {quote(key)} to set; it has {', '.join(known)}")
        present = getattr(configs[name], key)
        try:
            changes[name][key] = parse_like(present, text)
        except (ValueError, KeyError) as error:
            message = f"{target} cannot be {quote(text)}; it looks like {key}={show(present)}"
            raise InputError(message) from error
    changed = {}
    for name, config in configs.items():
        with located(name):
            changed[name] = replace(config, **changes[name])
    return changed


def parse_like(present: Any, text: str) -> Any:
    """Text -> a value of the type that `present` has. ValueError or KeyError if it is not one."""
    if isinstance(present, tuple):
        return tuple(parse_like(present[0], member) for member in text.split(","))
    if isinstance(present, bool):
        return {"true": True, "false": False}[text.lower()]
    return type(present)(text)


def show(value: Any) -> str:
    """A value as `parse_like` reads it."""
    return ",".join(map(show, value)) if isinstance(value, tuple) else str(value).lower()
