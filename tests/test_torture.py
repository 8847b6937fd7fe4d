"""A small share of benchmarks/torture.py, and that it would notice."""

import random
from collections import Counter

import pytest
import torch

from benchmarks import torture
from benchmarks.damage import change_config, change_weights
from minisd.errors import InputError
from minisd.files import SHIPPED
from minisd.models import UNet

WEIGHTS = SHIPPED / "weights"


@pytest.fixture
def tell():
    """What happened how often; anything that should not have happened fails, with its case."""
    torture.be_quiet()

    def tell(found, case):
        assert found in (torture.SAME, torture.REFUSED, torture.SAID), f"{case}: {found}"
        return found

    return tell


@pytest.mark.parametrize("make", [change_config, change_weights])
def test_damaged_checkpoints_are_drawn_as_the_reference_does_or_refused(make, tell):
    counts = torture.damaged(make, 8, make.__name__, 0, tell)
    assert counts.total() == 8 and counts[torture.SAME] and counts[torture.REFUSED]


def test_any_prompt_is_drawn_as_the_reference_does_or_refused(tell):
    assert torture.prompts(60, 0, tell).total() == 60


def test_another_picture_is_noticed(monkeypatch):
    original = torture.ours(WEIGHTS)
    assert torture.same(original, torture.ours(WEIGHTS))
    monkeypatch.setattr(torture, "theirs", lambda folder: original)
    assert torture.outcome(WEIGHTS, original, harmless=True) == torture.SAME
    forward = UNet.forward
    monkeypatch.setattr(UNet, "forward", lambda *arguments: 1.05 * forward(*arguments))
    assert "another picture" in torture.outcome(WEIGHTS, original, harmless=True)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (InputError("unet/config.json: no"), torture.REFUSED),
        (OSError("no space"), torture.REFUSED),
        (InputError("two\nlines"), "a message of 9 characters"),
        (InputError("x" * 500), "a message of 500 characters"),
        (ValueError("a bug"), "a traceback: ValueError"),
    ],
)
def test_only_one_short_line_is_a_refusal(monkeypatch, error, said):
    def ours(folder):
        raise error

    monkeypatch.setattr(torture, "ours", ours)
    assert torture.outcome(WEIGHTS, (), harmless=False).startswith(said)
    assert torture.outcome(WEIGHTS, (), harmless=True) != torture.REFUSED


@pytest.mark.parametrize("make", [change_config, change_weights])
def test_cases_differ_come_from_the_seed_and_change_the_file(make):
    cases = [make(random.Random(seed), WEIGHTS) for seed in (*range(40), *range(40))]
    assert cases[:40] == cases[40:]
    assert len({case.what for case in cases}) > 25 and len({case.file for case in cases}) >= 4
    for case in cases[:40]:
        assert case.harmless or case.content != (WEIGHTS / case.file).read_bytes(), case.what
    assert 0 < Counter(case.harmless for case in cases)[True] < 40


def test_prompts_differ_and_come_from_the_seed():
    prompts = [torture.prompt_of(random.Random(seed)) for seed in range(200)]
    assert prompts == [torture.prompt_of(random.Random(seed)) for seed in range(200)]
    assert len(set(prompts)) > 150 and max(map(len, prompts)) > 5000
    assert torch.tensor([0xD800 <= ord(c) < 0xE000 for p in prompts for c in p]).any()
