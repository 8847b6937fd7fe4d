"""The Frechet distance has a floor, and copies of training pictures are found."""

from types import SimpleNamespace

import torch

from minisd.evaluation import Settings, evaluate
from minisd.evaluation.features import evaluate_copies

from .stubs import SAMPLES, WORLD, Album, Stub


def test_the_frechet_distance_of_real_pictures_is_the_floor(listening):
    frechet = listening[1]["frechet"]
    assert frechet["floor"] > 0 and frechet["drawn"] < 2 * frechet["floor"]


def test_the_frechet_distance_of_noise_is_far_above_the_floor(judge):
    class Noise(Stub):
        def __call__(self, captions, generator, **options):
            return SimpleNamespace(images=torch.rand(len(captions), 3, 32, 32, generator=generator))

    frechet = evaluate(Noise(), judge, WORLD, Settings(SAMPLES))["frechet"]
    assert frechet["drawn"] > 5 * frechet["floor"]


def test_copies_of_training_pictures_are_found(judge, listening):
    class Thief(Stub):
        def __call__(self, captions, **options):
            *_, batch = WORLD.pool(seed=7)
            images = batch.images[: len(captions)]
            return SimpleNamespace(images=(images + 1) / 2)

    stolen = evaluate(Thief(), judge, WORLD, Settings(samples=40, training_seed=7))["copies"]
    assert stolen["drawn"]["rate"] == 1
    other = evaluate(Thief(), judge, WORLD, Settings(samples=40))["copies"]
    assert other["drawn"]["rate"] < 0.05  # the training of another seed saw other pictures
    for copies in (stolen["real"], *listening[1]["copies"].values()):
        assert copies["rate"] < 0.05


def test_repetitions_at_the_end_of_the_pool_hide_no_copies():
    """A training picture counted twice would be the nearest and the second nearest."""
    album = Album()
    near = album.images[album.indices["train"][:20]] + 1e-3  # of those that fill up the pool
    unseen = album.images[album.indices["test"]]
    flat = lambda images: images.flatten(1)  # noqa: E731
    copies = evaluate_copies(flat, near, unseen, album.pool(), album.pool_size)
    assert copies["drawn"]["rate"] == 1 and copies["real"]["rate"] == 0
