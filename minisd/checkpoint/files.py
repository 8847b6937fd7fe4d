"""Reading and writing JSON, text and safetensors, with one line for a damaged file."""

import json
import textwrap
from collections.abc import Callable
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import nn

from ..errors import InputError
from ..files import open_atomically


def write_text(path: Path, text: str) -> None:
    with open_atomically(path) as file:
        file.write(text.encode("utf-8"))


def read_text(path: Path) -> str:
    """InputError if the file is missing or is not UTF-8."""
    if not path.exists():
        hint = f"is {path.parent} part of a diffusers pipeline directory?"
        raise InputError(f"{path} is missing; {hint}")
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is damaged: {error}") from error


def write_json(path: Path, content: dict, indent: int = 2) -> None:
    write_text(path, json.dumps(content, indent=indent, ensure_ascii=False) + "\n")


def read_json(path: Path) -> dict:
    """InputError if the file is missing or does not hold a JSON object."""
    text = read_text(path)
    try:
        content = json.loads(text)
    except ValueError as error:
        raise InputError(f"{path} is damaged: {error}") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} is damaged: it does not hold a JSON object")
    return content


def save_model(file: str, to_hf: Callable, folder: Path, model, dtype=None, rename=dict, **about):
    """Write config.json, `to_hf(model.config, **about)`, and the weights, as `dtype` if given."""
    write_json(folder / "config.json", to_hf(model.config, **about))
    state = rename(model.state_dict())
    state = {k: v.detach().cpu().to(dtype).contiguous() for k, v in state.items()}
    with open_atomically(folder / file) as stream:
        stream.write(save(state, metadata={"format": "pt"}))


def load_model(file: str, model: type, from_hf: Callable, folder: Path, rename=dict) -> nn.Module:
    """The network that config.json describes, with the weights in `file`, as float32.

    InputError if the folder does not hold one. Errors that wrong files cannot cause are bugs of
    ours and stay as they are.
    """
    path = folder / "config.json"
    hf = read_json(path)
    try:
        config = from_hf(hf)
    except KeyError as error:
        raise InputError(f"{path} is damaged: it lacks {error}") from error
    except (InputError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: {error}") from error
    try:
        network = model(config)
    except (ValueError, TypeError, RuntimeError, IndexError, ZeroDivisionError) as error:
        raise InputError(f"{path}: {error}") from error
    path = folder / file
    if not path.exists():
        raise InputError(f"{path} is missing; minisd reads safetensors files only")
    try:
        state = load_file(path)
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} is damaged: {error}") from error
    try:
        network.load_state_dict(rename(state))  # which casts to the float32 of the network
    except RuntimeError as error:
        first = textwrap.shorten(str(error).splitlines()[1], 200, placeholder=" ...")
        raise InputError(f"{path} does not fit its config.json: {first}") from error
    return network.eval()
