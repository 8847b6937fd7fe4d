"""What training and evaluation ask of data: two contracts.

A Dataset holds captioned pictures. A World is a dataset whose pictures are described by attributes,
so that one can ask whether a picture shows them, and hold combinations back from training.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import InputError
from .captions import COMPLETE

POOL_BATCH = 512  # pictures of the pool that are made at once
SPLITS = ("train", "test")


@dataclass
class Batch:
    """Captioned pictures. Only those of a World have attributes."""

    images: Tensor  # (B, 3, S, S) in [-1, 1]
    captions: list[str]
    attributes: Tensor | None = None  # (B, A) long, in the order of the world's attributes
    mentioned: Tensor | None = None  # (B, A) bool: which attributes the caption names


class Dataset(ABC):
    """Captioned pictures to train on and to test with. The generators are CPU ones."""

    name: str
    image_size: int  # S: pixels along each side of a picture
    pool_size: int  # how many pictures the U-Net is trained on
    effort: int = 1  # how many times the usual number of training steps it needs
    context_length: int | None = None  # in tokens; None: what the longest caption needs
    num_merges: int | None = None  # of the tokenizer; None: until every word is a single token

    @property
    def about(self) -> dict:
        """What identifies this dataset, as JSON holds it. A checkpoint keeps it."""
        return {"name": self.name}

    def matches(self, about: dict) -> bool:
        """Whether `about`, which a checkpoint has kept, describes this dataset."""
        return about == self.about

    @abstractmethod
    def texts(self) -> list[str]:
        """The captions that the tokenizer is trained on."""

    @abstractmethod
    def batch(
        self,
        size: int,
        split: str = "train",
        generator: torch.Generator | None = None,
        device: str | torch.device = "cpu",
    ) -> Batch:
        """`size` captioned pictures, drawn at random. split: "train" or "test"."""

    def contrastive_batch(
        self, size: int, generator: torch.Generator, device: str | torch.device = "cpu"
    ) -> Batch:
        """A training batch for CLIP, which learns most from pictures that are easily confused."""
        return self.batch(size, "train", generator, device)

    @abstractmethod
    def fits(self, batch: Batch) -> Tensor:
        """(B, B) bool: entry [i, j] says whether caption j is true of picture i."""

    @abstractmethod
    def pool(
        self, seed: int = 0, device: str | torch.device = "cpu", count: int | None = None
    ) -> Iterator[Batch]:
        """The pictures that the U-Net is trained on, or whole batches of at least `count`."""

    @abstractmethod
    def gallery(self, count: int, generator: torch.Generator) -> list[str]:
        """`count` captions that show what a trained model can do."""

    @abstractmethod
    def describe(self) -> list[str]:
        """What there is to train on, a line for each thing worth knowing."""

    @abstractmethod
    def test_groups(self, count: int, seed: int) -> dict[str, tuple[Batch, Batch]]:
        """What a model is asked to draw: {group: (captions with their pictures, more pictures)}.

        About `count` captions in all, half of them like those of training ("seen"), half of them
        not ("held_out"). The second batch of each pair shows how far apart two sets of real
        pictures are.
        """


class World(Dataset):
    """Pictures with A attributes. A combination is one index for each of them.

    A fifth of all combinations is held out: never rendered in training.
    """

    image_size = 32
    context_length = 16  # the longest caption of ours has 13 tokens, start and end included
    attributes: tuple[str, ...]  # their names
    values: tuple[tuple[str, ...], ...]  # the words for each of their values

    def __init__(self, pool_size: int = 20_480, supersample: int = 2):
        """supersample: render at so many times the resolution, then average: no jagged edges."""
        self.pool_size = self.effort * pool_size
        self.supersample = supersample

    @abstractmethod
    def say(self, combination) -> str:
        """The caption that names all attributes of a combination (A indices)."""

    @abstractmethod
    def write_captions(
        self,
        attributes: Tensor,
        generator: torch.Generator | None = None,
        complete: float = COMPLETE,
    ) -> tuple[list[str], Tensor]:
        """(B, A) -> (B captions, mentioned (B, A) bool).

        At least the share `complete` of the captions, on average, names all attributes.
        """

    @abstractmethod
    def render(
        self, attributes: Tensor, split: str, generator: torch.Generator | None = None
    ) -> Tensor:
        """(B, A) -> pictures (B, 3, S, S) in [-1, 1] on the attributes' device."""

    @abstractmethod
    def confusable(self, attributes: Tensor) -> Tensor:
        """What is hardest to tell from each combination: (B, A) -> (B, k, A)."""

    @abstractmethod
    def read(self, judge, images: Tensor) -> Tensor:
        """What a judge sees in pictures (B, 3, S, S): canonical combinations (B, A), -1 unclear."""

    def canonical(self, attributes: Tensor) -> Tensor:
        """One of the combinations that show the same picture: (..., A) -> (..., A)."""
        return attributes

    def extra_rates(self, answers: Tensor, truth: Tensor) -> dict[str, Tensor]:
        """What else can be right, beyond each attribute: (B, A) twice -> {name: (B,) bool}."""
        return {}

    def is_held_out(self, attributes: Tensor) -> Tensor:
        """(..., A) indices -> (...) bool. Combinations of one picture are held out together."""
        return self.canonical(attributes).sum(dim=-1) % 5 == 0

    def all_combinations(self) -> Tensor:
        """Every combination, in order: (800, 4) long in the world of one digit."""
        return torch.cartesian_prod(*(torch.arange(len(v)) for v in self.values))

    def seen_combinations(self) -> Tensor:
        """The combinations of the training pictures: (640, 4) long in the world of one digit."""
        every = self.all_combinations()
        return every[~self.is_held_out(every)]

    def held_out_combinations(self) -> Tensor:
        """The combinations that training never shows: (160, 4) long in the world of one digit."""
        every = self.all_combinations()
        return every[self.is_held_out(every)]

    def texts(self) -> list[str]:
        """Every combination several times, so that every word and phrasing occurs."""
        every = self.all_combinations()
        repeated = every.repeat(-(-6400 // len(every)), 1)
        return self.write_captions(repeated, torch.Generator().manual_seed(0))[0]

    def batch(
        self,
        size: int,
        split: str = "train",
        generator: torch.Generator | None = None,
        device: str | torch.device = "cpu",
        attributes: Tensor | None = None,
        complete: float = COMPLETE,
    ) -> Batch:
        """Draw `size` captioned pictures.

        split: "train" (training digits, seen combinations only) or "test" (test digits, all
        combinations); generator: a CPU generator that decides everything; attributes (B, A): render
        these instead of drawing combinations; complete: as for `write_captions`. Raises InputError
        for an unknown split or a wrong size.
        """
        if size < 1:
            raise InputError(f"a batch holds at least one picture, not {size}")
        if attributes is None:
            choices = self.seen_combinations() if split == "train" else self.all_combinations()
            attributes = choices[torch.randint(len(choices), (size,), generator=generator)]
        if len(attributes) != size:
            raise InputError(f"{len(attributes)} combinations do not fit a batch of {size}")
        captions, mentioned = self.write_captions(attributes, generator, complete)
        seed = torch.randint(2**62, (), generator=generator).item()
        images = self.render(attributes.to(device), split, torch.Generator().manual_seed(seed))
        return Batch(images, captions, attributes.to(device), mentioned.to(device))

    def contrastive_batch(
        self, size: int, generator: torch.Generator, device: str | torch.device = "cpu"
    ) -> Batch:
        """A training batch with hard negatives, wrong captions that are nearly right."""
        attributes = self.hard_negatives(size, generator)
        return self.batch(size, "train", generator, device, attributes)

    def hard_negatives(self, size: int, generator: torch.Generator) -> Tensor:
        """Combinations (size, A), three quarters of them in groups that are hard to tell apart.

        The digit, and of two digits their arrangement, is what CLIP learns last: where nothing else
        tells the pictures of a group apart, it has to look at it. The rest is drawn at random and
        teaches everything else.
        """
        seen = self.seen_combinations()
        drawn = seen[torch.randint(len(seen), (size,), generator=generator)]
        groups = self.confusable(drawn)  # (size, k, A)
        count = size * 15 // (16 * groups.shape[1])  # groups, as a fifth of each will be held out
        hard = groups[:count][~self.is_held_out(groups[:count])]
        return torch.cat([hard, drawn[len(hard) :]])

    def fits(self, batch: Batch) -> Tensor:
        """A caption is true of every picture that has the attributes it mentions."""
        same = batch.attributes[:, None] == batch.attributes[None]  # (pictures, captions, A)
        return (same | ~batch.mentioned[None]).all(dim=-1)

    def pool(
        self, seed: int = 0, device: str | torch.device = "cpu", count: int | None = None
    ) -> Iterator[Batch]:
        """`pool_size` training pictures, or whole batches of at least `count`."""
        generator = torch.Generator().manual_seed(seed)
        for _ in range(0, count or self.pool_size, POOL_BATCH):
            yield self.batch(POOL_BATCH, "train", generator, device)

    def gallery(self, count: int, generator: torch.Generator) -> list[str]:
        """Full captions of seen combinations."""
        seen = self.seen_combinations()
        chosen = seen[torch.randperm(len(seen), generator=generator)[:count].sort().values]
        return [self.say(combination) for combination in chosen.tolist()]

    def describe(self) -> list[str]:
        seen, every = len(self.seen_combinations()), len(self.all_combinations())
        return [
            f"rendered digits, {self.image_size} pixels, {', '.join(self.attributes)}: "
            f"{every:,} combinations, {every - seen:,} of them held out"
        ]

    def test_groups(self, count: int, seed: int) -> dict[str, tuple[Batch, Batch]]:
        """Full captions of seen and of held-out combinations, each rendered twice."""
        groups = {"seen": self.seen_combinations(), "held_out": self.held_out_combinations()}
        return {
            name: self.test_pair(cycle(combinations, count // 2, seed + i), seed + i)
            for i, (name, combinations) in enumerate(groups.items())
        }

    def test_pair(self, wanted: Tensor, seed: int) -> tuple[Batch, Batch]:
        """Full captions and pictures of these combinations (B, A), twice, with test digits."""
        generator = torch.Generator().manual_seed(seed)
        first, second = (
            self.batch(len(wanted), "test", generator, attributes=wanted, complete=1.0)
            for _ in range(2)
        )
        return first, second


def cycle(combinations: Tensor, count: int, seed: int) -> Tensor:
    """`count` combinations in random order, all about equally often: (count, A)."""
    order = torch.randperm(len(combinations), generator=torch.Generator().manual_seed(seed))
    return combinations[order].repeat(-(-count // len(combinations)), 1)[:count]
