"""Texts that are hard to tokenize, and CLIP's files written without minisd."""

import json
import random
from pathlib import Path
from unicodedata import category

from minisd.tokenizer import END, START

CAPTIONS = [
    "a small red seven at the top left",
    "a large blue seven in the center",
    "A large red zero, at the bottom right!",
    "the digit 7 in green",
]

HARD_TEXTS = [
    "",
    " ",
    "a photo of a cat",
    "  runs   of \t blanks\n\nand\r\nlines\x0b\x0c\x85\xa0\u2003\u2028\u3000ends  ",
    "UPPER Case ÀÉÎ ŠŽ ẞ straße ﬁ ǅ Ω",
    "İstanbul ISPARTA ılık i\u0307",
    "ὈΔΥΣΣΕΎΣ ΣΣ Σ ςσ",
    "cafe\u0301 caf\xe9 A\u030angstro\u0308m \u212b \u212a \u0301alone e\u200d\u0301",
    "q\u0307\u0323 q\u0323\u0307 a\u0323\u0302 \u1ead a\u0302\u0323",
    "\u0958 \u0f73 \u2126 \ufb1d \U0001d15e 각 \u1100\u1161\u11a8 \u0344",
    "1234567890 3.14 ½ Ⅷ ² ٣٤ 一二三 \U0001d7d9 a1b2",
    "it's IT'S don't we're I've i'm she'll he'd 's 't ''s '''re 'sister rock'n'roll o'd' x'",
    "it\u2019s \u2018quoted\u2019 \u201cso\u201d",
    "snake_case __init__ a-b-c a--b ... ?!?! !!! #tag @you $5 50% a/b\\c <b> </w> a</w>b",
    "你好，世界。 こんにちは カタカナ ﾊﾝｶｸ 안녕하세요 สวัสดี नमस्ते שָׁלוֹם مَرْحَبًا Привет",
    "🐘 🐘🐘! 👩\u200d🚀 👨\u200d👩\u200d👧\u200d👦 👍🏽 🇩🇪",
    "🏳\ufe0f\u200d🌈 ❤\ufe0f ☃ 1\ufe0f\u20e3 \U0001f9ff",
    "\x00 \x01\x02 a\x00b \x1b[0m \x1c\x1d\x1e\x1f \x7f \x80\x9f",
    "\ufeff \u200b \u200e \xad \ufffd \ufffe \ue000",
    "<|endoftext|>",
    "a<|startoftext|>b <|endoftext|><|endoftext|>!! !<|endoftext|>?",
    "<|ENDOFTEXT|>!! !<|ENDOFTEXT|>!! <|StartOfText|>? <|endof text|> <|endoftext| |>",
    "e<|endoftext|>\u0301 <|endoftext|>\u0338 <\u0338|endoftext|>",
    "'",
    "_",
    "antidisestablishmentarianism pneumonoultramicroscopicsilicovolcanoconiosis aaaaaaaaaaaaa",
    "\U00010400\U00010428 \U0001d400 \U00020000\U0002a6d6 \U000e0041 \U0010fffd",
]

# All known to Unicode 9 (2016): the tables of `tokenizers` do not order combining marks younger.
BLOCKS = """
    0-24F 250-377 384-52F 531-556 591-5C7 5D0-5EA 610-6FF 904-94D E01-E3A F71-F84 1100-11FF
    1E00-1FFF 2000-206F 2070-209C 20D0-20F0 2100-218B 2190-23FA 2600-27BF 3000-30FF 4E00-9FA5
    AC00-D7A3 E000-E0FF F900-FA6D FB00-FB06 FB1D-FB4F FE00-FE0F FEFF-FEFF FF01-FF9D 10400-1044F
    1D15E-1D172 1D400-1D4FF 1F1E6-1F1FF 1F300-1F64F 20000-200FF E0020-E007F"""
PIECES = ["'s", "'LL", "'", " ", "\t", "A", "e\u0301", "\u200d", "7", "_", "!!", "Σ", "\u0338"]
PIECES += [START, END, "<|ENDOFTEXT|>", "<|", "|>", "</w>"]


def random_texts(count: int) -> list[str]:
    """Pseudo-random texts over all blocks, within one block (so that marks combine), of pieces."""
    rng = random.Random(0)
    ends = [[int(end, 16) for end in block.split("-")] for block in BLOCKS.split()]
    blocks = [[c for c in map(chr, range(a, b + 1)) if category(c) != "Cn"] for a, b in ends]
    texts = []
    for i in range(count):
        anywhere = [rng.choice(rng.choice(blocks)) for _ in range(8)]
        together = rng.choices(rng.choice(blocks), k=8)
        pieces = rng.choices(PIECES, k=8)
        mixtures = [anywhere, together, pieces, together + pieces, anywhere + together + pieces]
        texts.append("".join(rng.choices(mixtures[i % len(mixtures)], k=rng.randint(0, 30))))
    return texts


def write_clip(folder: Path, vocab: dict, merges: list) -> None:
    """A tokenizer directory as transformers 4 wrote it, made without minisd."""
    special = {"bos_token": START, "eos_token": END, "pad_token": END, "unk_token": END}
    config = {"tokenizer_class": "CLIPTokenizer", "model_max_length": 77, **special}
    lines = ["#version: 0.2", *merges]
    (folder / "vocab.json").write_text(json.dumps(vocab), encoding="utf-8")
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")


def reference_ids(reference, text: str) -> list[int]:
    return reference(text, add_special_tokens=False).input_ids
