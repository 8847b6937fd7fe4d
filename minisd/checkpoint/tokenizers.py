"""The tokenizer's files, in the layout of `transformers.CLIPTokenizer`."""

from pathlib import Path

from ..errors import InputError
from ..tokenizer import END, MAX_LENGTH, START, Tokenizer
from .files import read_json, read_text, write_json, write_text


def save_tokenizer(folder: str | Path, tokenizer: Tokenizer) -> None:
    """Write the directory that `transformers.CLIPTokenizer.from_pretrained(folder)` reads."""
    folder = Path(folder)
    special = {"bos_token": START, "eos_token": END, "pad_token": END, "unk_token": END}
    length = {"model_max_length": tokenizer.max_length}
    config = {"tokenizer_class": "CLIPTokenizer", **length, **special}
    if tokenizer.known_words is not None:
        config["known_words"] = sorted(tokenizer.known_words)  # our own; transformers ignores it
    write_json(folder / "vocab.json", tokenizer.vocab, indent=1)
    write_json(folder / "tokenizer_config.json", config, indent=1)
    write_json(folder / "special_tokens_map.json", special, indent=1)
    lines = ["#version: 0.2", *map(" ".join, tokenizer.merges), ""]
    write_text(folder / "merges.txt", "\n".join(lines))


def load_tokenizer(folder: str | Path) -> Tokenizer:
    """Read vocab.json and merges.txt, as save_tokenizer writes them, or else tokenizer.json."""
    folder = Path(folder)
    config = read_json(folder / "tokenizer_config.json")
    if (folder / "tokenizer.json").exists() and not (folder / "vocab.json").exists():
        model = read_json(folder / "tokenizer.json").get("model")  # transformers 5
    else:
        lines = read_text(folder / "merges.txt").splitlines()
        merges = [line for line in lines if line and not line.startswith("#version")]
        model = {"vocab": read_json(folder / "vocab.json"), "merges": merges}
    try:
        merges = [tuple(m.split() if isinstance(m, str) else m) for m in model["merges"]]
        length = config.get("model_max_length", MAX_LENGTH)
        length = MAX_LENGTH if length > 1e6 else length  # transformers writes 1e30 for "not set"
        return Tokenizer(model["vocab"], merges, length, config.get("known_words"))
    except (InputError, TypeError, KeyError, AttributeError) as error:
        raise InputError(f"{folder} does not hold a sound CLIP tokenizer: {error}") from error
