"""The tokenizer: equal to transformers.CLIPTokenizer in ids and files, and right by hand."""

import gzip
import importlib.util
import json
import random
from pathlib import Path
from unicodedata import category

import pytest
import torch

from minisd.tokenizer import END, START, Tokenizer, apply_merges, split_words, word_symbols

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


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory) -> Path:
    """The real CLIP vocabulary, from the one data file of open_clip (which is never imported)."""
    tokenizers = pytest.importorskip("tokenizers")
    spec = importlib.util.find_spec("open_clip")
    if spec is None:
        pytest.skip("needs CLIP's merges: pip install --no-deps open_clip_torch")
    source = Path(spec.submodule_search_locations[0]) / "bpe_simple_vocab_16e6.txt.gz"
    lines = gzip.decompress(source.read_bytes()).decode("utf-8").split("\n")
    merges = lines[1 : 49152 - 256 - 2 + 1]
    single = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    symbols = [*single, *(s + "</w>" for s in single), *(m.replace(" ", "") for m in merges)]
    vocab = {symbol: id for id, symbol in enumerate([*symbols, START, END])}
    assert len(vocab) == 49408
    folder = tmp_path_factory.mktemp("clip")
    write_clip(folder, vocab, merges)
    return folder


@pytest.fixture(scope="module")
def clip(clip_folder) -> Tokenizer:
    return Tokenizer.from_directory(clip_folder)


@pytest.fixture(scope="module")
def clip_reference(clip_folder):
    transformers = pytest.importorskip("transformers")
    return transformers.CLIPTokenizer.from_pretrained(clip_folder)


@pytest.fixture(scope="module")
def small() -> Tokenizer:
    return Tokenizer.train(CAPTIONS, max_length=12)


def reference_ids(reference, text: str) -> list[int]:
    return reference(text, add_special_tokens=False).input_ids


# Equality with transformers, on the vocabulary of the real CLIP


def test_ids_of_the_real_clip(clip):
    assert len(clip) == 49408 and clip.start_id == 49406 and clip.end_id == 49407
    assert clip.encode("a photo of a cat") == [320, 1125, 539, 320, 2368]


@pytest.mark.parametrize("text", HARD_TEXTS, ids=range(len(HARD_TEXTS)))
def test_hard_texts_equal_transformers(clip, clip_reference, text):
    assert clip.encode(text) == reference_ids(clip_reference, text)


def test_random_texts_equal_transformers(clip, clip_reference):
    for text in random_texts(2000):
        assert clip.encode(text) == reference_ids(clip_reference, text), ascii(text)


def test_batches_equal_transformers(clip, clip_reference):
    texts = ["", "a red seven", *HARD_TEXTS, "very " * 80 + "long"]
    expected = clip_reference(
        texts, padding="max_length", truncation=True, max_length=77, return_tensors="pt"
    )
    assert torch.equal(clip(texts), expected.input_ids)


def test_decoding_equals_transformers(clip, clip_reference):
    rng = random.Random(0)  # random ids are mostly half characters and broken UTF-8
    for _ in range(300):
        ids = [rng.randrange(len(clip)) for _ in range(rng.randint(0, 12))]
        assert clip.decode(ids) == clip_reference.decode(ids), ids


# Files


@pytest.mark.parametrize("num_merges", [None, 0, 20])
def test_transformers_reads_what_we_save(tmp_path, num_merges):
    transformers = pytest.importorskip("transformers")
    ours = Tokenizer.train(CAPTIONS, max_length=12, num_merges=num_merges)
    ours.save(tmp_path)
    files = {"merges.txt", "special_tokens_map.json", "tokenizer_config.json", "vocab.json"}
    assert {file.name for file in tmp_path.iterdir()} == files
    theirs = transformers.CLIPTokenizer.from_pretrained(tmp_path)
    assert len(theirs) == len(ours) and theirs.model_max_length == 12
    texts = [*CAPTIONS, *HARD_TEXTS, *random_texts(100)]
    for text in texts:
        assert ours.encode(text) == reference_ids(theirs, text), ascii(text)
    padded = theirs(texts, padding="max_length", truncation=True, return_tensors="pt")
    assert torch.equal(ours(texts), padded.input_ids)


def test_we_read_what_transformers_saves(tmp_path, small):
    transformers = pytest.importorskip("transformers")
    small.save(tmp_path / "ours")
    theirs = transformers.CLIPTokenizer.from_pretrained(tmp_path / "ours")
    theirs.save_pretrained(tmp_path / "theirs")
    again = Tokenizer.from_directory(tmp_path / "theirs")
    assert (again.vocab, again.merges, again.max_length) == (small.vocab, small.merges, 12)
    assert again.known_words == small.known_words  # carried along by transformers


