"""The tokenizer's files, in the layout of `transformers.CLIPTokenizer`."""

from pathlib import Path

from ..errors import InputError, check_number, located, quote
from ..tokenizer import END, MAX_LENGTH, START, Tokenizer
from .files import read_json, read_text, write_json, write_text
from .options import all_of, require

# What the files may say that changes ids -> the values that minisd supports, the default first.
SUPPORTED = {
    "bos_token": [START],
    "eos_token": [END],
    "unk_token": [END],
    "sep_token": [None, START, END],
    "pad_token": [END, START, "!"],  # "!": OpenAI's own, and Stable Diffusion 2
    "cls_token": [None, START, END],
    "mask_token": [None, START, END],
    "additional_special_tokens": [None, [], {}],
    "extra_special_tokens": [None, [], {}],
    "model_specific_special_tokens": [None, {}],
    "split_special_tokens": [False, None],
    "init_inputs": [None, []],
    **all_of("padding_side truncation_side", "right"),
    **all_of("fast_tokenizer_files vocab merges", None),  # files of other names
}
NAMED = list(SUPPORTED)[:7]  # the special tokens, in transformers' order
CONFIG, MAP, ADDED = "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"
WHOLE = "tokenizer.json"


def save_tokenizer(folder: str | Path, tokenizer: Tokenizer) -> None:
    """Write the directory that `transformers.CLIPTokenizer.from_pretrained(folder)` reads."""
    folder = Path(folder)
    special = {"bos_token": START, "eos_token": END, "pad_token": tokenizer.pad, "unk_token": END}
    length = {"model_max_length": tokenizer.max_length}
    config = {"tokenizer_class": "CLIPTokenizer", **length, **special}
    if tokenizer.known_words is not None:
        config["known_words"] = sorted(tokenizer.known_words)  # our own; transformers ignores it
    for key, token in special.items():
        if token in tokenizer.folded:
            sides = dict.fromkeys(("lstrip", "rstrip", "single_word"), False)
            special[key] = {"content": token, "normalized": True, **sides}
    write_json(folder / "vocab.json", tokenizer.vocab, indent=1)
    write_json(folder / CONFIG, config, indent=1)
    write_json(folder / MAP, special, indent=1)
    lines = ["#version: 0.2", *map(" ".join, tokenizer.merges), ""]
    write_text(folder / "merges.txt", "\n".join(lines))
    for name in (ADDED, WHOLE):  # of a tokenizer that was here before
        (folder / name).unlink(missing_ok=True)


def load_tokenizer(folder: str | Path, unstated: int = MAX_LENGTH) -> Tokenizer:
    """Read what transformers 4 or 5 wrote; tokenizer.json counts before vocab.json and merges.txt.

    unstated: the length in tokens where the files do not say it, at most transformers' 77.
    InputError if a file is missing or damaged, or asks for ids that minisd cannot give.
    """
    folder = Path(folder)
    files = {
        name: read_json(folder / name)
        for name in (CONFIG, MAP, ADDED, WHOLE)
        if (folder / name).exists()
    }
    if WHOLE not in files:
        lines = [line.removesuffix("\r") for line in read_text(folder / "merges.txt").split("\n")]
        merges = [line for line in lines if line and not line.startswith("#version")]
        model = {"vocab": read_json(folder / "vocab.json"), "merges": merges}
        files[WHOLE] = {"model": model}
    try:
        model = files[WHOLE]["model"]  # transformers 5 takes no more of it, either
        merges = [tuple(m.split(" ") if isinstance(m, str) else m) for m in model["merges"]]
        return Tokenizer(model["vocab"], merges, **read_options(files, unstated))
    except (InputError, TypeError, KeyError, AttributeError) as error:
        reasons = {InputError: error, KeyError: f"it lacks {error}"}
        reason = reasons.get(type(error), "something in its files is of the wrong type")
        raise InputError(f"{folder} does not hold a sound CLIP tokenizer: {reason}") from error


def read_options(files: dict[str, dict], unstated: int) -> dict:
    """{name: content} -> what `Tokenizer` takes besides vocab and merges.

    Looks where transformers 5 looks. InputError, with file and key, for what is not supported.
    """
    whole, config = files[WHOLE], files.get(CONFIG, {})
    said = {key: (CONFIG, value) for key, value in config.items()}
    if "added_tokens_decoder" in config:
        source, added = CONFIG, config["added_tokens_decoder"].values()
    else:  # older files
        said |= {key: (MAP, value) for key, value in files.get(MAP, {}).items()}
        source, added = WHOLE, whole.get("added_tokens", [])
    for part in ("padding", "truncation"):
        if whole.get(part):
            side = whole[part]["direction"].lower()
            said.setdefault(f"{part}_side", (WHOLE, side))

    named = {}  # (special token, is it an AddedToken?, is it found in any case?), each once
    for key in SUPPORTED | said:
        supported = SUPPORTED.get(key, [None])
        file, raw = said.get(key, ("", supported[0]))
        value, fold = read_token(raw)
        new = key.endswith("_token") and isinstance(value, str)
        if new or key in SUPPORTED:
            with located(file):
                require({key: value}, {key: supported})
        if key in NAMED:
            named.setdefault((value, isinstance(raw, dict), fold))
    folded = {token: fold for token, _, fold in named}  # the last one counts
    for token, fold in map(read_token, added):
        if token not in folded:
            known = " and ".join(filter(None, folded))
            raise InputError(
                f"{source} adds the token {quote(token)}; minisd supports {known} only"
            )
        folded[token] = fold
    if more := [] if source == CONFIG else list(files.get(ADDED, {})):
        raise InputError(f"{ADDED} adds the token {quote(more[0])}; minisd supports none")

    _, pad = said.get("pad_token", ("", END))
    file, length = said.get("model_max_length", said.get("max_len", ("", None)))
    if length is None or (isinstance(length, int | float) and length > 1e6):
        length = min(unstated, MAX_LENGTH)  # transformers writes 1e30 for "not set"
    with located(file):
        check_number("model_max_length", length, 2, whole=True)
    folded = [token for token, fold in folded.items() if fold]
    known_words, pad = config.get("known_words"), read_token(pad)[0]
    return {"max_length": length, "known_words": known_words, "pad": pad, "folded": folded}


def read_token(value) -> tuple:
    """A special token, as text or as the fields of an AddedToken -> (text, found in any case?)."""
    if not isinstance(value, dict) or "content" not in value:
        return value, False
    if value["lstrip"] or value["rstrip"] or value["single_word"]:
        token = quote(value["content"])
        raise InputError(f"{token} has lstrip, rstrip or single_word; minisd supports none of them")
    return value["content"], value["normalized"]
