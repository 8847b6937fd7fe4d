"""Pictures that are right get full marks, others those of chance."""

from types import SimpleNamespace

import pytest
import torch

from minisd.data import ATTRIBUTES, TWO, TwoDigits, is_held_out
from minisd.evaluation import Settings, accuracy, evaluate, format_results
from tests.helpers import read_caption, read_two

from .stubs import SAMPLES, WORLD, Stub

NAMES = ("joint", *ATTRIBUTES)
CHANCE = {"joint": 1 / 800, "digit": 1 / 10, "colour": 1 / 8, "size": 1 / 2, "position": 1 / 5}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("group", ["seen", "held_out"])
def test_real_pictures_get_the_marks_of_real_pictures(listening, group, name):
    drawn, real = (listening[1][group][which][name] for which in ("drawn", "real"))
    assert real["rate"] > 0.9
    assert drawn["rate"] == pytest.approx(real["rate"], abs=0.06)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("group", ["seen", "held_out"])
def test_pictures_that_ignore_the_caption_are_right_by_chance(deaf, group, name):
    drawn = deaf[group]["drawn"][name]
    assert drawn["low"] - 0.02 <= CHANCE[name] <= drawn["high"] + 0.02
    assert deaf[group]["real"][name]["rate"] > 0.9  # the judge is not to blame


def test_half_of_the_captions_are_seen_and_half_held_out_and_all_are_full(listening):
    wanted = torch.tensor([read_caption(c) for c in listening[0].captions[:SAMPLES]])
    assert (wanted >= 0).all()
    half = SAMPLES // 2
    assert not is_held_out(wanted[:half]).any() and is_held_out(wanted[half:]).all()
    assert len(wanted[half:].unique(dim=0)) == 160  # each as often as the others


def test_every_rate_lies_in_its_interval_and_adds_up(listening, deaf):
    for results in (listening[1], deaf):
        for group in ("seen", "held_out"):
            for row in results[group]["drawn"], results[group]["real"]:
                for rate in row.values():
                    assert 0 <= rate["low"] <= rate["rate"] <= rate["high"] <= 1
                    assert rate["rate"] == rate["right"] / rate["of"] and rate["of"] == SAMPLES // 2
                    assert row["joint"]["right"] <= rate["right"]


def test_accuracy_by_hand():
    truth = torch.tensor([[3, 0, 1, 2], [4, 5, 0, 4]])
    seen = torch.tensor([[3, 0, 1, 2], [4, 1, 0, -1]])
    right = {name: cell["right"] for name, cell in accuracy(seen, truth, WORLD).items()}
    assert right == {"joint": 1, "digit": 2, "colour": 1, "size": 2, "position": 1}


# Two digits in one picture

TWO_SETTINGS = Settings(samples=200, steps=2)
SWAPS = {  # what a pipeline draws instead of what was asked
    "as asked": [0, 1, 2, 3, 4],
    "colours changed places": [0, 4, 2, 3, 1],
    "digits changed places": [3, 4, 2, 0, 1],
}


@pytest.mark.parametrize(
    ("drawn", "binding", "relation"),
    [
        ("as asked", 0.9, 0.9),
        ("colours changed places", -0.4, 0.8),  # of two equal digits, the colours tell the order
        ("digits changed places", 0.9, -0.3),
    ],
)
def test_binding_and_relation_are_told_apart(judge, drawn, binding, relation):
    class Swapping(Stub):
        def __call__(self, captions, generator, **options):
            wanted = torch.tensor([read_two(c) for c in captions])[:, SWAPS[drawn]]
            images = TWO.batch(len(wanted), "test", generator, attributes=wanted).images
            return SimpleNamespace(images=(images + 1) / 2)

    results = evaluate(Swapping(), judge, TwoDigits(pool_size=170), TWO_SETTINGS)
    assert "binding" in format_results(results)
    for group in ("seen", "held_out"):
        found = results[group]["drawn"]
        for name, bound in (("binding", binding), ("relation", relation)):
            rate = found[name]["rate"]
            assert rate > bound if bound > 0 else rate < -bound, (group, name)
        if drawn != "as asked":
            assert found["joint"]["rate"] < 0.3


@pytest.mark.parametrize(
    ("seen", "right"),
    [
        ([3, 0, 0, 7, 5], True),
        ([3, 0, 2, 7, 5], False),  # one above the other
        ([7, 5, 0, 3, 0], False),  # places exchanged
        ([7, 5, 0, 9, 0], False),  # and one digit misread
        ([3, 0, 0, 9, 5], True),  # in place, and one digit misread
        ([3, 5, 0, 7, 0], True),  # in place, colours exchanged
        ([9, 0, 0, 9, 5], True),  # the colours tell
        ([9, 1, 0, 9, 1], False),  # nothing tells
        ([3, 0, -1, -1, -1], False),  # one is missing
    ],
)
def test_relation_asks_where_things_are(seen, right):
    asked = torch.tensor([[3, 0, 0, 7, 5]])
    assert accuracy(torch.tensor([seen]), asked, TWO)["relation"]["right"] == right


def test_two_of_a_kind_have_no_order():
    twins = torch.tensor([[3, 0, 0, 3, 0]])
    assert accuracy(twins, twins, TWO)["relation"]["right"] == 1
