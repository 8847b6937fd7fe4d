"""A classifier learns from drawn pictures that are right, and only from them."""

import pytest
import torch

from minisd.data import ONE, TWO, draw_batch
from minisd.evaluation import Settings, classification, evaluate
from minisd.evaluation.classification import evaluate_classifier
from minisd.evaluation.suite import draw_synthetic

from .stubs import SAMPLES, Stub


def test_a_classifier_learns_from_pictures_that_are_right_and_only_from_them(listening, deaf):
    good, bad = (r["classification_accuracy"] for r in (listening[1], deaf))
    assert bad["high"] < 0.3 < 0.5 < good["low"]


def score(monkeypatch, judge, sees, synthetic, tricks=True):
    """Score and test pictures of a pipeline whose CLIP answers sees(what the judge reads)."""
    answer = lambda pipe, images, world: sees(judge(images))  # noqa: E731
    monkeypatch.setattr(classification, "zero_shot", answer)
    pipe = Stub()
    pipe.clip = "there is one"
    test = draw_batch(SAMPLES, "test", torch.Generator().manual_seed(1))
    pictures = draw_synthetic(pipe, ONE, Settings(synthetic=synthetic))
    return evaluate_classifier(pipe, ONE, *pictures, test, seed=0, tricks=tricks), test


def test_pictures_in_which_clip_sees_something_else_are_left_out(monkeypatch, judge):
    def blind_to_high_digits(read):
        return torch.where(read[:, :1] < 5, read, -1)

    result, test = score(monkeypatch, judge, blind_to_high_digits, 2000)
    assert 800 < result["pictures"] <= 1000
    low = (test.attributes[:, 0] < 5).float().mean()  # of the others it never saw one
    assert 0.6 * low < result["rate"] <= low


def test_without_tricks_nothing_is_left_out_nor_distorted(monkeypatch, judge):
    lessons = []

    def train(batch_of_step, *_):
        lessons.append(batch_of_step()[0])
        return judge

    monkeypatch.setattr(classification, "train_reader", train)
    for tricks in (False, True):
        result, _ = score(monkeypatch, judge, lambda read: read, 1000, tricks)
        assert (result["pictures"] == 1000) is not tricks  # the judge reads a few wrong
    plain, distorted = lessons
    assert not torch.equal(plain, distorted)
    drawn, _ = draw_synthetic(Stub(), ONE, Settings(synthetic=1000))
    assert all((image == drawn).flatten(1).all(dim=1).any() for image in plain)


def test_a_clip_that_finds_nothing_right_is_told_of(monkeypatch, judge):
    with pytest.raises(ValueError, match="only 0 of 1000 drawn pictures"):
        score(monkeypatch, judge, lambda read: read - 1, 1000)


@pytest.mark.parametrize("count", [-5, 1, 999, 10**12])
def test_too_few_or_too_many_synthetic_pictures_are_refused(judge, count):
    with pytest.raises(ValueError, match=f"number of pictures to train .* not {count}"):
        evaluate(Stub(), judge, ONE, Settings(synthetic=count))


def test_the_classifier_is_for_one_digit_only(judge):
    with pytest.raises(ValueError, match="one digit only"):
        evaluate(Stub(), judge, TWO, Settings(synthetic=1000))
