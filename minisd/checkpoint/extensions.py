"""The files of an extension: config.json, and its weights."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from ..errors import InputError, located, shorten
from .files import load_weights, read_json, save_weights, write_json

WEIGHTS = "model.safetensors"


def fingerprint(*networks: nn.Module) -> str:
    """Tells networks apart by their weights, whatever the dtype and device they are moved to."""
    digest = hashlib.sha256()
    for network in networks:
        for name, value in sorted(network.state_dict().items()):
            digest.update(name.encode())
            digest.update(value.cpu().to(torch.bfloat16).view(torch.int16).numpy().tobytes())
    return digest.hexdigest()[:16]


def save_extension(
    folder: Path, network: nn.Module, config: dict, stands_on: str, dtype=None, file: str = WEIGHTS
) -> None:
    """config: what `build` of `load_extension` needs; stands_on: a fingerprint."""
    write_json(folder / "config.json", {"stands_on": stands_on, "config": config})
    save_weights(folder / file, network.state_dict(), dtype)


def load_extension(
    folder: Path, name: str, build: Callable[..., nn.Module], stands_on: str, file: str = WEIGHTS
) -> nn.Module:
    """The network build(**config), with the weights in the folder, as float32.

    InputError if there is none, if it is damaged, or if it stands on another checkpoint.
    """
    path, train = folder / "config.json", f"python -m minisd extend {name}"
    if not path.exists():
        where = shorten(str(folder), 200)
        raise InputError(f"{where} holds no {name}; train one with: {train} --out {where}")
    about = read_json(path)
    if about.get("stands_on") != stands_on:
        raise InputError(f"{folder} was trained for another checkpoint; train anew with: {train}")
    with located(path):
        try:
            network = build(**about["config"])
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise InputError(f"it is damaged: {shorten(str(error), 200)}") from error
    load_weights(folder / file, network)
    return network.eval()
