"""CLIP score, retrieval and zero-shot classification, with CLIPs whose answers are known."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from minisd.data import ONE, Batch, draw_batch
from minisd.evaluation import accuracy, zero_shot
from minisd.evaluation.features import evaluate_clip_score, evaluate_retrieval
from tests.helpers import read_caption


def hot(attributes):
    """One hot vector for each attribute: (B, 4) -> unit vectors (B, 25)."""
    sizes = (10, 8, 2, 5)
    groups = [F.one_hot(a, n) for a, n in zip(attributes.T, sizes)]
    return torch.cat(groups, dim=1).float() / 2


def pipeline(encode_text, encode_image, tokenizer):
    clip = SimpleNamespace(encode_text=encode_text, encode_image=encode_image)
    return SimpleNamespace(device=torch.device("cpu"), clip=clip, tokenizer=tokenizer)


def reader_of(attributes):
    """A pipeline whose CLIP understands captions and sees these attributes in pictures."""
    read = lambda captions: torch.tensor([read_caption(c) for c in captions])  # noqa: E731
    return pipeline(hot, lambda _: hot(attributes), read)


def test_a_clip_that_understands_is_right_zero_shot():
    test = draw_batch(100, "test", torch.Generator().manual_seed(0))
    seen = zero_shot(reader_of(test.attributes), test.images, ONE)
    assert accuracy(seen, test.attributes, ONE)["joint"]["rate"] == 1
    assert accuracy(seen, test.attributes.roll(1, 0), ONE)["joint"]["rate"] < 0.1


@pytest.fixture
def full():
    """200 full captions of 160 held-out combinations, with their pictures."""
    return ONE.test_groups(400, seed=0)["held_out"][0]


def test_a_clip_that_understands_retrieves_every_caption(full):
    found = evaluate_retrieval(reader_of(full.attributes), full, full.images)
    assert found["chance"] == {"recall@1": 1 / 160, "recall@10": 10 / 160}  # combinations, once
    for kind in ("drawn", "real"):
        assert all(cell["rate"] == 1 and cell["of"] == 200 for cell in found[kind].values())


def test_a_clip_that_sees_other_pictures_retrieves_by_chance(full):
    other = full.attributes[torch.randperm(200, generator=torch.Generator().manual_seed(0))]
    found = evaluate_retrieval(reader_of(other), full, full.images)["drawn"]
    assert found["recall@1"]["rate"] < 0.05 and found["recall@10"]["rate"] < 0.3


def test_equal_captions_are_ranked_as_one():
    """Three pictures, two captions: the first picture's is the second's, too."""
    captions, numbers = ["a", "a", "b"], torch.tensor([[0], [0], [1]])
    vectors = {"a": [1.0, 0.0], "b": [0.0, 1.0]}
    text = lambda captions: torch.tensor([vectors[c] for c in captions])  # noqa: E731
    images = torch.tensor([[0.9, 0.1], [0.1, 0.9], [0.1, 0.9]])  # the second one looks like a b
    pipe = pipeline(lambda ids: ids, lambda x: images[: len(x)], text)
    batch = Batch(images, captions, numbers, torch.ones(3, 1, dtype=torch.bool))
    found = evaluate_retrieval(pipe, batch, images)
    assert found["chance"] == {"recall@1": 1 / 2, "recall@10": 1}
    assert found["real"]["recall@1"]["right"] == 2 and found["real"]["recall@10"]["right"] == 3


def test_the_clip_score_compares_each_picture_with_its_own_caption():
    text = lambda captions: torch.eye(2)[[ord(c) - ord("a") for c in captions]]  # noqa: E731
    pipe = pipeline(lambda ids: ids, lambda x: x, text)
    found = evaluate_clip_score(pipe, ["a", "b"], drawn=torch.eye(2), real=torch.eye(2).flip(0))
    assert found == {"drawn": pytest.approx(100), "real": pytest.approx(0)}
