"""One digit in a picture: `a large red seven at the top left`."""

import torch
from torch import Tensor

from . import captions, scenes
from .dataset import World


class OneDigit(World):
    """A combination is four indices: digit, colour, size, position."""

    name = "one"
    attributes, values = captions.ATTRIBUTES, captions.VALUES
    say = staticmethod(captions.say)
    write_captions = staticmethod(captions.write_captions)

    def render(
        self, attributes: Tensor, split: str, generator: torch.Generator | None = None
    ) -> Tensor:
        return scenes.render(attributes, split, generator, self.supersample)

    def confusable(self, attributes: Tensor) -> Tensor:
        """Every digit, all else equal: (B, 4) -> (B, 10, 4)."""
        return captions.every_digit(attributes)

    def read(self, judge, images: Tensor) -> Tensor:
        return judge(images)


ONE = OneDigit()
