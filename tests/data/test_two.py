"""Two digits: captions say what is in the picture, and pictures show what the captions say."""

import pytest
import torch

from minisd.data import RGB, TWO
from tests.helpers import read_two

say = TWO.say


@pytest.fixture(scope="module")
def batch():
    return TWO.batch(800, "test", torch.Generator().manual_seed(0))


def test_captions_name_what_they_mention(batch):
    wanted = torch.where(batch.mentioned, batch.attributes, -1).tolist()
    assert [read_two(caption) for caption in batch.captions] == wanted
    assert 0.6 < batch.mentioned.all(dim=1).float().mean() < 0.8


def test_a_caption_in_full():
    assert say((3, 0, 0, 7, 5)) == "a red three left of a blue seven"
    assert say((8, 1, 3, 8, 7), numeral=True) == "an orange 8 below a white 8"
    assert len({say((3, 0, 0, 7, 5), phrasing=p) for p in TWO.phrasings}) == 3


def test_the_two_digits_lie_as_the_caption_says_in_their_own_colours(batch):
    light = (batch.images + 1) / 2  # (B, 3, 32, 32)
    halves = (
        (light[..., :16], light[..., 16:]),
        (light[..., 16:], light[..., :16]),
        (light[..., :16, :], light[..., 16:, :]),
        (light[..., 16:, :], light[..., :16, :]),
    )
    palette = torch.nn.functional.normalize(torch.tensor(RGB), dim=1)  # (8, 3)
    for relation, (first, second) in enumerate(halves):
        here = batch.attributes[:, 2] == relation
        for half, column in ((first, 1), (second, 4)):
            mean = half[here].mean(dim=(2, 3))  # (n, 3)
            nearest = (torch.nn.functional.normalize(mean, dim=1) @ palette.T).argmax(dim=1)
            right = (nearest == batch.attributes[here, column]).float().mean()
            assert right > 0.95, (relation, column)


def test_what_is_confusable_has_another_digit_or_another_arrangement():
    (group,) = TWO.confusable(torch.tensor([[3, 0, 0, 7, 5]]))
    said = [say(combination) for combination in group.tolist()]
    assert said[:2] == ["a red zero left of a blue seven", "a red one left of a blue seven"]
    assert said[10:12] == ["a red three left of a blue zero", "a red three left of a blue one"]
    assert sorted(said[20:]) == sorted(
        f"a {a} {x} {relation} a {b} {y}"
        for a, b in (("red", "blue"), ("blue", "red"))
        for x, y in (("three", "seven"), ("seven", "three"))
        for relation in ("left of", "above")
    )


def test_a_fifth_of_the_combinations_is_held_out():
    every = TWO.all_combinations()
    assert len(every) == 10 * 8 * 4 * 10 * 8
    assert TWO.is_held_out(every).sum() == len(TWO.held_out_combinations()) == len(every) // 5
    drawn = TWO.batch(500, "train", torch.Generator().manual_seed(1)).attributes
    assert not TWO.is_held_out(drawn).any()


def test_what_is_held_out_is_not_trained_on_in_other_words():
    """`a red three left of a blue seven` is `a blue seven right of a red three`."""
    same = torch.tensor([[3, 0, 0, 7, 5], [7, 5, 1, 3, 0]])
    assert torch.equal(*TWO.canonical(same))
    held_out, seen = (
        {tuple(c) for c in TWO.canonical(combinations).tolist()}
        for combinations in (TWO.held_out_combinations(), TWO.seen_combinations())
    )
    assert held_out and seen and not held_out & seen


def test_the_seed_decides_every_bit(batch):
    again = TWO.batch(800, "test", torch.Generator().manual_seed(0))
    assert torch.equal(again.images, batch.images) and again.captions == batch.captions
