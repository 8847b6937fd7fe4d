"""The harder world: two small digits in one picture, `a red three left of a blue seven`.

A combination is five indices: first digit, first colour, relation, second digit, second colour.
"""

import torch
from torch import Tensor

from .captions import COLOURS, COMPLETE, DIGITS, NUMERAL, every_digit
from .scenes import RGB, SHIFT, STRETCH, TURN, handwriting, place

RELATIONS = ("left of", "right of", "above", "below")

ATTRIBUTES = ("first digit", "first colour", "relation", "second digit", "second colour")
VALUES = (DIGITS, COLOURS, RELATIONS, DIGITS, COLOURS)

PHRASINGS = (
    "{first} {relation} {second}",
    "a picture of {first} {relation} {second}",
    "there is {first} {relation} {second}",
)
KEEP_COLOUR = 0.6  # how often a caption that may leave things out names a colour
SCALE = 0.55  # picture pixels per pixel of the handwriting
OFFSET = 7.5  # pixels from the picture's centre to that of a digit
SIDE = ((-1.0, 0.0), (1.0, 0.0), (0.0, -1.0), (0.0, 1.0))  # of the first digit (x, y), as RELATIONS


def thing(digit: int, colour: int, coloured: bool, numeral: bool) -> str:
    """`a red three`, `an eight`, `a blue 7`."""
    number = str(digit) if numeral else DIGITS[digit]
    words = f"{COLOURS[colour]} {number}" if coloured else number
    return f"an {words}" if words.startswith(("orange", "eight", "8")) else f"a {words}"


def say(combination, mentioned=(True,) * 5, phrasing=PHRASINGS[0], numeral=False) -> str:
    """The caption of one combination, e.g. `a red three left of a blue seven`."""
    first, first_colour, relation, second, second_colour = combination
    return phrasing.format(
        first=thing(first, first_colour, mentioned[1], numeral),
        relation=RELATIONS[relation],
        second=thing(second, second_colour, mentioned[4], numeral),
    )


def write_captions(
    attributes: Tensor, generator: torch.Generator | None = None, complete: float = COMPLETE
) -> tuple[list[str], Tensor]:
    """One caption for each combination: (B, 5) -> (B strings, mentioned (B, 5) bool).

    At least a share `complete` of the captions names both colours; digits and relation are always
    named. The generator is a CPU one.
    """
    chance = torch.rand(len(attributes), 5, generator=generator)
    mentioned = torch.ones(len(attributes), 5, dtype=torch.bool)
    mentioned[:, [1, 4]] = (chance[:, :2] < KEEP_COLOUR) | (chance[:, 2:3] < complete)
    phrasing = (chance[:, 3] * len(PHRASINGS)).long().tolist()
    numeral = (chance[:, 4] < NUMERAL).tolist()
    rows = zip(attributes.tolist(), mentioned.tolist(), phrasing, numeral, strict=True)
    return [say(a, m, PHRASINGS[i], n) for a, m, i, n in rows], mentioned


def canonical(attributes: Tensor) -> Tensor:
    """The same pictures, said from left to right or from above: (..., 5) -> (..., 5)."""
    first, relation, second = attributes.split([2, 1, 2], dim=-1)
    turned = torch.cat([second, relation - 1, first], dim=-1)
    return torch.where(relation % 2 == 1, turned, attributes)


def near(attributes: Tensor) -> Tensor:
    """What is hardest to tell from each: (B, 5) -> (B, 28, 5).

    Every first digit, every second digit; and, digits or colours exchanged or not, beside one
    another or not, the eight ways to arrange the same four. Who need not tell these apart learns
    which words a caption has and not how they belong together: Yuksekgonul et al. 2023, "When and
    why vision-language models behave like bags-of-words, and what to do about it?"
    """
    digits = [every_digit(attributes, column) for column in (0, 3)]  # (B, 10, 5) each
    ways = torch.stack([attributes, attributes[:, [3, 1, 2, 0, 4]]], dim=1)  # digits exchanged
    ways = torch.cat([ways, ways[..., [0, 4, 2, 3, 1]]], dim=1)  # colours exchanged
    upright = ways.clone()  # (B, 4, 5), as ways
    upright[..., 2] = (ways[..., 2] + 2) % 4  # above instead of left of, and so on
    return torch.cat([*digits, ways, upright], dim=1)


def render(attributes: Tensor, split: str = "train", generator=None) -> Tensor:
    """Attributes (B, 5) -> pictures (B, 3, 32, 32) in [-1, 1], on the attributes' device.

    The generator is a CPU one.
    """
    device = attributes.device
    chance = torch.rand(len(attributes), 2, 5, generator=generator).to(device)
    side = OFFSET * torch.tensor(SIDE, device=device)[attributes[:, 2]]  # (B, 2)
    light = torch.zeros(len(attributes), 3, 1, 1, device=device)
    for i, centre in enumerate((side, -side)):
        digit, colour = attributes[:, 3 * i], attributes[:, 3 * i + 1]
        spread = 2 * chance[:, i, 1:] - 1  # (B, 4) in [-1, 1]
        glyphs = handwriting(digit, chance[:, i, 0], split)  # (B, 28, 28)
        scale, angle = SCALE * (1 + STRETCH * spread[:, 0]), TURN * spread[:, 1]
        grey = place(glyphs, scale, angle, centre + SHIFT * spread[:, 2:])  # (B, 1, 32, 32)
        rgb = torch.tensor(RGB, device=device)[colour][:, :, None, None]
        light = torch.maximum(light, grey * rgb)
    return 2 * light - 1
