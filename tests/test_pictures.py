"""Pictures that come in: every kind gives the same pixels, and what is none is refused."""

import numpy as np
import pytest
import torch
from PIL import Image

from minisd.errors import InputError
from minisd.pictures import open_picture, resize, to_pixels

BYTES = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
PIXELS = torch.from_numpy(BYTES).permute(2, 0, 1)[None] / 255


@pytest.mark.parametrize(
    "picture",
    [
        Image.fromarray(BYTES),
        [Image.fromarray(BYTES)],
        BYTES,
        BYTES[None],
        BYTES.astype(np.float32) / 255,
        torch.from_numpy(BYTES).permute(2, 0, 1),
        PIXELS,
    ],
    ids=["PIL", "list", "bytes", "batch of bytes", "floats", "tensor of bytes", "tensor"],
)
def test_every_kind_gives_the_same_pixels(picture):
    assert torch.equal(to_pixels("image", picture), PIXELS)


def test_a_mask_has_one_channel():
    mask = BYTES[..., 0]
    want = torch.from_numpy(mask)[None, None] / 255
    for picture in (Image.fromarray(mask), mask, mask[..., None], torch.from_numpy(mask)):
        assert torch.equal(to_pixels("mask_image", picture, 1), want)


def test_transparent_pixels_are_white_and_grey_ones_are_rgb():
    clear = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    assert (to_pixels("image", clear) == 1).all()
    grey = to_pixels("image", Image.new("L", (4, 4), 51))
    assert grey[0, :, 0, 0].tolist() == pytest.approx([0.2] * 3)


def test_a_picture_is_the_same_whether_a_file_or_not(tmp_path):
    """Its 16 bits are scaled, and it is turned upright."""
    turned = Image.Exif()
    turned[0x112] = 6
    Image.fromarray(BYTES).save(tmp_path / "turned.png", exif=turned)
    Image.fromarray(BYTES[..., 0].astype(np.uint16) * 257).save(tmp_path / "16bit.png")
    for file, want in ("turned.png", PIXELS.rot90(-1, (2, 3))), ("16bit.png", PIXELS[:, :1]):
        picture = to_pixels("image", Image.open(tmp_path / file))
        assert torch.equal(picture, to_pixels("image", open_picture(tmp_path / file)))
        assert torch.equal(picture, want.expand(1, 3, -1, -1))


@pytest.mark.parametrize(
    ("picture", "message"),
    [
        ("seven.png", "image must be a PIL image"),
        ([], "image is an empty list"),
        (None, "image must be a PIL image"),
        (BYTES[..., :2], "not of the shape (6, 8, 2)"),
        (np.zeros((0, 8, 3)), "not of the shape (0, 8, 3)"),
        (BYTES.astype(np.float32), "bytes, or numbers from 0 to 1"),
        (PIXELS * float("nan"), "bytes, or numbers from 0 to 1"),
        (BYTES.astype(object), "bytes, or numbers from 0 to 1"),
        (np.array("seven"), "bytes, or numbers from 0 to 1"),
        (Image.new("F", (4, 4)), "image is no picture: its mode is F"),
        ([BYTES, BYTES[:4]], "pictures of several sizes"),
    ],
)
def test_what_is_no_picture_is_refused(picture, message):
    with pytest.raises(InputError) as error:
        to_pixels("image", picture)
    assert message in str(error.value)


def test_another_size_is_said():
    with pytest.warns(UserWarning, match="image was resized from 8x6 to 4x4 pixels"):
        assert resize("image", PIXELS, (4, 4)).shape == (1, 3, 4, 4)
    assert resize("image", PIXELS, (6, 8)) is PIXELS


@pytest.mark.parametrize(("size", "squashed"), [((3, 4), False), ((4, 4), True)])
def test_changed_proportions_are_said(size, squashed):
    with pytest.warns(UserWarning) as told:
        resize("image", PIXELS, size)
    assert ("changes its proportions; crop it first" in str(told[0].message)) is squashed


def test_a_huge_picture_is_refused_in_plain_words(tmp_path, monkeypatch):
    Image.new("L", (3000, 2000)).save(tmp_path / "huge.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 4 * 10**6)
    open_picture(tmp_path / "huge.png")  # without a warning
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10**6)
    with pytest.raises(InputError, match="it has more than 2 million pixels"):
        open_picture(tmp_path / "huge.png")


def test_a_file_that_is_no_picture(tmp_path):
    (tmp_path / "words.png").write_text("no picture")
    Image.new("F", (4, 4)).save(tmp_path / "floats.tiff")
    for name in ("words.png", "floats.tiff"):
        with pytest.raises(InputError, match=f"{name}' is no picture"):
            open_picture(tmp_path / name)
