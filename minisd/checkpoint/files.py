"""Reading and writing JSON, text and safetensors, with one line for a damaged file."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import nn
from torch.overrides import TorchFunctionMode

from ..errors import InputError, located, quote, shorten
from ..files import open_atomically


def write_text(path: Path, text: str) -> None:
    with open_atomically(path) as file:
        file.write(text.encode("utf-8"))


@contextmanager
def blame(path: Path) -> Iterator[None]:
    """InputError for whatever goes wrong in reading the file at `path`."""
    try:
        yield
    except (FileNotFoundError, NotADirectoryError) as error:
        hint = f"is {path.parent} part of a diffusers pipeline directory?"
        raise InputError(f"{path} is missing; {hint}") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError, SafetensorError) as error:
        raise InputError(f"{path} is damaged: {shorten(str(error), 200)}") from error


def read_text(path: Path) -> str:
    """InputError if the file is missing, cannot be read or is not UTF-8."""
    with blame(path):
        return path.read_text(encoding="utf-8")


def write_json(path: Path, content: dict, indent: int = 2) -> None:
    write_text(path, json.dumps(content, indent=indent, ensure_ascii=False) + "\n")


def read_json(path: Path) -> dict:
    """InputError if the file is missing or does not hold a JSON object."""
    text = read_text(path)
    with blame(path):
        content = json.loads(text)
    if not isinstance(content, dict):
        raise InputError(f"{path} is damaged: it does not hold a JSON object")
    return content


def save_model(file: str, to_hf: Callable, folder: Path, model, dtype=None, rename=dict, **about):
    """Write config.json, `to_hf(model.config, **about)`, and the weights, as `dtype` if given."""
    write_json(folder / "config.json", to_hf(model.config, **about))
    save_weights(folder / file, rename(model.state_dict()), dtype)


def save_weights(path: Path, state: dict, dtype: torch.dtype | None = None) -> None:
    """Write tensors by name as safetensors, as `dtype` if given."""
    state = {k: v.detach().cpu().to(dtype).contiguous() for k, v in state.items()}
    with open_atomically(path) as stream:
        stream.write(save(state, metadata={"format": "pt"}))


def find_weights(path: Path) -> Path:
    """The file of weights at `path`, or the one in half precision beside it."""
    half = path.with_suffix(".fp16.safetensors")
    found = [file for file in (path, half) if file.exists()]
    if not found and any(path.parent.glob("*.index*.json")):
        whole = 'write one file with diffusers: save_pretrained(..., max_shard_size="100GB")'
        raise InputError(f"{path} is missing, and minisd does not read weights in parts; {whole}")
    if not found:
        convert = "diffusers' save_pretrained writes one from other formats"
        raise InputError(f"{path} is missing; minisd reads safetensors files only; {convert}")
    return found[0]


class ShapesOnly(TorchFunctionMode):
    """Networks made inside have no values; those of a file follow. For `with torch.device("meta")`.

    There torch skips all first values but normal ones, for which it imports 800 modules: 1.4 s.
    """

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function is nn.init.normal_:
            return kwargs["tensor"]
        return function(*args, **(kwargs or {}))


def load_model(file: str, model: type, from_hf: Callable, folder: Path, rename=dict) -> nn.Module:
    """The network that config.json describes, with the weights in `file`, as float32.

    InputError if the folder does not hold one. Errors that wrong files cannot cause are bugs of
    ours and stay as they are.
    """
    path = folder / "config.json"
    hf = read_json(path)
    with located(f"{path} is not of Stable Diffusion 1.x"):
        config = from_hf(hf)
    with torch.device("meta"), ShapesOnly():
        network = model(config)
    load_weights(find_weights(folder / file), network, rename)
    return network.eval()


def load_weights(path: Path, network: nn.Module, rename: Callable = dict) -> None:
    """Fill the network with the weights of a file, as float32. InputError if they do not fit."""
    with blame(path):
        state = load_file(path)
    state = rename(state)
    if strange := [name for name, value in state.items() if not value.is_floating_point()]:
        raise InputError(f"{path} is damaged: {quote(strange[0])} is not of floating-point numbers")
    state = {name: value.to(torch.float32, copy=True) for name, value in state.items()}
    try:
        network.load_state_dict(state, assign=True)
    except RuntimeError as error:
        first = shorten(str(error).splitlines()[1].strip(), 200)
        raise InputError(f"{path} does not fit its config.json: {first}") from error
    for name, weight in network.state_dict().items():
        if not all(end.isfinite() for end in weight.aminmax()):
            raise InputError(f"{path} is damaged: {name} has numbers that are not finite")
