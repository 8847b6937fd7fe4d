"""The tokenizer: ids equal to those of transformers.CLIPTokenizer, and right by hand."""

import gzip
import importlib.util
import random
import time
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from minisd.checkpoint import load_tokenizer
from minisd.errors import InputError
from minisd.tokenizer import (
    END,
    START,
    Tokenizer,
    apply_merges,
    learn_merges,
    split_words,
    word_symbols,
)
from tests.texts import CAPTIONS, HARD_TEXTS, random_texts, reference_ids, write_clip


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
    return load_tokenizer(clip_folder)


@pytest.fixture(scope="module")
def clip_reference(clip_folder):
    transformers = pytest.importorskip("transformers")
    return transformers.CLIPTokenizer.from_pretrained(clip_folder)


@pytest.fixture(scope="module")
def small() -> Tokenizer:
    return Tokenizer.train(CAPTIONS, max_length=12)


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


def merges_counted_anew(counts, num_merges):
    """Byte-pair encoding, straightforward: count all pairs and cut all words in every round."""
    words = {word: word_symbols(word) for word in counts}
    ranks = {}
    while num_merges is None or len(ranks) < num_merges:
        pairs = Counter()
        for word, symbols in words.items():
            for pair in pairwise(symbols):
                pairs[pair] += counts[word]
        if not pairs:
            break
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        ranks[best] = len(ranks)
        words = {word: apply_merges(symbols, ranks) for word, symbols in words.items()}
    return list(ranks)


@pytest.mark.parametrize("letters", ["a", "ab", "abc", "abcdefgh", "aé🐘<>/w"])
def test_merges_are_those_of_counting_anew(letters):
    """Few letters and low counts: many ties, and symbols that overlap ("aaaa")."""
    rng = random.Random(letters)
    for _ in range(40):
        words = [
            "".join(rng.choices(letters, k=rng.randint(1, 12))) for _ in range(rng.randint(1, 40))
        ]
        num_merges = rng.choice([None, 0, 1, 5, 30])
        expected = merges_counted_anew(Counter(words), num_merges)
        assert learn_merges(Counter(words), num_merges) == expected


def test_thousands_of_free_captions_take_seconds():
    rng = random.Random(0)
    syllables = [a + b for a in "bcdfgklmnprst" for b in ("a", "en", "ir", "o", "us")]
    words = ["".join(rng.choices(syllables, k=rng.randint(2, 4))) for _ in range(3000)]
    captions = [" ".join(rng.choices(words, k=12)) for _ in range(4000)]
    began = time.process_time()
    tokenizer = Tokenizer.train(captions, num_merges=1000)
    assert time.process_time() - began < 20
    assert len(tokenizer.merges) == 1000


def test_no_max_length_is_what_the_longest_text_needs(small):
    assert small.max_length == 12
    fitted = Tokenizer.train(text for text in CAPTIONS)
    assert fitted.merges == small.merges
    longest = max(len(fitted.encode(text)) for text in CAPTIONS)
    assert longest == 10 and fitted.max_length == 12  # with start and end
    assert all(fitted.cut(text) == "" for text in CAPTIONS)
    letters = Tokenizer.train([f"seven {END}", "red"], num_merges=0)
    assert letters.max_length == 8  # five letters and a token that the text itself names
    assert Tokenizer.train(["very " * 80 + "long"]).max_length == 77


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


def test_hostile_texts(clip, clip_reference):
    long = "the red cat! " * 7_700  # 100,100 characters
    for text in (long, "a\0b\0", "\u202e\u2066abc\u2069", "e" + "\u0301" * 300, "日本" * 2_000):
        assert clip.encode(text) == reference_ids(clip_reference, text), text[:20]
    assert clip(long).shape == (1, 77) and clip.cut(long).startswith("! the red cat")


def test_utf_8_that_python_took_for_something_else_is_put_right(small):
    """What the arguments of a command are where the locale is not UTF-8."""
    disguised = "caf\xe9 \U0001f418".encode().decode("ascii", "surrogateescape")
    assert small.encode(disguised) == small.encode("caf\xe9 \U0001f418")
    assert small.unknown_words(disguised) == ["caf\xe9", "\U0001f418"]
    for text in ("caf\udce9", "\ud83d", "\udc18\ud83d", "x" * 20_000 + "\udfff"):
        with pytest.raises(InputError, match="is not UTF-8") as error:
            small(text)
        assert len(str(error.value)) < 230 and str(error.value).isascii()


# Errors: one clear line


def test_bad_arguments(small):
    with pytest.raises(InputError, match="no words"):
        Tokenizer.train([], 12)
    with pytest.raises(InputError, match="num_merges must be a whole number of at least 0, not -1"):
        Tokenizer.train(CAPTIONS, 12, num_merges=-1)
    with pytest.raises(TypeError, match="not one string"):
        Tokenizer.train("a red seven", 12)
    with pytest.raises(TypeError, match="must be a string, not int"):
        small(["a", 7])
    with pytest.raises(InputError, match="at least 2"):
        Tokenizer(small.vocab, small.merges, max_length=1)
    with pytest.raises(InputError, match="must contain"):
        Tokenizer({"a": 0}, [])
    with pytest.raises(InputError, match="'q x' does not belong"):
        Tokenizer(small.vocab, [("q", "x")])
    with pytest.raises(InputError, match="no token has the id 99999"):
        small.decode([1, 99999])
