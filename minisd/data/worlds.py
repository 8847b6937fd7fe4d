"""A world: what can be in a picture, how it is said, how it is drawn; and batches of it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from . import captions, scenes, two

POOL = 20_480  # pictures that a U-Net learns from, times the effort
POOL_BATCH = 512  # of which so many are rendered at once


@dataclass
class Batch:
    """Captioned pictures."""

    images: Tensor  # (B, 3, 32, 32) in [-1, 1]
    attributes: Tensor  # (B, A) long, in the order of the world's attributes
    captions: list[str]
    mentioned: Tensor  # (B, A) bool: which attributes the caption names


@dataclass(frozen=True)
class World:
    """A combination is one index for each of A attributes."""

    name: str
    attributes: tuple[str, ...]  # their names
    values: tuple[tuple[str, ...], ...]  # and what each can be
    say: Callable[..., str]
    write_captions: Callable[..., tuple[list[str], Tensor]]
    render: Callable[..., Tensor]
    near: Callable[[Tensor], Tensor]  # (B, A) -> (B, k, A): what is hardest to tell from each
    canonical: Callable[[Tensor], Tensor] = lambda attributes: attributes  # what a reader answers
    effort: int = 1  # how many times as long training takes, from as many times the pictures

    @property
    def pool_size(self) -> int:
        """How many pictures a U-Net learns from."""
        return self.effort * POOL

    def is_held_out(self, attributes: Tensor) -> Tensor:
        """(..., A) indices -> (...) bool: never rendered in training. A fifth of all combinations.

        What shows the same picture, said in another way, is held out with it.
        """
        return self.canonical(attributes).sum(dim=-1) % 5 == 0

    def all_combinations(self) -> Tensor:
        """Every combination, in order: (800, 4) long in the world of one digit."""
        return torch.cartesian_prod(*(torch.arange(len(v)) for v in self.values))

    def seen_combinations(self) -> Tensor:
        """The combinations that training draws from: (640, 4) long in the world of one digit."""
        every = self.all_combinations()
        return every[~self.is_held_out(every)]

    def held_out_combinations(self) -> Tensor:
        """The combinations that training never draws: (160, 4) long in the world of one digit."""
        every = self.all_combinations()
        return every[self.is_held_out(every)]

    def draw_batch(
        self,
        size: int,
        split: str = "train",
        generator: torch.Generator | None = None,
        device: str | torch.device = "cpu",
        attributes: Tensor | None = None,
        complete: float = captions.COMPLETE,
    ) -> Batch:
        """Draw captioned pictures.

        size: how many; split: "train" (training digits, seen combinations only) or "test" (test
        digits, all combinations); generator: a CPU generator that decides everything; attributes
        (B, A): render just these instead of drawing combinations; complete: at least this share of
        the captions, on average, name all attributes. Raises ValueError for an unknown split or a
        wrong size.
        """
        if size < 1:
            raise ValueError(f"a batch holds at least one picture, not {size}")
        if attributes is None:
            choices = self.seen_combinations() if split == "train" else self.all_combinations()
            attributes = choices[torch.randint(len(choices), (size,), generator=generator)]
        if len(attributes) != size:
            raise ValueError(f"{len(attributes)} combinations do not fit a batch of {size}")
        texts, mentioned = self.write_captions(attributes, generator, complete)
        seed = torch.randint(2**62, (), generator=generator).item()
        images = self.render(attributes.to(device), split, torch.Generator().manual_seed(seed))
        return Batch(images, attributes.to(device), texts, mentioned.to(device))

    def draw_pool(
        self, count: int | None = None, seed: int = 0, device: str | torch.device = "cpu"
    ) -> Iterator[Batch]:
        """The pictures that a U-Net learns from, or the first whole batches that hold `count`."""
        generator = torch.Generator().manual_seed(seed)
        for _ in range(0, count or self.pool_size, POOL_BATCH):
            yield self.draw_batch(POOL_BATCH, "train", generator, device)


ONE = World(
    "one digit",
    captions.ATTRIBUTES,
    captions.VALUES,
    captions.say,
    captions.write_captions,
    scenes.render,
    captions.every_digit,
)
TWO = World(
    "two digits",
    two.ATTRIBUTES,
    two.VALUES,
    two.say,
    two.write_captions,
    two.render,
    two.near,
    two.canonical,
    effort=3,
)
WORLDS = {"one": ONE, "two": TWO}
