"""Two small digits in one picture: `a red three left of a blue seven`.

A combination is five indices: first digit, first colour, relation, second digit, second colour.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from .captions import COLOURS, COMPLETE, DIGITS, NUMERAL, every_digit
from .dataset import World
from .scenes import RGB, SHIFT, SIZE, STRETCH, TURN, handwriting, transform

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

    At least the share `complete` of the captions names both colours. Digits and relation are always
    named. The generator is a CPU one.
    """
    chance = torch.rand(len(attributes), 5, generator=generator)
    mentioned = torch.ones(len(attributes), 5, dtype=torch.bool)
    mentioned[:, [1, 4]] = (chance[:, :2] < KEEP_COLOUR) | (chance[:, 2:3] < complete)
    phrasing = (chance[:, 3] * len(PHRASINGS)).long().tolist()
    numeral = (chance[:, 4] < NUMERAL).tolist()
    rows = zip(attributes.tolist(), mentioned.tolist(), phrasing, numeral, strict=True)
    return [say(a, m, PHRASINGS[i], n) for a, m, i, n in rows], mentioned


class TwoDigits(World):
    """A combination is five indices, in the order of ATTRIBUTES."""

    name = "two"
    effort = 3
    attributes, values = ATTRIBUTES, VALUES
    say = staticmethod(say)
    write_captions = staticmethod(write_captions)

    def canonical(self, attributes: Tensor) -> Tensor:
        """The same picture described from left to right or from top to bottom."""
        first, relation, second = attributes.split([2, 1, 2], dim=-1)
        reversed = torch.cat([second, relation - 1, first], dim=-1)
        return torch.where(relation % 2 == 1, reversed, attributes)

    def confusable(self, attributes: Tensor) -> Tensor:
        """Every first digit, every second digit, every arrangement: (B, 5) -> (B, 28, 5).

        The eight arrangements exchange the digits or not, exchange the colours or not, and lie
        beside one another or not. A model that need not tell these apart learns which words a
        caption has but not how they belong together: Yuksekgonul et al. 2023, "When and why
        vision-language models behave like bags-of-words, and what to do about it?"
        """
        digits = [every_digit(attributes, column) for column in (0, 3)]  # (B, 10, 5) each
        ways = torch.stack([attributes, attributes[:, [3, 1, 2, 0, 4]]], dim=1)  # digits exchanged
        ways = torch.cat([ways, ways[..., [0, 4, 2, 3, 1]]], dim=1)  # colours exchanged
        upright = ways.clone()  # (B, 4, 5)
        upright[..., 2] = (ways[..., 2] + 2) % 4  # above instead of left of, and so on
        return torch.cat([*digits, ways, upright], dim=1)

    def render(
        self, attributes: Tensor, split: str, generator: torch.Generator | None = None
    ) -> Tensor:
        """Attributes (B, 5) -> pictures (B, 3, 32, 32) in [-1, 1], on the attributes' device."""
        device = attributes.device
        chance = torch.rand(len(attributes), 2, 5, generator=generator).to(device)
        side = OFFSET * torch.tensor(SIDE, device=device)[attributes[:, 2]]  # (B, 2)
        light = torch.zeros(len(attributes), 3, 1, 1, device=device)
        for i, centre in enumerate((side, -side)):
            digit, colour = attributes[:, 3 * i], attributes[:, 3 * i + 1]
            jitter = 2 * chance[:, i, 1:] - 1  # (B, 4) in [-1, 1]
            glyphs = handwriting(digit, chance[:, i, 0], split)  # (B, 28, 28)
            scale, angle = SCALE * (1 + STRETCH * jitter[:, 0]), TURN * jitter[:, 1]
            centre = centre + SHIFT * jitter[:, 2:]  # (B, 2)
            grey = transform(glyphs, scale, angle, centre, self.supersample)  # (B, 1, 32, 32)
            rgb = torch.tensor(RGB, device=device)[colour][:, :, None, None]
            light = torch.maximum(light, grey * rgb)
        return 2 * light - 1

    def read(self, judge, images: Tensor) -> Tensor:
        """Read from left to right or from top to bottom: the relation is 0 (left of) or 2 (above).

        It is -1 where one half shows nothing. Each half is moved to the middle of a black picture,
        which the judge reads like a picture of one digit.
        """
        ink = (images.float().clamp(-1, 1) + 1).amax(dim=1)  # (B, H, W)
        across, down = (variance_along(ink.sum(dim=d)) for d in (1, 2))  # (B,)
        stacked = (down > across)[:, None, None, None]  # one above the other
        answers = []
        for half in torch.where(stacked, images.mT, images).split(SIZE // 2, dim=-1):
            half = F.pad(half, (SIZE // 4, SIZE // 4), value=-1.0)
            answers.append(judge(torch.where(stacked, half.mT, half)))  # (B, 4)
        first, second = answers
        relation = torch.where(down > across, 2, 0).to(first.device)
        shown = (first[:, 2] >= 0) & (second[:, 2] >= 0)  # a blank picture has no size
        relation = torch.where(shown, relation, -1)[:, None]
        return torch.cat([first[:, :2], relation, second[:, :2]], dim=1)

    def extra_rates(self, answers: Tensor, truth: Tensor) -> dict[str, Tensor]:
        """Binding: has each digit its own colour, wherever it is? Relation: are they where asked?

        The relation is right if the digits lie along the right line, and what is seen fits the
        places asked for better than it fits them exchanged: the digits count, and where they do not
        decide, the colours.
        """
        things, asked = (x[:, [0, 1, 3, 4]] for x in (answers, truth))
        exchanged = asked.roll(2, dims=1)
        bound = (things == asked).all(dim=1) | (things == exchanged).all(dim=1)
        weight = torch.tensor([3, 1, 3, 1])  # of digit, colour, digit, colour
        fit, misfit = (((things == x) * weight).sum(dim=1) for x in (asked, exchanged))
        order = (fit > misfit) | (asked == exchanged).all(dim=1)  # two of a kind have no order
        return {"binding": bound, "relation": (answers[:, 2] == truth[:, 2]) & order}


def variance_along(ink: Tensor) -> Tensor:
    """The variance of where the light lies along a line: (B, N) -> (B,) in pixels^2."""
    x = torch.arange(ink.shape[1], device=ink.device, dtype=ink.dtype)
    share = ink / ink.sum(dim=1, keepdim=True).clamp(min=1e-6)
    mean = (share * x).sum(dim=1, keepdim=True)
    return (share * (x - mean).square()).sum(dim=1)


TWO = TwoDigits()
