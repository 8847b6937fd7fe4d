"""CLIP's tokenizer by hand: text in, token ids out. "a red seven" -> (1, L) long.

A network reads numbers, so text is cut into pieces from a fixed list. Whole words would make the
list endless; single letters would make the pieces meaningless. Byte-pair encoding starts from
letters and joins, again and again, the two neighbours that are seen together most often: a frequent
word ends as one piece, a rare one as a few.

Sources: Sennrich, Haddow and Birch 2016 (byte-pair encoding of words); Radford et al. 2019, GPT-2
(bytes in place of letters: no text is unknown); Radford et al. 2021, CLIP (lower case, and "</w>"
at the end of a word). Ids equal those of `transformers.CLIPTokenizer`. The two can differ only on
characters so recent that their Unicode tables disagree: letters of the last few years, and stacked
combining marks of 2017 and later.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable
from functools import lru_cache
from itertools import pairwise

import regex
import torch

from .errors import InputError, check_number, quote
from .text import utf8

MAX_LENGTH = 77  # CLIP's context: the most tokens in a text, start and end included
Pair = tuple[str, str]  # two symbols, side by side
START, END, END_OF_WORD = "<|startoftext|>", "<|endoftext|>", "</w>"
SPECIAL = r"<\|startoftext\|>|<\|endoftext\|>"
WORD = r"'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+"  # last: punctuation, emoji, ...
CHUNKS, WORDS = regex.compile(f"{SPECIAL}|{WORD}"), regex.compile(WORD)


def find(*tokens: str) -> regex.Pattern:
    """A pattern at which a text is split into these tokens and what is between them."""
    return regex.compile(f"({'|'.join(map(regex.escape, tokens)) or '(?!)'})")


SPECIALS = find(START, END), find()  # as the user writes them; in any case, after normalising


def byte_symbols() -> dict[int, str]:
    """One visible character for each byte 0..255, in the order of CLIP's vocabulary (GPT-2, 2019).

    A printable byte stands for itself; spaces and control codes borrow characters from 256 on, so
    that every symbol is visible and a line of merges.txt can be split at its space.
    """
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return {b: chr(b) for b in printable} | {b: chr(256 + i) for i, b in enumerate(others)}


BYTE_TO_SYMBOL = byte_symbols()
SYMBOL_TO_BYTE = {symbol: byte for byte, symbol in BYTE_TO_SYMBOL.items()}


def split_words(text: str, specials=SPECIALS) -> list[str]:
    """Normalise `text` and cut it into words, digits, runs of punctuation and special tokens.

    Merges never cross a word boundary. Raises TypeError if `text` is not a string, InputError if
    it is not Unicode (half a character).
    """
    if not isinstance(text, str):
        raise TypeError(f"a text must be a string, not {type(text).__name__}")
    return list(split_once(text, *specials))


@lru_cache(maxsize=50_000)  # captions recur in training
def split_once(text: str, exact: regex.Pattern, folded: regex.Pattern) -> tuple[str, ...]:
    """split_words, cached."""
    words: list[str] = []
    for part in exact.split(utf8(text)):
        special = exact.fullmatch(part)  # "<|ENDOFTEXT|>" is not, but `folded` may find it below
        for piece in [part] if special else folded.split(normalise(part)):
            if special or folded.fullmatch(piece):
                words.append(piece)
                continue
            for chunk in CHUNKS.findall(piece):  # "<|endoftext|>" is one chunk here,
                words += WORDS.findall(chunk)  # and three words here, as in transformers
    return tuple(words)


def normalise(text: str) -> str:
    """Composed characters in lower case."""
    text = unicodedata.normalize("NFC", text)  # e and an accent become one character
    return "".join(map(str.lower, text))  # each alone: a final sigma would differ


def word_symbols(word: str) -> list[str]:
    """The bytes of one word as symbols, the last one marked: "cat" -> ["c", "a", "t</w>"]."""
    symbols = [BYTE_TO_SYMBOL[byte] for byte in word.encode("utf-8")]
    return [*symbols[:-1], symbols[-1] + END_OF_WORD]


def join_pair(symbols: list[str], pair: Pair) -> list[str]:
    """One merge: join every occurrence of `pair`, from left to right."""
    joined: list[str] = []
    for symbol in symbols:
        if joined and (joined[-1], symbol) == pair:
            joined[-1] += symbol
        else:
            joined.append(symbol)
    return joined


def apply_merges(symbols: list[str], ranks: dict[Pair, int]) -> list[str]:
    """Join pairs, the earliest learnt (lowest rank) first, until no learnt pair is left."""
    while pairs := [pair for pair in pairwise(symbols) if pair in ranks]:
        symbols = join_pair(symbols, min(pairs, key=ranks.__getitem__))
    return symbols


def count_pairs(pairs: Counter[Pair], symbols: list[str], times: int) -> None:
    """Add `times` to the count of every pair of neighbours in `symbols`."""
    for pair in pairwise(symbols):
        pairs[pair] += times


def learn_merges(counts: dict[str, int], num_merges: int | None) -> list[Pair]:
    """Byte-pair encoding (Sennrich et al., Algorithm 1): word counts -> merges, in order.

    Each round joins the most frequent pair of neighbours; among equals, the pair that sorts first
    by code point, so that the order of the texts does not matter.
    """
    words = {word: word_symbols(word) for word in counts}
    pairs: Counter[Pair] = Counter()
    for word, symbols in words.items():
        count_pairs(pairs, symbols, counts[word])
    merges: list[Pair] = []
    while pairs and (num_merges is None or len(merges) < num_merges):
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        for word, symbols in words.items():
            if best in pairwise(symbols):  # only these words and their pairs change
                count_pairs(pairs, symbols, -counts[word])
                words[word] = join_pair(symbols, best)
                count_pairs(pairs, words[word], counts[word])
        pairs = +pairs  # drops the pairs whose count is zero
    return merges


class Tokenizer:
    """Byte-pair encoding as in CLIP. Called on B texts it gives (B, L) ids, L = `max_length`.

    vocab: symbol -> id, from 0 on. merges: pairs of symbols, in the order learnt. known_words: the
    words seen in training, None if they are not known. pad: the token that fills up a row, special
    like start and end. folded: special tokens that are found in capitals too. Raises InputError if
    these do not fit together.
    """

    def __init__(
        self,
        vocab: dict[str, int],
        merges: list[Pair],
        max_length: int = MAX_LENGTH,
        known_words: Iterable[str] | None = None,
        pad: str = END,
        folded: Iterable[str] = (),
    ):
        if missing := [token for token in (START, END, pad) if token not in vocab]:
            raise InputError(f"the vocabulary must contain {missing[0]}")
        ids = vocab.values()
        if any(type(id) is not int for id in ids) or sorted(ids) != list(range(len(ids))):
            raise InputError("the ids of the vocabulary must be 0, 1, 2, ..., each once")
        check_number("max_length", max_length, 2, whole=True)  # start and end
        for pair in merges:
            if len(pair) != 2 or not {*pair, "".join(pair)} <= vocab.keys():
                found = quote(" ".join(pair))
                raise InputError(f"the merge {found} does not belong to this vocabulary")
        self.vocab, self.merges, self.max_length = vocab, merges, max_length
        self.known_words = None if known_words is None else frozenset(known_words)
        self.start_id, self.end_id = vocab[START], vocab[END]
        self.pad, self.folded = pad, frozenset(folded)
        self.specials = find(*{START, END, pad} - self.folded), find(*self.folded)
        self.ranks = {pair: rank for rank, pair in enumerate(merges)}
        self.symbols = {id: symbol for symbol, id in vocab.items()}
        self._ids = {special: [vocab[special]] for special in (START, END, pad)}

    @classmethod
    def train(
        cls, texts: Iterable[str], max_length: int | None = None, num_merges: int | None = None
    ) -> Tokenizer:
        """Learn merges from `texts`; with `num_merges` None, until every word is a single token.

        max_length None: what the longest of `texts` needs, start and end included, at most 77.
        Ids are in CLIP's order: 256 bytes, 256 bytes that end a word, the merges, start, end.
        Raises InputError if there are no words or `num_merges` is negative.
        """
        if isinstance(texts, str):
            raise TypeError("texts must be a list of strings, not one string")
        if num_merges is not None:
            check_number("num_merges", num_merges, 0, whole=True)
        texts = list(texts)
        counts = Counter(word for text in texts for word in split_words(text))
        del counts[START], counts[END]
        if not counts:
            raise InputError("there are no words to train on")
        merges = learn_merges(counts, num_merges)
        single = list(BYTE_TO_SYMBOL.values())
        ends = [symbol + END_OF_WORD for symbol in single]
        symbols = [*single, *ends, *map("".join, merges), START, END]
        vocab = {symbol: id for id, symbol in enumerate(symbols)}
        tokenizer = cls(vocab, merges, MAX_LENGTH if max_length is None else max_length, counts)
        if max_length is None:
            longest = max(len(tokenizer.encode(text)) for text in texts)
            tokenizer.max_length = min(longest + 2, MAX_LENGTH)
        return tokenizer

    def __len__(self) -> int:
        return len(self.vocab)

    def encode(self, text: str) -> list[int]:
        """The ids of `text`, however many, without start and end around them."""
        ids: list[int] = []
        for word in split_words(text, self.specials):
            if word not in self._ids:  # kept: words recur
                symbols = apply_merges(word_symbols(word), self.ranks)
                self._ids[word] = [self.vocab.get(symbol, self.end_id) for symbol in symbols]
            ids += self._ids[word]
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        """Ids (a list or a 1-D tensor) -> text: lower case, words separated, special tokens shown.

        Bytes that are not UTF-8 (half a character) become U+FFFD. InputError for an unknown id.
        """
        ids = [int(id) for id in ids]
        if unknown := [id for id in ids if id not in self.symbols]:
            raise InputError(f"no token has the id {unknown[0]}; the vocabulary has {len(self)}")
        symbols = "".join(self.symbols[id] for id in ids)
        text = bytes(SYMBOL_TO_BYTE[symbol] for symbol in symbols).decode("utf-8", "replace")
        return text.replace(END_OF_WORD, " ").strip()

    def __call__(self, texts: str | list[str]) -> torch.LongTensor:
        """B texts -> (B, L) ids: start, tokens, end, padded. Longer texts are cut off."""
        texts = [texts] if isinstance(texts, str) else texts
        room, pad_id = self.max_length - 2, self.vocab[self.pad]
        rows = [[self.start_id, *self.encode(text)[:room], self.end_id] for text in texts]
        padded = [row + [pad_id] * (self.max_length - len(row)) for row in rows]
        return torch.tensor(padded, dtype=torch.long).view(-1, self.max_length)  # (B, L)

    def cut(self, text: str) -> str:
        """The tail of `text` that `__call__` cuts off, decoded; "" if all of it fits."""
        return self.decode(self.encode(text)[self.max_length - 2 :])

    def unknown_words(self, text: str) -> list[str]:
        """Words of `text` not in known_words, in order, each once. [] if known_words is None.

        A word has letters, digits or pictograms (emoji) in it; punctuation does not count.
        """
        if self.known_words is None:
            return []
        known = self.known_words | {START, END}
        new = dict.fromkeys(word for word in split_words(text) if word not in known)
        return [word for word in new if regex.search(r"[\p{L}\p{N}\p{So}]", word)]
