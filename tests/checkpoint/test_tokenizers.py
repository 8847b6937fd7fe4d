"""The tokenizer's files: transformers reads ours, and we read transformers'."""

import json
import re

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


# Special tokens and options: transformers' ids, or refused


def added(token, normalized=True, **fields):
    """A special token as transformers serialises it."""
    sides = {"lstrip": False, "rstrip": False, "single_word": False, **fields}
    return {"content": token, "normalized": normalized, **sides}


def typed(*arguments, **fields):
    return {"__type": "AddedToken", **added(*arguments, **fields)}


TEXTS = [*HARD_TEXTS, "very " * 80, "a red!? <|STARTOFTEXT|>seven<|ENDOFTEXT|> !!! <cat> <Cat> RED"]
IGNORED = (
    "do_lower_case add_prefix_space errors clean_up_tokenization_spaces add_bos_token add_eos_token"
    " tokenizer_class name_or_path processor_class trim_offsets tokenizer_file known_tokens"
)
NONE_OR_ENDS = ([None, START, END, typed(START), typed(END), typed(END, False)], ["a", "[SEP]", 7])

# A key of tokenizer_config.json -> values that are taken, values that are refused.
CHANGES = {
    "bos_token": ([START, typed(START), typed(START, False)], [END, "a", "[BOS]", "", None, 7]),
    "eos_token": ([END, typed(END), typed(END, False)], [START, "a", "[EOS]", None, ["a"]]),
    "unk_token": ([END, typed(END), typed(END, False)], [START, "a", "[UNK]", None]),
    "pad_token": ([END, START, "!", typed("!"), typed(END)], ["a", "red", "[PAD]", "", None, 0]),
    "sep_token": NONE_OR_ENDS,
    "cls_token": NONE_OR_ENDS,
    "mask_token": NONE_OR_ENDS,
    "image_token": ([None, 7], ["a", "<image>", typed("<image>")]),
    "additional_special_tokens": ([None, []], [["<cat>"], ["red"], [START], {"x_token": "red"}]),
    "extra_special_tokens": ([None, [], {}], [["<cat>"], ["red"], {"x_token": "red"}, "red"]),
    "model_specific_special_tokens": ([None, {}], [{"x_token": "red"}]),
    "added_tokens_decoder": (
        [{}, {"7": added(START)}, {"7": added(END, special=True), "9": added(START, False)}],
        [{"600": added("<cat>")}, {"0": added("!")}, {"9": added(END, rstrip=True)}, [], None],
    ),
    "padding_side": (["right"], ["left", "up", None]),
    "truncation_side": (["right"], ["left", "up", None]),
    "split_special_tokens": ([False], [True, "yes"]),
    "model_max_length": ([2, 3, 30], [0, 1, -1, "77", 77.5, True, [77], float("nan")]),
    "max_len": ([7], []),  # model_max_length counts first
    "init_inputs": ([[]], [["x"]]),
    "vocab": ([None], ["x", {}]),
    "merges": ([None], ["x", []]),
    "fast_tokenizer_files": ([], [["tokenizer.4.0.json"]]),
    **{key: ([True, False, None], []) for key in IGNORED.split()},
}


@pytest.fixture
def folder(tmp_path, small):
    """A tokenizer as transformers 4 wrote it, with room for 30 tokens."""
    write_clip(tmp_path, small.vocab, [" ".join(pair) for pair in small.merges])
    rewrite(tmp_path / "tokenizer_config.json", model_max_length=30)
    return tmp_path


def rewrite(path, **changes):
    content = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    path.write_text(json.dumps({**content, **changes}), encoding="utf-8")


def assert_equal_to_transformers(folder, length=30):
    """The same ids, padded and cut as diffusers asks for it; also of what we write."""
    transformers = pytest.importorskip("transformers")
    ours = load_tokenizer(folder)
    assert ours.max_length == length
    save_tokenizer(folder / "ours", ours)
    for path in (folder, folder / "ours"):
        theirs = transformers.CLIPTokenizer.from_pretrained(path)
        ids = theirs(TEXTS, padding="max_length", truncation=True, max_length=length).input_ids
        assert ours(TEXTS).tolist() == load_tokenizer(path)(TEXTS).tolist() == ids


@pytest.mark.parametrize("key", CHANGES)
def test_every_key_gives_the_ids_of_transformers_or_is_refused(folder, key):
    taken, refused = CHANGES[key]
    config = (folder / "tokenizer_config.json").read_text(encoding="utf-8")
    for value in taken:
        rewrite(folder / "tokenizer_config.json", **{key: value})
        assert_equal_to_transformers(folder, value if key == "model_max_length" else 30)
    for value in refused:
        (folder / "tokenizer_config.json").write_text(config, encoding="utf-8")
        rewrite(folder / "tokenizer_config.json", **{key: value})
        with pytest.raises(InputError) as error:
            load_tokenizer(folder)
        message = str(error.value).removeprefix(f"{folder} does not hold a sound CLIP tokenizer: ")
        assert len(message) < 130 and "\n" not in message and "object" not in message, message
        if key != "added_tokens_decoder":
            assert re.search(f"tokenizer_config.json: {key} (is|must be) ", message), message


STABLE_DIFFUSION_1 = {"bos_token": added(START), "eos_token": added(END), "pad_token": END}
STABLE_DIFFUSION_2 = {"bos_token": added(START), "eos_token": added(END), "pad_token": "!"}
MIXED = {
    "eos_token": END,
    "unk_token": added(END),
    "sep_token": added(END, False),
    "pad_token": END,
}


