"""What training and evaluation need of data: two abstract classes.

A Dataset holds captioned pictures. A World renders them from attributes, so that one can ask
whether a picture shows what its caption says, and hold combinations back from training.

Each `generator` is a torch.Generator on the CPU, or None; each `split` is "train" or "test".
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from ..errors import InputError
from .scenes import SIZE, draw_digit

POOL_BATCH = 512  # pictures of the pool that are made at once
NUMERAL = 0.2  # share of a world's captions that write the digits as numerals
COMPLETE = 0.5  # share of a world's captions that must name all attributes


@dataclass
class Batch:
    """Captioned pictures, and what they show: A attributes, of which the captions name some."""

    images: Tensor  # (B, 3, S, S) in [-1, 1]
    captions: list[str]
    attributes: Tensor  # (B, A) long, in the order of the world's; elsewhere the caption's number
    mentioned: Tensor  # (B, A) bool: which attributes the caption names


def fits(shown: Tensor, said: Tensor, mentioned: Tensor) -> Tensor:
    """Which captions are true of which pictures: (pictures, captions) bool.

    A caption is true of every picture that has the attributes it mentions. shown (pictures, A);
    said and mentioned (captions, A).
    """
    same = shown[:, None] == said[None]  # (pictures, captions, A)
    return (same | ~mentioned[None]).all(dim=-1)


class Dataset(ABC):
    """Captioned pictures to train on and to test with."""

    name: str
    image_size: int  # S: pixels along each side of a picture
    pool_size: int  # how many pictures the U-Net is trained on
    effort: int = 1  # how many times the usual number of training steps it needs
    context_length: int | None = None  # in tokens; None: what the longest caption needs
    num_merges: int | None = None  # of the tokenizer; None: until every word is a single token

    @property
    def about(self) -> dict:
        """What a checkpoint keeps of the dataset: the name by which to load it, and more."""
        return {"name": self.name}

    @property
    def identity(self) -> dict:
        """`about` without the name, if other things tell whether it is the same dataset."""
        about = self.about
        return {key: about[key] for key in about if key != "name" or len(about) == 1}

    @abstractmethod
    def texts(self) -> list[str]:
        """The captions that the tokenizer is trained on."""

    @abstractmethod
    def batch(self, size: int, split="train", generator=None, device="cpu") -> Batch:
        """`size` captioned pictures, drawn at random. InputError for an unknown split."""

    def contrastive_batch(self, size: int, generator: torch.Generator, device="cpu") -> Batch:
        """A training batch for CLIP, which learns most from pictures that are easily confused."""
        return self.batch(size, "train", generator, device)

    @abstractmethod
    def pool(self, seed: int = 0, device="cpu") -> Iterator[Batch]:
        """The pictures that the U-Net is trained on, in batches of POOL_BATCH."""

    @abstractmethod
    def gallery(self, count: int, generator: torch.Generator) -> list[str]:
        """`count` captions that show what a trained model can do."""

    @abstractmethod
    def describe(self) -> list[str]:
        """What there is to train on, as lines for the user."""

    @abstractmethod
    def test_groups(self, count: int, seed: int) -> dict[str, tuple[Batch, Batch]]:
        """What a model is asked to draw: {group: (captions with their pictures, more pictures)}.

        About `count` captions, half of them like those of training ("seen"), half not ("held_out").
        The second batch of each pair shows how far apart two sets of real pictures are.
        """


class World(Dataset):
    """Handwritten digits with A attributes. A combination is one index for each of them.

    A fifth of all combinations is held out: never rendered in training.
    """

    image_size = SIZE
    context_length = 16  # the longest caption of ours has 13 tokens, start and end included
    attributes: tuple[str, ...]  # their names
    values: tuple[tuple[str, ...], ...]  # the words for each of their values
    phrasings: tuple[str, ...]  # templates of captions
    keep: tuple[float, ...]  # chances that a caption which may be incomplete names each attribute
    incomplete: tuple[tuple[bool, ...], ...] = ()  # what the kinds name that evaluation draws

    def __init__(self, pool_size: int = 20_480):
        self.pool_size = self.effort * pool_size

    @abstractmethod
    def say(self, combination, mentioned=..., phrasing=..., numeral=False) -> str:
        """The caption of a combination (A indices), of which it names those `mentioned` (all)."""

    @abstractmethod
    def layout(self, attributes: Tensor) -> list[tuple]:
        """For each digit of a picture: its index (B,), colour (B,), scale (B,), centre (B, 2)."""

    @abstractmethod
    def confusable(self, attributes: Tensor) -> Tensor:
        """The k combinations that are hardest to tell from each: (B, A) -> (B, k, A)."""

    @abstractmethod
    def read(self, judge, images: Tensor) -> Tensor:
        """What a judge sees in pictures (B, 3, S, S): canonical combinations (B, A), -1 unclear."""

    def canonical(self, attributes: Tensor) -> Tensor:
        """One of the combinations that show the same picture: (..., A) -> (..., A)."""
        return attributes

    def extra_rates(self, answers: Tensor, truth: Tensor) -> dict[str, Tensor]:
        """What else can be right, beside each attribute: (B, A) twice -> {name: (B,) bool}."""
        return {}

    def is_held_out(self, attributes: Tensor) -> Tensor:
        """(..., A) indices -> (...) bool. Descriptions of one picture are held out together."""
        return self.canonical(attributes).sum(dim=-1) % 5 == 0

    def all_combinations(self) -> Tensor:
        """Every combination, in order: (800, 4) long in the world of one digit."""
        return torch.cartesian_prod(*(torch.arange(len(v)) for v in self.values))

    def seen_combinations(self) -> Tensor:
        """The combinations of the training pictures: (640, 4) long in the world of one digit."""
        combinations = self.all_combinations()
        return combinations[~self.is_held_out(combinations)]

    def held_out_combinations(self) -> Tensor:
        """The combinations that training never shows: (160, 4) long in the world of one digit."""
        combinations = self.all_combinations()
        return combinations[self.is_held_out(combinations)]

    def every_value(self, attributes: Tensor, column: int) -> Tensor:
        """Each combination with every value in that column: (B, A) -> (B, values, A)."""
        values = torch.arange(len(self.values[column]))
        groups = attributes[:, None].repeat(1, len(values), 1)
        groups[..., column] = values
        return groups

    def write_captions(
        self, attributes: Tensor, generator=None, complete: float = COMPLETE
    ) -> tuple[list[str], Tensor]:
        """A caption for each combination, its phrasing drawn at random.

        attributes (B, A) -> (B captions, mentioned (B, A) bool: which attributes each names). On
        average at least the share `complete` of the captions name all.
        """
        optional = [i for i, share in enumerate(self.keep) if share < 1]
        keep = torch.tensor(self.keep)[optional]
        chance = torch.rand(len(attributes), len(optional) + 3, generator=generator)
        mentioned = torch.ones(attributes.shape, dtype=torch.bool)
        mentioned[:, optional] = (chance[:, :-3] < keep) | (chance[:, -3:-2] < complete)
        phrasing = (chance[:, -2] * len(self.phrasings)).long().tolist()
        numeral = (chance[:, -1] < NUMERAL).tolist()
        rows = zip(attributes.tolist(), mentioned.tolist(), phrasing, numeral, strict=True)
        return [self.say(a, m, self.phrasings[i], n) for a, m, i, n in rows], mentioned

    def render(self, attributes: Tensor, split="train", generator=None, size=SIZE) -> Tensor:
        """(B, A) -> pictures (B, 3, size, size) in [-1, 1], the same ones on every device."""
        digits, light = self.layout(attributes), torch.zeros((), device=attributes.device)
        chance = torch.rand(len(attributes), len(digits), 5, generator=generator)
        for digit, decisions in zip(digits, chance.to(light.device).unbind(dim=1)):
            light = torch.maximum(light, draw_digit(*digit, decisions, split, size))
        return 2 * light - 1

    def texts(self) -> list[str]:
        """6,400 or more, so that every combination, word and phrasing occurs."""
        combinations = self.all_combinations()
        repeated = combinations.repeat(-(-6400 // len(combinations)), 1)
        return self.write_captions(repeated, torch.Generator().manual_seed(0))[0]

    def batch(
        self, size, split="train", generator=None, device="cpu", attributes=None, complete=COMPLETE
    ) -> Batch:
        """`size` captioned pictures; the generator decides everything.

        split: "train" (training digits, seen combinations only) or "test" (test digits, all
        combinations); attributes (B, A): render these instead; complete: as for `write_captions`.
        InputError for an unknown split or a wrong size.
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

    def contrastive_batch(self, size: int, generator: torch.Generator, device="cpu") -> Batch:
        """With hard negatives: wrong captions that are nearly right."""
        return self.batch(size, "train", generator, device, self.hard_negatives(size, generator))

    def hard_negatives(self, size: int, generator: torch.Generator) -> Tensor:
        """Combinations (size, A), three quarters of them in groups that are hard to tell apart.

        CLIP learns the digit last, and of two digits also their arrangement. The pictures of a
        group differ in nothing else, so CLIP cannot tell them apart without it. The rest are drawn
        at random and teach all other attributes.
        """
        seen = self.seen_combinations()
        drawn = seen[torch.randint(len(seen), (size,), generator=generator)]
        groups = self.confusable(drawn)  # (size, k, A)
        count = size * 15 // (16 * groups.shape[1])  # more than 3/4, as a fifth will be held out
        hard = groups[:count][~self.is_held_out(groups[:count])]
        return torch.cat([hard, drawn[len(hard) :]])

    def pool(self, seed: int = 0, device="cpu") -> Iterator[Batch]:
        generator = torch.Generator().manual_seed(seed)
        for _ in range(0, self.pool_size, POOL_BATCH):
            yield self.batch(POOL_BATCH, "train", generator, device)

    def gallery(self, count: int, generator: torch.Generator) -> list[str]:
        """Full captions of seen combinations."""
        seen = self.seen_combinations()
        chosen = seen[torch.randperm(len(seen), generator=generator)[:count].sort().values]
        return [self.say(combination) for combination in chosen.tolist()]

    def describe(self) -> list[str]:
        held_out, total = len(self.held_out_combinations()), len(self.all_combinations())
        names = f"{self.image_size} pixels, {', '.join(self.attributes)}"
        return [f"rendered digits, {names}: {total:,} combinations, {held_out:,} of them held out"]

    def test_groups(self, count: int, seed: int) -> dict[str, tuple[Batch, Batch]]:
        """Full captions of seen and of held-out combinations, each rendered twice."""
        groups = {"seen": self.seen_combinations(), "held_out": self.held_out_combinations()}
        for i, (name, combinations) in enumerate(groups.items()):
            generator = torch.Generator().manual_seed(seed + i)
            wanted = {"attributes": cycle(combinations, count // 2, seed + i), "complete": 1.0}
            draw = partial(self.batch, count // 2, "test", generator, **wanted)
            groups[name] = draw(), draw()
        return groups


def cycle(combinations: Tensor, count: int, seed: int) -> Tensor:
    """`count` combinations in random order, all about equally often: (count, A)."""
    order = torch.randperm(len(combinations), generator=torch.Generator().manual_seed(seed))
    return combinations[order].repeat(-(-count // len(combinations)), 1)[:count]


def article(words: str) -> str:
    return "an" if words.startswith(("orange", "eight", "8")) else "a"
