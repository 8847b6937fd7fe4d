"""Two small digits in one picture: `a red three left of a blue seven`."""

import torch
import torch.nn.functional as F
from torch import Tensor

from .dataset import World, article
from .digits import DIGITS
from .scenes import COLOURS, SIZE

RELATIONS = {  # where the first digit lies (x, y), in units of OFFSET; the second lies opposite
    "left of": (-1.0, 0.0),
    "right of": (1.0, 0.0),
    "above": (0.0, -1.0),
    "below": (0.0, 1.0),
}
OFFSET = 7.5  # pixels from the picture's centre to that of a digit
SCALE = 0.55  # picture pixels per pixel of the handwriting


class TwoDigits(World):
    """A combination is five indices, in the order of `attributes`."""

    name = "two"
    effort = 3
    attributes = ("first digit", "first colour", "relation", "second digit", "second colour")
    values = (DIGITS, tuple(COLOURS), tuple(RELATIONS), DIGITS, tuple(COLOURS))
    phrasings = (
        "{first} {relation} {second}",
        "a picture of {first} {relation} {second}",
        "there is {first} {relation} {second}",
    )
    keep = (1, 0.6, 1, 1, 0.6)

    def say(self, combination, mentioned=(True,) * 5, phrasing=phrasings[0], numeral=False) -> str:
        """The caption of one combination, e.g. `a red three left of a blue seven`."""
        words = [v[i] for v, i in zip(self.values, combination)]
        things = []
        for i in (0, 3):
            number = str(combination[i]) if numeral else words[i]
            thing = f"{words[i + 1]} {number}" if mentioned[i + 1] else number
            things.append(f"{article(thing)} {thing}")
        return phrasing.format(first=things[0], relation=words[2], second=things[1])

    def layout(self, attributes: Tensor) -> list[tuple]:
        first, first_colour, relation, second, second_colour = attributes.unbind(dim=-1)
        directions = torch.tensor(tuple(RELATIONS.values()), device=relation.device)  # (4, 2)
        centre = OFFSET * directions[relation]  # (B, 2)
        return [(first, first_colour, SCALE, centre), (second, second_colour, SCALE, -centre)]

    def canonical(self, attributes: Tensor) -> Tensor:
        """The same picture described from left to right or from top to bottom."""
        first, relation, second = attributes.split([2, 1, 2], dim=-1)
        exchanged = torch.cat([second, relation - 1, first], dim=-1)
        return torch.where(relation % 2 == 1, exchanged, attributes)

    def confusable(self, attributes: Tensor) -> Tensor:
        """Every first digit, every second digit, every arrangement: (B, 5) -> (B, 28, 5).

        The eight arrangements exchange the digits or not, exchange the colours or not, and lie
        beside one another or not. A model that need not tell these apart learns which words a
        caption has but not how they belong together: Yuksekgonul et al. 2023, "When and why
        vision-language models behave like bags-of-words, and what to do about it?"
        """
        digits = [self.every_value(attributes, column) for column in (0, 3)]  # (B, 10, 5) each
        ways = torch.stack([attributes, attributes[:, [3, 1, 2, 0, 4]]], dim=1)  # digits exchanged
        ways = torch.cat([ways, ways[..., [0, 4, 2, 3, 1]]], dim=1)  # colours exchanged: (B, 4, 5)
        turned = ways.clone()
        turned[..., 2] = (ways[..., 2] + 2) % 4  # above instead of left of, and so on
        return torch.cat([*digits, ways, turned], dim=1)

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
        """Binding: has each digit its own colour, wherever it is? Relation: are they in place?

        The relation is right if the digits lie along the right line and in the right order: the
        answers match the truth better than they match it with its digits exchanged. Colours decide
        only where the digits do not.
        """
        things, asked = (x[:, [0, 1, 3, 4]] for x in (answers, truth))
        exchanged = asked.roll(2, dims=1)
        bound = (things == asked).all(dim=1) | (things == exchanged).all(dim=1)
        weight = torch.tensor([3, 1, 3, 1])  # of digit, colour, digit, colour
        fit, misfit = (((things == x) * weight).sum(dim=1) for x in (asked, exchanged))
        order = (fit > misfit) | (asked == exchanged).all(dim=1)  # two of a kind have no order
        return {"binding": bound, "relation": (answers[:, 2] == truth[:, 2]) & order}


def variance_along(ink: Tensor) -> Tensor:
    """The variance of the light's position along a line of N pixels: (B, N) -> (B,)."""
    x = torch.arange(ink.shape[1], device=ink.device, dtype=ink.dtype)
    share = ink / ink.sum(dim=1, keepdim=True).clamp(min=1e-6)
    mean = (share * x).sum(dim=1, keepdim=True)
    return (share * (x - mean).square()).sum(dim=1)


TWO = TwoDigits()
