"""One digit in a picture: `a large red seven at the top left`."""

import torch
from torch import Tensor

from .dataset import World, article
from .digits import DIGITS
from .scenes import COLOURS

SCALE = (0.58, 0.86)  # small, large: picture pixels per pixel of the 28x28 handwriting
POSITIONS = {  # (x, y), seen from the picture's centre, in units of OFFSET
    "top left": (-1.0, -1.0),
    "top right": (1.0, -1.0),
    "bottom left": (-1.0, 1.0),
    "bottom right": (1.0, 1.0),
    "center": (0.0, 0.0),
}
CENTRE = tuple(POSITIONS.values())
OFFSET = (8.0, 5.0)  # how far the corners are from the centre for small and large digits, in pixels


class OneDigit(World):
    """A combination is four indices: digit, colour, size, position."""

    name = "one"
    attributes = ("digit", "colour", "size", "position")
    values = (DIGITS, tuple(COLOURS), ("small", "large"), tuple(POSITIONS))
    phrasings = (
        "{a} {thing} {place}",
        "the {thing} {place}",
        "{thing} {place}",
        "a picture of {a} {thing} {place}",
        "{place}, {a} {thing}",
        "{place} there is {a} {thing}",
    )
    keep = (0.9, 0.6, 0.6, 0.6)
    incomplete = (
        (True, False, False, False),  # a seven
        (True, True, False, False),  # a red seven
        (True, False, False, True),  # a seven at the top left
        (True, True, False, True),  # a red seven at the top left
        (False, False, False, False),  # the empty prompt
    )

    def say(self, combination, mentioned=(True,) * 4, phrasing=phrasings[0], numeral=False) -> str:
        """The caption of one combination, e.g. `a large red seven at the top left`."""
        digit, colour, size, position = (v[i] for v, i in zip(self.values, combination))
        number = str(combination[0]) if numeral else digit
        noun = number if mentioned[0] else "digit"
        adjectives = [word for word, i in ((size, 2), (colour, 1)) if mentioned[i]]
        thing = " ".join([*adjectives, noun])
        preposition = "in" if position == "center" else "at"
        place = f"{preposition} the {position}" if mentioned[3] else ""
        caption = phrasing.format(a=article(thing), thing=thing, place=place)
        return " ".join(caption.split()).lstrip(", ")

    def layout(self, attributes: Tensor) -> list[tuple]:
        digit, colour, size, position = attributes.unbind(dim=-1)
        scale, offset = (torch.tensor(x, device=size.device)[size] for x in (SCALE, OFFSET))
        centre = torch.tensor(CENTRE, device=size.device)[position] * offset[:, None]  # (B, 2)
        return [(digit, colour, scale, centre)]

    def confusable(self, attributes: Tensor) -> Tensor:
        """Every digit, all else equal: (B, 4) -> (B, 10, 4)."""
        return self.every_value(attributes, 0)

    def read(self, judge, images: Tensor) -> Tensor:
        return judge(images)


ONE = OneDigit()
