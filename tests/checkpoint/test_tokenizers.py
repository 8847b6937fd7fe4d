"""The tokenizer's files: transformers reads ours, and we read transformers'."""

import json

import pytest
import torch

from minisd.checkpoint import load_tokenizer, save_tokenizer
from minisd.errors import InputError
from minisd.tokenizer import END, START, Tokenizer
from tests.texts import CAPTIONS, HARD_TEXTS, random_texts, reference_ids, write_clip


@pytest.fixture(scope="module")
def small() -> Tokenizer:
    return Tokenizer.train(CAPTIONS, max_length=12)


@pytest.mark.parametrize("num_merges", [None, 0, 20])
def test_transformers_reads_what_we_save(tmp_path, num_merges):
    transformers = pytest.importorskip("transformers")
    ours = Tokenizer.train(CAPTIONS, max_length=12, num_merges=num_merges)
    save_tokenizer(tmp_path, ours)
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
    save_tokenizer(tmp_path / "ours", small)
    theirs = transformers.CLIPTokenizer.from_pretrained(tmp_path / "ours")
    theirs.save_pretrained(tmp_path / "theirs")
    again = load_tokenizer(tmp_path / "theirs")
    assert (again.vocab, again.merges, again.max_length) == (small.vocab, small.merges, 12)
    assert again.known_words == small.known_words  # carried along by transformers


@pytest.mark.parametrize("as_text", [True, False])
def test_tokenizer_json_alone(tmp_path, small, as_text):
    """transformers 5 writes only tokenizer.json; its merges may be "a b" or ["a", "b"]."""
    save_tokenizer(tmp_path, small)
    merges = [" ".join(pair) if as_text else list(pair) for pair in small.merges]
    model = {"type": "BPE", "vocab": small.vocab, "merges": merges}
    (tmp_path / "tokenizer.json").write_text(json.dumps({"model": model}), encoding="utf-8")
    (tmp_path / "vocab.json").unlink()
    (tmp_path / "merges.txt").unlink()
    again = load_tokenizer(tmp_path)
    assert (again.vocab, again.merges) == (small.vocab, small.merges)


def test_no_length_in_the_files_means_77(tmp_path, small):
    save_tokenizer(tmp_path, small)
    for config in ({}, {"model_max_length": 1000000000000000019884624838656}):
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
        assert load_tokenizer(tmp_path).max_length == 77


def test_an_incomplete_vocabulary_equals_transformers(tmp_path):
    """Tiny test models have a few letters only; what is missing becomes the end token."""
    transformers = pytest.importorskip("transformers")
    symbols = [*"lowe", "r</w>", "w</w>", "lo", "low</w>", "er</w>", START, END]
    vocab = {symbol: id for id, symbol in enumerate(symbols)}
    write_clip(tmp_path, vocab, ["l o", "lo w</w>", "e r</w>"])
    ours = load_tokenizer(tmp_path)
    theirs = transformers.CLIPTokenizer.from_pretrained(tmp_path)
    for text in ["lower low", "newer é", "slow low!"]:
        assert ours.encode(text) == reference_ids(theirs, text)
    assert ours.encode("low x") == [vocab["low</w>"], vocab[END]]


def test_round_trip_through_files(tmp_path, small):
    save_tokenizer(tmp_path, small)
    again = load_tokenizer(str(tmp_path))
    assert (again.vocab, again.merges, again.max_length) == (small.vocab, small.merges, 12)
    assert again.known_words == small.known_words and "seven" in again.known_words
    unnoted = Tokenizer(small.vocab, small.merges, 12)
    save_tokenizer(tmp_path, unnoted)
    assert load_tokenizer(tmp_path).known_words is None
    assert (tmp_path / "merges.txt").read_text(encoding="utf-8").startswith("#version: 0.2\n")


# Errors: one clear line


@pytest.mark.parametrize("name", ["vocab.json", "merges.txt", "tokenizer_config.json"])
def test_a_missing_file_is_named(tmp_path, small, name):
    save_tokenizer(tmp_path, small)
    (tmp_path / name).unlink()
    with pytest.raises(InputError, match=name) as error:
        load_tokenizer(tmp_path)
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
    save_tokenizer(tmp_path, small)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError) as error:
        load_tokenizer(tmp_path)
    assert str(tmp_path) in str(error.value) and "\n" not in str(error.value)


def test_a_damaged_tokenizer_json_is_an_error(tmp_path, small):
    save_tokenizer(tmp_path, small)
    (tmp_path / "tokenizer.json").write_text('{"model": {}}', encoding="utf-8")
    assert len(load_tokenizer(tmp_path)) == len(small)  # vocab.json comes first
    (tmp_path / "vocab.json").unlink()
    with pytest.raises(InputError, match="does not hold a sound CLIP tokenizer"):
        load_tokenizer(tmp_path)