@pytest.mark.parametrize("special", [STABLE_DIFFUSION_1, STABLE_DIFFUSION_2, MIXED])
def test_special_tokens_map_counts_unless_the_newer_key_is_there(folder, special):
    transformers = pytest.importorskip("transformers")
    rewrite(folder / "special_tokens_map.json", **special)
    assert_equal_to_transformers(folder)
    transformers.CLIPTokenizer.from_pretrained(folder).save_pretrained(folder / "five")
    assert_equal_to_transformers(folder / "five")  # tokenizer.json
    rewrite(folder / "special_tokens_map.json", pad_token="[PAD]")
    message = r"special_tokens_map.json: pad_token is '\[PAD\]'; minisd supports '<.endoftext.>' or"
    with pytest.raises(InputError, match=message):
        load_tokenizer(folder)
    rewrite(folder / "tokenizer_config.json", added_tokens_decoder={"7": added(END, False)})
    assert_equal_to_transformers(folder)  # the map is not read


def test_stable_diffusion_2_pads_with_an_exclamation_mark(folder, small):
    rewrite(folder / "special_tokens_map.json", **STABLE_DIFFUSION_2)
    start, end, a = small.start_id, small.end_id, small.vocab["a</w>"]
    ids = load_tokenizer(folder)("a! <|STARTOFTEXT|>")[0].tolist()
    assert ids == [start, a, 0, start, end] + [0] * 25
    assert small("a! <|STARTOFTEXT|>")[0, 2:4].tolist() == [small.vocab["!</w>"], small.vocab["<"]]


def test_without_a_configuration_there_are_the_defaults_of_transformers(folder):
    (folder / "tokenizer_config.json").unlink()
    assert_equal_to_transformers(folder, 77)


def test_an_unstated_length_is_never_more_than_that_of_transformers(folder):
    (folder / "tokenizer_config.json").unlink()
    lengths = [load_tokenizer(folder, unstated).max_length for unstated in (16, 77, 128)]
    assert lengths == [16, 77, 77]


def test_windows_line_ends_and_no_unicode_line_ends_in_the_merges(folder):
    before = load_tokenizer(folder)
    text = (folder / "merges.txt").read_bytes()
    (folder / "merges.txt").write_bytes(text.replace(b"\n", b"\r\n"))
    assert load_tokenizer(folder).merges == before.merges
    assert_equal_to_transformers(folder)


def test_tokens_added_by_textual_inversion_are_refused(folder):
    transformers = pytest.importorskip("transformers")
    rewrite(folder / "added_tokens.json", **{"<cat>": 561})
    message = "added_tokens.json adds the token '<cat>'; minisd supports none"
    with pytest.raises(InputError, match=message):
        load_tokenizer(folder)
    transformers.CLIPTokenizer.from_pretrained(folder).save_pretrained(folder / "five")
    with pytest.raises(
        InputError, match="tokenizer.json adds the token '<cat>'; minisd supports <"
    ):
        load_tokenizer(folder / "five")


def test_what_tokenizer_json_says_besides(folder):
    """transformers 5 makes normaliser and cutting anew, but keeps the sides of padding."""
    transformers = pytest.importorskip("transformers")
    transformers.CLIPTokenizer.from_pretrained(folder).save_pretrained(folder / "five")
    path = folder / "five" / "tokenizer.json"
    rewrite(path, normalizer={"type": "Lowercase"}, pre_tokenizer={"type": "Whitespace"})
    assert_equal_to_transformers(folder / "five")
    for part, fields in (
        ("padding", {"strategy": "BatchLongest", "pad_id": 7, "pad_type_id": 0, "pad_token": "!"}),
        ("truncation", {"strategy": "LongestFirst", "max_length": 9, "stride": 0}),
    ):
        rewrite(path, padding=None, truncation=None)
        rewrite(path, **{part: {"direction": "Right", "pad_to_multiple_of": None, **fields}})
        assert_equal_to_transformers(folder / "five")
        rewrite(path, **{part: {"direction": "Left", **fields}})
        with pytest.raises(InputError, match=f"tokenizer.json: {part}_side is 'left'"):
            load_tokenizer(folder / "five")


@pytest.mark.parametrize("id", [1, 561, -1, 0.0, True, None, "0", 2**40])
def test_ids_are_a_row_without_gaps(folder, id):
    rewrite(folder / "vocab.json", **{"!": id})
    with pytest.raises(InputError, match="ids of the vocabulary must be 0, 1, 2, ..., each once"):
        load_tokenizer(folder)


# Errors: one clear line


@pytest.mark.parametrize("name", ["vocab.json", "merges.txt"])
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
        ("vocab.json", b"\xef\xbb\xbf{}"),
        ("merges.txt", b"#version: 0.2\na b c\n"),
        ("merges.txt", b"a\n"),
        ("merges.txt", b"# a comment\n"),
        ("merges.txt", b"\xef\xbb\xbf#version: 0.2\n"),
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
    message = "does not hold a sound CLIP tokenizer: it lacks 'merges'"
    with pytest.raises(InputError, match=message):  # it counts before vocab.json
        load_tokenizer(tmp_path)
    save_tokenizer(tmp_path, small)  # and is gone when another tokenizer takes its place
    assert len(load_tokenizer(tmp_path)) == len(small)
