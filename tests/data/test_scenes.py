"""Pictures show what their attributes say, measured here with nothing but numpy."""

import colorsys

import numpy as np
import pytest
import torch

from minisd.data import VALUES, OneDigit, all_combinations, draw_batch, is_held_out, render, scenes

HUES = {  # degrees on the colour circle; white has none
    "red": (-15, 15),
    "orange": (20, 45),
    "yellow": (50, 70),
    "green": (90, 150),
    "cyan": (165, 195),
    "blue": (210, 250),
    "purple": (265, 310),
}


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def batch():
    return draw_batch(500, "test", seeded())


@pytest.fixture(scope="module")
def light(batch):
    """The pictures as (500, 32, 32, 3) in [0, 1]."""
    return (batch.images.permute(0, 2, 3, 1).numpy() + 1) / 2


def named(batch, attribute):
    return [VALUES[attribute][i] for i in batch.attributes[:, attribute].tolist()]


def test_shapes_and_range(batch):
    assert batch.images.shape == (500, 3, 32, 32) and batch.images.dtype == torch.float32
    assert batch.attributes.shape == (500, 4) and batch.attributes.dtype == torch.long
    assert len(batch.captions) == 500 and batch.mentioned.shape == (500, 4)
    assert batch.images.min() == -1 and 0.95 < batch.images.max() <= 1
    assert (batch.images[:, :, :2].mean() < -0.9) and (batch.images.mean() < -0.7)  # on black


def test_the_brightest_pixel_has_the_colour_that_is_named(batch, light):
    for picture, name in zip(light, named(batch, 1), strict=True):
        r, g, b = picture.reshape(-1, 3)[picture.max(axis=2).argmax()]
        hue, saturation, _ = colorsys.rgb_to_hsv(r, g, b)
        if name == "white":
            assert saturation < 0.01
        else:
            low, high = HUES[name]
            assert saturation > 0.7 and low <= (hue * 360 + 45) % 360 - 45 <= high, name


def test_large_digits_are_larger_than_small_ones(batch, light):
    ink = light.max(axis=3)
    extent = np.array([max(np.ptp(i.nonzero()[0]), np.ptp(i.nonzero()[1])) for i in ink > 0.3])
    large = np.array(named(batch, 2)) == "large"
    assert 13 < extent[large].mean() < 19 and 8 < extent[~large].mean() < 12
    assert ((extent > 13) == large).mean() > 0.99


def test_the_centre_of_mass_lies_where_the_caption_puts_it(batch, light):
    ink = light.max(axis=3)
    offset = np.arange(32) - 15.5
    mass = ink.sum(axis=(1, 2))
    x, y = (ink.sum(axis=1) @ offset) / mass, (ink.sum(axis=2) @ offset) / mass
    for i, place in enumerate(named(batch, 3)):
        if place == "center":
            assert abs(x[i]) < 2.5 and abs(y[i]) < 2.5
        else:
            vertical, horizontal = place.split()
            assert (x[i] > 2.5) == (horizontal == "right") and (x[i] < -2.5) == (
                horizontal == "left"
            )
            assert (y[i] > 2.5) == (vertical == "bottom") and (y[i] < -2.5) == (vertical == "top")


def test_digits_stay_inside_the_picture(light):
    ink = light.max(axis=3)
    border = np.ones((32, 32), bool)
    border[1:-1, 1:-1] = False
    assert ink[:, border].sum() / ink.sum() < 0.01
    assert (ink[:, border].max(axis=1) < 0.5).mean() > 0.94


def test_the_digit_is_the_handwriting_of_its_class(monkeypatch):
    """With handwriting that is a patch as bright as its label, the brightness tells the digit."""
    images = torch.zeros(20, 28, 28)
    labels = torch.arange(20) % 10
    images[:, 8:20, 8:20] = (labels[:, None, None] + 1) / 10
    monkeypatch.setattr(scenes, "load_digits", lambda split: (images, labels))
    scenes.digits_by_class.cache_clear()
    attributes = all_combinations()
    brightest = (render(attributes, "train", seeded()).amax(dim=(1, 2, 3)) + 1) / 2
    scenes.digits_by_class.cache_clear()
    white = attributes[:, 1] == 7
    torch.testing.assert_close(brightest[white], (attributes[white, 0] + 1) / 10)


def test_training_never_renders_a_held_out_combination():
    rendered = []

    class Spy(OneDigit):
        def render(self, attributes, split, generator):
            rendered.append(attributes)
            return torch.zeros(len(attributes), 3, 1, 1)

    world, drawn = Spy(), {}
    for split in ("train", "test"):
        rendered.clear()
        for seed in range(20):
            world.batch(500, split, seeded(seed))
        drawn[split] = torch.cat(rendered)
    assert len(drawn["train"]) == 10_000 and not is_held_out(drawn["train"]).any()
    assert len(drawn["train"].unique(dim=0)) == 640  # and it sees all the others
    assert 0.15 < is_held_out(drawn["test"]).float().mean() < 0.25


def test_training_never_shows_the_test_handwriting(monkeypatch):
    """With bright test handwriting and dim training handwriting, brightness tells them apart."""
    labels = torch.arange(10)
    brightness = {"train": 0.25, "test": 1.0}
    dyed = lambda split: (torch.full((10, 28, 28), brightness[split]), labels)  # noqa: E731
    monkeypatch.setattr(scenes, "load_digits", dyed)
    scenes.digits_by_class.cache_clear()
    train, test = (draw_batch(500, s, seeded()).images.amax(dim=(1, 2, 3)) for s in brightness)
    scenes.digits_by_class.cache_clear()
    assert (train <= 2 * 0.25 - 1 + 1e-6).all() and (test > 0.5).all()


def test_the_seed_decides_every_bit():
    one, same, other = (draw_batch(20, "train", seeded(seed)) for seed in (3, 3, 4))
    assert torch.equal(one.images, same.images) and one.captions == same.captions
    assert torch.equal(one.attributes, same.attributes)
    assert not torch.equal(one.images, other.images) and one.captions != other.captions


def test_one_combination_has_many_pictures():
    attributes = torch.tensor([[4, 2, 1, 4]]).repeat(8, 1)
    pictures = draw_batch(8, "test", seeded(), attributes=attributes).images
    assert all(not torch.equal(a, b) for i, a in enumerate(pictures) for b in pictures[:i])


def test_attributes_that_are_asked_for_are_rendered_in_their_order():
    attributes = all_combinations()[::100]
    batch = draw_batch(8, "test", seeded(), attributes=attributes, complete=1.0)
    assert torch.equal(batch.attributes, attributes)
    assert batch.mentioned.all()


@pytest.mark.parametrize("bad", [{"size": 0}, {"size": -3}, {"size": 4, "split": "valid"}])
def test_bad_arguments_are_refused(bad):
    with pytest.raises(ValueError, match="at least one|train"):
        draw_batch(**bad)


def test_a_render_is_the_same_under_mixed_precision():
    attributes = all_combinations()[:50]
    plain = render(attributes, "train", torch.Generator().manual_seed(0))
    with torch.autocast("cpu", torch.bfloat16):
        mixed = render(attributes, "train", torch.Generator().manual_seed(0))
    assert torch.equal(plain, mixed)


def test_a_size_that_does_not_fit_the_combinations_is_refused():
    with pytest.raises(ValueError, match="7 combinations do not fit a batch of 3"):
        draw_batch(3, attributes=all_combinations()[:7])