@pytest.mark.parametrize("as_text", [True, False])
def test_tokenizer_json_alone(tmp_path, small, as_text):
    """transformers 5 writes only tokenizer.json; its merges may be "a b" or ["a", "b"]."""
    small.save(tmp_path)
    merges = [" ".join(pair) if as_text else list(pair) for pair in small.merges]
    model = {"type": "BPE", "vocab": small.vocab, "merges": merges}
    (tmp_path / "tokenizer.json").write_text(json.dumps({"model": model}), encoding="utf-8")
    (tmp_path / "vocab.json").unlink()
    (tmp_path / "merges.txt").unlink()
    again = Tokenizer.from_directory(tmp_path)
    assert (again.vocab, again.merges) == (small.vocab, small.merges)


def test_no_length_in_the_files_means_77(tmp_path, small):
    small.save(tmp_path)
    for config in ({}, {"model_max_length": 1000000000000000019884624838656}):
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
        assert Tokenizer.from_directory(tmp_path).max_length == 77


def test_an_incomplete_vocabulary_equals_transformers(tmp_path):
    """Tiny test models have a few letters only; what is missing becomes the end token."""
    transformers = pytest.importorskip("transformers")
    symbols = [*"lowe", "r</w>", "w</w>", "lo", "low</w>", "er</w>", START, END]
    vocab = {symbol: id for id, symbol in enumerate(symbols)}
    write_clip(tmp_path, vocab, ["l o", "lo w</w>", "e r</w>"])
    ours = Tokenizer.from_directory(tmp_path)
    theirs = transformers.CLIPTokenizer.from_pretrained(tmp_path)
    for text in ["lower low", "newer é", "slow low!"]:
        assert ours.encode(text) == reference_ids(theirs, text)
    assert ours.encode("low x") == [vocab["low</w>"], vocab[END]]


def test_round_trip_through_files(tmp_path, small):
    small.save(tmp_path)
    again = Tokenizer.from_directory(str(tmp_path))
    assert (again.vocab, again.merges, again.max_length) == (small.vocab, small.merges, 12)
    assert again.known_words == small.known_words and "seven" in again.known_words
    unnoted = Tokenizer(small.vocab, small.merges, 12)
    unnoted.save(tmp_path)
    assert Tokenizer.from_directory(tmp_path).known_words is None
    assert (tmp_path / "merges.txt").read_text(encoding="utf-8").startswith("#version: 0.2\n")


# Training


def test_the_example_of_the_paper():
    """Sennrich et al. 2016: low x5, lower x2, newest x6, widest x3. Worked out on paper:

    es 9 and st 9 tie, es sorts first; then est 9; lo 7; ew, ne and w+est tie at 6, ew sorts first.
    """
    texts = ["low"] * 5 + ["lower"] * 2 + ["newest"] * 6 + ["widest"] * 3
    tokenizer = Tokenizer.train(texts, max_length=8, num_merges=7)
    assert tokenizer.merges == [
        ("e", "s"),
        ("es", "t</w>"),
        ("l", "o"),
        ("e", "w"),
        ("ew", "est</w>"),
        ("n", "ewest</w>"),
        ("lo", "w</w>"),
    ]
    cut = {word: apply_merges(word_symbols(word), tokenizer.ranks) for word in texts + ["lowest"]}
    assert cut == {
        "low": ["low</w>"],
        "lower": ["lo", "w", "e", "r</w>"],
        "newest": ["newest</w>"],
        "widest": ["w", "i", "d", "est</w>"],
        "lowest": ["lo", "w", "est</w>"],  # never seen, and yet cut where it makes sense
    }


def test_the_vocabulary_is_in_clips_order(small):
    symbols = sorted(small.vocab, key=small.vocab.__getitem__)
    assert list(small.vocab.values()) == list(range(len(small)))
    assert symbols[:3] == ["!", '"', "#"] and len({*symbols[:256]}) == 256
    assert symbols[256:512] == [symbol + "</w>" for symbol in symbols[:256]]
    assert symbols[512:-2] == [left + right for left, right in small.merges]
    assert symbols[-2:] == [START, END] == [symbols[small.start_id], symbols[small.end_id]]


def test_every_training_word_becomes_one_token(small):
    for caption in CAPTIONS:
        assert len(small.encode(caption)) == len(split_words(caption))
    assert small.known_words == {word for caption in CAPTIONS for word in split_words(caption)}
    assert len(small.encode("elephant")) > 1


