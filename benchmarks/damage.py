"""The part of torture.py that damages a checkpoint: one random change of one file."""

import json
import random
from dataclasses import dataclass
from inspect import signature
from pathlib import Path

import diffusers
import torch
import transformers
from safetensors.torch import load, save


@dataclass
class Case:
    """One thing to try. harmless: it changes nothing, and so may not be refused."""

    what: str
    file: str
    content: bytes
    harmless: bool = False


# Configurations

WORDS = "silu gelu quick_gelu relu epsilon sample v_prediction leading linspace trailing linear"
WORDS = [*WORDS.split(), "scaled_linear", "squaredcos_cap_v2", "", "x", "none"]
CONFIGS = {  # file: the reference whose arguments may be added to it
    "unet/config.json": diffusers.UNet2DConditionModel,
    "vae/config.json": diffusers.AutoencoderKL,
    "text_encoder/config.json": transformers.CLIPTextConfig,
    "clip/config.json": transformers.CLIPConfig,
    "scheduler/scheduler_config.json": diffusers.DDIMScheduler,
    "tokenizer/tokenizer_config.json": transformers.CLIPTokenizer,
    "tokenizer/special_tokens_map.json": None,
    "tokenizer/vocab.json": None,
    "model_index.json": None,
    "minisd.json": None,
}
SCHEDULERS = [name for name in dir(diffusers) if name.endswith("Scheduler")]


def other(value, r: random.Random):
    """Something else that might stand there."""
    if isinstance(value, bool):
        return r.choice([not value, None, 0, str(value).lower()])
    if isinstance(value, int | float):
        near = [0, -1, 1, 2 * value, value + 1, value / 2, value + 0.5, -value]
        return r.choice([*near, str(value), [value], [value, value], None, True, float("nan")])
    if isinstance(value, str):
        return r.choice([*WORDS, value + "x", None, 7, [value]])
    if isinstance(value, list):
        return r.choice([[], value[::-1], value[:1], value + value[-1:], value[:1] * 2, None, 3])
    return r.choice([1, 2, 0.5, True, "x", [1], {}, None])


def change_config(r: random.Random, weights: Path) -> Case:
    """A configuration with one thing changed."""
    file = r.choice(list(CONFIGS))
    content = json.loads((weights / file).read_text(encoding="utf-8"))
    place = content
    while nested := [v for v in place.values() if isinstance(v, dict) and v]:
        place = r.choice([*nested, place])
        if place not in nested:
            break
    kind = r.choices(["change", "drop", "add", "class", "damage", "shuffle"], [8, 2, 4, 1, 1, 1])[0]
    key = r.choice(list(place))
    what, harmless = f"{kind} {key!r}", False
    if kind == "change":
        place[key] = other(place[key], r)
        what += f" to {place[key]!r}"
    elif kind == "drop":
        del place[key]
    elif kind == "add":
        arguments = signature(CONFIGS[file].__init__).parameters if CONFIGS[file] else {}
        known = {k: p.default for k, p in arguments.items() if isinstance(p.default, str | int)}
        key = r.choice(sorted(known.keys() - place.keys()) or ["frobnicate"])
        place[key] = other(known.get(key), r)
        what = f"add {key!r}: {place[key]!r}"
    elif kind == "class" and "_class_name" in content:
        content["_class_name"] = r.choice(SCHEDULERS)
        what = f"class {content['_class_name']}"
    elif kind in ("shuffle", "class"):
        what, harmless = "shuffle the keys", True
        items = list(content.items())
        r.shuffle(items)
        content = dict(items)
    text = json.dumps(content, indent=r.choice([None, 1, 2]), ensure_ascii=False).encode()
    if kind == "damage":
        at = r.randrange(len(text))
        what, text = r.choice(
            [
                (f"cut after {at} bytes", text[:at]),
                (f"byte {at} is 0xff", text[:at] + b"\xff" + text[at + 1 :]),
                (f"byte {at} is gone", text[:at] + text[at + 1 :]),
                ("UTF-16", text.decode().encode("utf-16")),
                ("a list", b"[1, 2]"),
            ]
        )
    return Case(what, file, text, harmless)


# Weight files

STORED = ["unet/diffusion_pytorch_model", "vae/diffusion_pytorch_model", "text_encoder/model"]
STORED = [f"{name}.safetensors" for name in (*STORED, "clip/model")]
TYPES = [torch.float32, torch.float64, torch.bfloat16, torch.int8, torch.bool]


def flip(content: bytes, r: random.Random, limit: int) -> tuple[str, bytes]:
    at, bit = r.randrange(limit), r.randrange(8)
    return f"bit {bit} of byte {at}", content[:at] + bytes([content[at] ^ 1 << bit]) + content[
        at + 1 :
    ]


def change_weights(r: random.Random, weights: Path) -> Case:
    """A weight file with one thing changed."""
    file = r.choice(STORED)
    content = (weights / file).read_bytes()
    kinds = ["header", "data", "cut", "longer", "swap", "rename", "drop", "add", "type", "shape"]
    kind = r.choice([*kinds, "nan", "inf", "empty", "another's", "order"])
    header = 8 + int.from_bytes(content[:8], "little")
    at = r.randrange(len(content))
    plain = {
        "header": lambda: flip(content, r, header),
        "data": lambda: flip(content, r, len(content)),
        "cut": lambda: (f"cut after {at} bytes", content[:at]),
        "longer": lambda: ("100 bytes more", content + bytes(100)),
        "empty": lambda: ("empty", b""),
        "another's": lambda: (f"is {STORED[0]}", (weights / STORED[0]).read_bytes()),
    }
    if kind in plain:
        what, changed = plain[kind]()
        return Case(what, file, changed, changed == content)
    state = load(content)
    name, second = r.sample(sorted(state), 2)
    value, what, harmless = state[name], f"{kind} {name}", False
    if kind == "swap":
        equal = [key for key in sorted(state) if state[key].shape == value.shape]
        second = r.choice(equal)
        state[name], state[second] = state[second], value
        what += f", {second}"
    elif kind == "rename":
        state[name + "x"] = state.pop(name)
    elif kind == "drop":
        del state[name]
    elif kind == "add":
        state["frobnicate.weight"] = torch.zeros(3)
    elif kind == "type":
        state[name] = value.to(r.choice(TYPES))
        harmless = torch.equal(state[name].to(value.dtype), value) and value.is_floating_point()
        what += f" {state[name].dtype}"
    elif kind == "shape":
        state[name] = r.choice(
            [value.flatten(), value[None], value.transpose(0, -1).contiguous(), value[:0]]
        )
        harmless = state[name].shape == value.shape and torch.equal(state[name], value)
        what += f" {list(value.shape)} {list(state[name].shape)}"
    elif kind in ("nan", "inf"):
        value.view(-1)[r.randrange(value.numel())] = float(kind)
    else:
        harmless = True
    state = {key: state[key].clone() for key in r.sample(sorted(state), len(state))}
    return Case(what, file, save(state, metadata={"format": "pt"}), harmless)
