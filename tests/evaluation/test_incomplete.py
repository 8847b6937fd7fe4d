"""Captions that leave things out: what counts as asked, as decided and as evenly spread."""

import pytest
import torch

from minisd.data import ONE
from minisd.evaluation.incomplete import evaluate_incomplete, spread
from tests.helpers import read_caption

KINDS = {
    "digit": "a seven",
    "digit, colour": "a red seven",
    "digit, position": "a seven at the top left",
    "digit, colour, position": "a red seven at the top left",
    "nothing": "",
}


def measure(judge, change=lambda wanted: wanted, blend=False, count=100):
    """Real renders of what captions say, the rest at random, then changed or blended."""
    captions = []

    def draw(asked, seed):
        captions.append(asked[0])
        generator = torch.Generator().manual_seed(seed)
        chance = ONE.all_combinations()[torch.randint(800, (len(asked),), generator=generator)]
        said = torch.tensor([read_caption(caption) for caption in asked])
        wanted = change(torch.where(said >= 0, said, chance))
        images = ONE.batch(len(asked), "test", generator, attributes=wanted).images
        return torch.maximum(images, images.flip(3)) if blend else images

    return evaluate_incomplete(ONE, judge, draw, count, seed=0), captions


def test_each_kind_of_caption_is_asked_for(judge):
    results, captions = measure(judge)
    assert list(results) == list(KINDS)
    for caption, like in zip(captions, KINDS.values(), strict=True):
        said, wanted = read_caption(caption), read_caption(like)
        assert [i >= 0 for i in said] == [i >= 0 for i in wanted], caption
    assert captions[-1] == ""


def test_real_pictures_are_as_asked_decided_and_evenly_spread(judge):
    results, _ = measure(judge, count=400)
    for kind, row in results.items():
        assert row["whole"]["low"] > 0.9 and row["whole"]["of"] == 400
        rarest, most = row["spread"]
        assert 0.5 < rarest < 1 < most < 2, kind


def test_what_is_not_as_asked_counts_where_it_was_asked_for(judge):
    def one_more(wanted):
        return torch.stack([wanted[:, 0], (wanted[:, 1] + 1) % 8, *wanted.T[2:]], dim=1)

    results, _ = measure(judge, one_more)
    assert results["digit, colour"]["asked"]["rate"] == 0 < 0.9 < results["digit"]["asked"]["rate"]
    assert (
        results["digit, colour"]["whole"]["rate"] == 0 < 0.9 < results["nothing"]["whole"]["rate"]
    )
    assert results["digit, colour"]["decided"]["rate"] > 0.9


def test_two_digits_in_one_picture_are_not_decided(judge):
    results, _ = measure(judge, lambda wanted: wanted * torch.tensor([1, 1, 1, 0]), blend=True)
    row = results["digit"]
    assert row["decided"]["rate"] < 0.5 and row["whole"]["right"] <= row["decided"]["right"]


def test_a_habit_shows_in_the_spread(judge):
    results, _ = measure(judge, lambda wanted: wanted * torch.tensor([1, 0, 1, 1]))  # always red
    rarest, most = results["digit"]["spread"]
    assert rarest == 0 and most == pytest.approx(8, rel=0.02)  # red in one of eight, in training
    assert results["digit, colour, position"]["spread"][1] < 1.5  # only the size is open


def test_the_spread_by_hand():
    training = torch.tensor([[0, 0], [0, 1], [1, 0], [1, 1]])
    answers = torch.tensor([[0, 1], [0, 1], [0, 1], [1, 0], [1, 1]])
    assert spread(answers, training) == pytest.approx([0.4, 1.6])  # a fifth and four, of a half
    assert spread(answers[:, :0], training[:, :0]) == spread(answers[:0], training) == []
