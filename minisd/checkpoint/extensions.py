"""The files of an extension: config.json, and its weights."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from ..errors import InputError, located, shorten
from .files import ShapesOnly, load_weights, read_json, save_weights, write_json

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
    folder: str | Path, network: nn.Module, config: dict, stands_on: str, dtype=None, file=WEIGHTS
) -> None:
    """config: what `build` of `load_extension` needs; stands_on: a fingerprint."""
    folder = Path(folder)
    write_json(folder / "config.json", {"stands_on": stands_on, "config": config})
    save_weights(folder / file, network.state_dict(), dtype)


def load_extension(
    folder: str | Path, name: str, build: Callable[[dict], nn.Module], stands_on: str, file=WEIGHTS
) -> nn.Module:
    """The network build(config), with the weights in the folder, as float32.

    build: raises InputError for a config that describes none. InputError as well if there is no
    such extension, if it is damaged, or if it stands on another checkpoint.
    """
    folder, train = Path(folder), f"python -m minisd extend {name}"
    path = folder / "config.json"
    for needed in (path, folder / file):
        if not os.path.exists(needed):  # Path.exists fails on long names
            where = shorten(str(folder), 200)
            what = f"{where} holds no {name} (no {needed.name})"
            raise InputError(f"{what}; train one with: {train} --out {where}")
    about = read_json(path)
    stood_on, config = about.get("stands_on"), about.get("config")
    if not isinstance(stood_on, str) or not isinstance(config, dict):
        raise InputError(f"{path} is damaged: stands_on must be a text, and config an object")
    if stood_on != stands_on:
        raise InputError(f"{folder} was trained for another checkpoint; train anew with: {train}")
    with located(f"{path} is damaged"), torch.device("meta"), ShapesOnly():
        network = build(config)
    load_weights(folder / file, network)
    return network.eval()