def test_num_merges_and_determinism(small):
    for num_merges in (0, 1, 17):
        part = Tokenizer.train(CAPTIONS, 12, num_merges)
        assert part.merges == small.merges[:num_merges] and len(part) == 514 + num_merges
    assert Tokenizer.train(CAPTIONS, 12, 10_000).merges == small.merges  # no pairs left: stop
    shuffled = Tokenizer.train((text for text in reversed(CAPTIONS)), 12)
    assert (shuffled.merges, shuffled.vocab) == (small.merges, small.vocab)


def test_special_tokens_in_the_texts_are_not_learnt():
    tokenizer = Tokenizer.train([f"a{END}b{START}"], 8)
    assert tokenizer.known_words == {"a", "b"} and tokenizer.merges == []


# Using it


def test_decode_gives_the_text_back(small):
    assert small.decode(small.encode("  A  small RED\tseven ")) == "a small red seven"
    assert small.decode(small.encode("日本 🐘 Éa")) == "日本 🐘 éa"
    assert small.decode(torch.tensor(small.encode("a zebra"))) == "a zebra"
    assert small.decode([]) == ""
    assert small.decode(small("a seven")[0, :4]) == f"{START}a seven {END}"


def test_padding_and_cutting(small):
    ids = small(["a red seven", "a " * 50, ""])
    assert ids.shape == (3, 12) and ids.dtype == torch.long
    a, red, seven = small.encode("a red seven")
    assert ids[0].tolist() == [small.start_id, a, red, seven] + [small.end_id] * 8
    assert ids[1].tolist() == [small.start_id] + [a] * 10 + [small.end_id]
    assert ids[2].tolist() == [small.start_id] + [small.end_id] * 11
    assert torch.equal(small("a red seven"), ids[:1])
    assert small([]).shape == (0, 12)


def test_cut_names_what_does_not_fit(small):
    ten = "a small red seven at the top left in green"
    assert len(small.encode(ten)) == 10
    assert small.cut(ten) == "" and small.cut("") == ""
    assert small.cut(ten + " The CENTER!") == "the center !"
    assert small.cut(ten + END) == END


def test_unknown_words(small):
    text = "A red Elephant, and a blue zebra; zebra's 🐘 7 9 " + END
    assert small.unknown_words(text) == ["elephant", "and", "zebra", "'s", "🐘", "9"]
    assert small.unknown_words("a SMALL green seven?! (...)") == []
    assert Tokenizer(small.vocab, small.merges).unknown_words("elephant") == []


# Errors: one clear line


def test_bad_arguments(small):
    with pytest.raises(ValueError, match="no words"):
        Tokenizer.train([], 12)
    with pytest.raises(ValueError, match="num_merges must be 0 or more, not -1"):
        Tokenizer.train(CAPTIONS, 12, num_merges=-1)
    with pytest.raises(TypeError, match="not one string"):
        Tokenizer.train("a red seven", 12)
    with pytest.raises(TypeError, match="must be a string, not int"):
        small(["a", 7])
    with pytest.raises(ValueError, match="at least 2"):
        Tokenizer(small.vocab, small.merges, max_length=1)
    with pytest.raises(ValueError, match="must contain"):
        Tokenizer({"a": 0}, [])
    with pytest.raises(ValueError, match="'q x' does not belong"):
        Tokenizer(small.vocab, [("q", "x")])
    with pytest.raises(ValueError, match="no token has the id 99999"):
        small.decode([1, 99999])


@pytest.mark.parametrize("name", ["vocab.json", "merges.txt", "tokenizer_config.json"])
def test_a_missing_file_is_named(tmp_path, small, name):
    small.save(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(FileNotFoundError, match=name) as error:
        Tokenizer.from_directory(tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("vocab.json", b'{"a": 0, '),
        ("vocab.json", b"[]"),
        ("vocab.json", b'{"a": 0}'),
        ("merges.txt", b"#version: 0.2\na b c\n"),
        ("merges.txt", b"a\n"),
        ("merges.txt", b"\xff\xfe\n"),
        ("tokenizer_config.json", b""),
        ("tokenizer_config.json", b'{"model_max_length": "long"}'),
    ],
)
def test_a_damaged_file_is_an_error(tmp_path, small, name, content):
    small.save(tmp_path)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError) as error:
        Tokenizer.from_directory(tmp_path)
    assert str(tmp_path) in str(error.value) and "\n" not in str(error.value)


def test_a_damaged_tokenizer_json_is_an_error(tmp_path, small):
    small.save(tmp_path)
    (tmp_path / "tokenizer.json").write_text('{"model": {}}', encoding="utf-8")
    assert len(Tokenizer.from_directory(tmp_path)) == len(small)  # vocab.json comes first
    (tmp_path / "vocab.json").unlink()
    with pytest.raises(ValueError, match="does not hold a sound CLIP tokenizer"):
        Tokenizer.from_directory(tmp_path)
