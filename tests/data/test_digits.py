"""The handwriting is the one that is documented, and its two parts are apart."""

import hashlib

import pytest
import torch

from minisd.data import digits, load_digits

SHA256 = "0217e13bd0668deb198aa7d305edbf0331eb89f8a6e7dd226e03d1aa3a9bd4ef"


def test_the_file_is_the_documented_one():
    assert hashlib.sha256(digits.PATH.read_bytes()).hexdigest() == SHA256


@pytest.mark.parametrize(("split", "count"), [("train", 8000), ("test", 2000)])
def test_each_part_has_its_size_and_range_and_all_ten_digits(split, count):
    images, labels = load_digits(split)
    assert images.shape == (count, 28, 28)
    assert labels.shape == (count,) and labels.dtype == torch.long
    assert images.dtype == torch.float32
    assert (images.min(), images.max()) == (0, 1)
    assert (labels.bincount(minlength=10) > 0.08 * count).all()
    assert labels.unique().tolist() == list(range(10))


def test_no_image_is_in_both_parts():
    train, test = ({i.numpy().tobytes() for i in load_digits(s)[0]} for s in ("train", "test"))
    assert len(train) + len(test) > 9990  # hardly any image is there twice, ...
    assert not train & test  # ... and none on both sides


def test_an_unknown_part_is_refused():
    with pytest.raises(ValueError, match="train.*test.*valid"):
        load_digits("valid")


def test_a_missing_file_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(digits, "PATH", tmp_path / "digits.npz")
    with pytest.raises(FileNotFoundError, match=r"digits\.npz"):
        load_digits.__wrapped__("train")
