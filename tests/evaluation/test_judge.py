"""The judge reads real pictures right, and notices what is changed in them."""

import pytest
import torch

from minisd import data
from minisd.data import ATTRIBUTES, VALUES, draw_batch
from minisd.evaluation import Judge, measure, train_judge
from minisd.evaluation.judge import Reader


@pytest.fixture(scope="module")
def real():
    return draw_batch(1000, "test", torch.Generator().manual_seed(7))


def square(rgb=(0.1, 0.85, 0.1), side=10, x=24, y=8):
    """A square with its centre at pixel (x, y) on black: (1, 3, 32, 32)."""
    picture = torch.zeros(1, 3, 32, 32)
    half = side // 2
    colour = torch.tensor(rgb)[:, None, None]
    picture[0, :, y - half : y + half, x - half : x + half] = colour
    return 2 * picture - 1


def read(picture):
    """What measure() says, in words."""
    return [VALUES[i + 1][k] for i, k in enumerate(measure(picture)[0].tolist())]


@pytest.mark.parametrize("attribute", [1, 2, 3])
def test_real_pictures_are_measured_right(real, attribute):
    answers = measure(real.images)[:, attribute - 1]
    assert (answers == real.attributes[:, attribute]).float().mean() >= 0.99, ATTRIBUTES[attribute]


def test_a_green_square_at_the_top_right():
    assert read(square()) == ["green", "small", "top right"]


@pytest.mark.parametrize(
    ("change", "answer"),
    [
        ({"x": 8}, ["green", "small", "top left"]),
        ({"y": 24}, ["green", "small", "bottom right"]),
        ({"x": 16, "y": 16}, ["green", "small", "center"]),
        ({"rgb": (0.15, 0.3, 1.0)}, ["blue", "small", "top right"]),
        ({"rgb": (0.9, 0.9, 0.9)}, ["white", "small", "top right"]),
        ({"side": 16, "x": 21, "y": 11}, ["green", "large", "top right"]),
    ],
)
def test_one_change_changes_one_answer(change, answer):
    assert read(square(**change)) == answer


def test_every_colour_is_told_from_its_neighbours_even_when_it_is_dim():
    for i, rgb in enumerate(data.RGB):
        for brightness in (1.0, 0.5):
            dim = square([brightness * c for c in rgb])
            assert read(dim)[0] == VALUES[1][i]


def test_a_digit_in_two_colours_has_none():
    red, yellow = square((1.0, 0.1, 0.1)), square((1.0, 1.0, 0.1))
    halves = torch.cat([red[..., :24], yellow[..., 24:]], dim=-1)
    assert measure(halves)[0].tolist() == [-1, 0, 1]  # their mean would be orange


def test_a_digit_between_two_places_is_at_none():
    assert measure(square(x=8, y=16))[0].tolist() == [3, 0, -1]


def test_noise_is_not_a_large_white_digit():
    noise = 2 * torch.rand(200, 3, 32, 32, generator=torch.Generator().manual_seed(0)) - 1
    assert (measure(noise)[:, 0] == -1).all()


def test_faint_noise_around_the_digit_does_not_count(real):
    noise = torch.rand(real.images.shape, generator=torch.Generator().manual_seed(0))
    same = measure(real.images) == measure(torch.maximum(real.images, 0.2 * noise - 1))
    assert same.float().mean() > 0.99


def test_values_out_of_range_are_taken_as_a_screen_shows_them():
    assert read(3 * square()) == read(square().sign())


@pytest.mark.parametrize("level", [-1.0, -0.8])
def test_a_black_picture_shows_nothing(level):
    pictures = torch.cat([torch.full((1, 3, 32, 32), level), square()])
    answers = Judge(Reader())(pictures)
    assert answers[0].tolist() == [-1] * 4
    assert (answers[1] >= 0).all()


def test_only_the_digit_is_the_networks_opinion(real):
    answers = Judge(Reader())(real.images)
    assert answers.shape == (1000, 4)
    assert torch.equal(answers[:, 1:], measure(real.images))
    assert (answers[:, 0] == real.attributes[:, 0]).float().mean() < 0.3  # untrained


def test_features_are_what_the_frechet_distance_compares(real):
    features = Judge(Reader()).features(real.images[:300])
    assert features.shape == (300, 128)
    assert features.std(dim=0).max() > 0


def test_the_shipped_judge_reads_the_digits_of_handwriting_it_never_saw(real):
    assert (Judge.load()(real.images)[:, 0] == real.attributes[:, 0]).float().mean() >= 0.95


def test_a_judge_that_is_saved_and_loaded_answers_the_same(real, tmp_path):
    before = Judge(Reader())
    before.save(tmp_path / "judge.safetensors")
    after = Judge.load(tmp_path / "judge.safetensors")
    some = real.images[:50]
    torch.testing.assert_close(after.features(some), before.features(some), atol=1e-3, rtol=1e-2)


def test_a_missing_or_damaged_judge_is_one_clear_line(tmp_path):
    file = tmp_path / "judge.safetensors"
    with pytest.raises(ValueError, match="missing or damaged") as missing:
        Judge.load(file)
    Judge(Reader()).save(file)
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(ValueError, match="missing or damaged") as damaged:
        Judge.load(file)
    for error in (missing, damaged):
        assert str(file) in str(error.value) and "\n" not in str(error.value)


def test_a_judge_that_was_just_trained_can_be_saved(tmp_path):
    """Training stores convolutions channels last, which safetensors refuses."""
    trained, pictures = train_judge(steps=3, batch_size=8), draw_batch(20).images
    trained.save(tmp_path / "judge.safetensors")
    loaded = Judge.load(tmp_path / "judge.safetensors")
    ours, theirs = (judge.features(pictures) for judge in (trained, loaded))
    torch.testing.assert_close(ours, theirs, rtol=0.01, atol=0.01)  # stored as 16-bit floats
