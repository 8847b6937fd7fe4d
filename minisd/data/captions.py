"""Attributes <-> words: what one picture of one digit can show, and how a caption says it.

A combination is four indices (digit, colour, size, position) into the lists below.
"""

import torch
from torch import Tensor

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
COLOURS = ("red", "orange", "yellow", "green", "cyan", "blue", "purple", "white")
SIZES = ("small", "large")
POSITIONS = ("top left", "top right", "bottom left", "bottom right", "center")

ATTRIBUTES = ("digit", "colour", "size", "position")
VALUES = (DIGITS, COLOURS, SIZES, POSITIONS)

PHRASINGS = (
    "{a} {thing} {place}",
    "the {thing} {place}",
    "{thing} {place}",
    "a picture of {a} {thing} {place}",
    "{place}, {a} {thing}",
    "{place} there is {a} {thing}",
)
NUMERAL = 0.2  # share of captions that write the digit as a numeral
COMPLETE = 0.5  # share of captions that are made to name all four attributes
KEEP = (0.9, 0.6, 0.6, 0.6)  # the others: how often they name digit, colour, size, position


def say(combination, mentioned=(True,) * 4, phrasing=PHRASINGS[0], numeral=False) -> str:
    """The caption of one combination, e.g. `a large red seven at the top left`.

    `combination` holds the four indices; `mentioned` says which of them the caption names.
    """
    digit, colour, size, position = combination
    number = str(digit) if numeral else DIGITS[digit]
    words = (
        SIZES[size] if mentioned[2] else "",
        COLOURS[colour] if mentioned[1] else "",
        number if mentioned[0] else "digit",
    )
    thing = " ".join(filter(None, words))
    preposition = "in" if POSITIONS[position] == "center" else "at"
    place = f"{preposition} the {POSITIONS[position]}" if mentioned[3] else ""
    a = "an" if thing.startswith(("orange", "eight", "8")) else "a"
    return " ".join(phrasing.format(a=a, thing=thing, place=place).split()).lstrip(", ")


def every_digit(attributes: Tensor, column: int = 0) -> Tensor:
    """Each combination with every digit in that column: (B, A) -> (B, 10, A)."""
    groups = attributes[:, None].repeat(1, len(DIGITS), 1)
    groups[..., column] = torch.arange(len(DIGITS))
    return groups


def write_captions(
    attributes: Tensor, generator: torch.Generator | None = None, complete: float = COMPLETE
) -> tuple[list[str], Tensor]:
    """One caption for each combination, its phrasing drawn at random.

    attributes (B, 4) -> (list of B strings, mentioned (B, 4) bool: which attributes each caption
    names). At least the share `complete` of them names all four. The generator is a CPU one.
    """
    chance = torch.rand(len(attributes), 7, generator=generator)
    mentioned = (chance[:, :4] < torch.tensor(KEEP)) | (chance[:, 4:5] < complete)
    phrasing = (chance[:, 5] * len(PHRASINGS)).long().tolist()
    numeral = (chance[:, 6] < NUMERAL).tolist()
    rows = zip(attributes.tolist(), mentioned.tolist(), phrasing, numeral, strict=True)
    return [say(a, m, PHRASINGS[i], n) for a, m, i, n in rows], mentioned
