"""Figures show the pictures that they are given, with their captions."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from PIL import Image

from minisd import plots

CAPTIONS = [f"a large red {n} at the bottom right of the picture" for n in range(5)]


@pytest.fixture(autouse=True)
def close():
    yield
    plt.close("all")


def shown(figure):
    return [axis for axis in figure.axes if axis.images]


def test_a_gallery_has_every_picture_above_its_caption():
    pictures = torch.linspace(-1, 1, 5)[:, None, None, None].expand(5, 3, 4, 4)
    axes = shown(plots.gallery(pictures, CAPTIONS, columns=3, title="five"))
    assert [" ".join(axis.get_title().split()) for axis in axes] == CAPTIONS
    for axis, level in zip(axes, (0, 0.25, 0.5, 0.75, 1), strict=True):
        assert np.allclose(axis.images[0].get_array(), level)
    columns = {round(axis.get_subplotspec().get_position(axis.figure).x0, 3) for axis in axes}
    assert len(columns) == 3


def test_a_gallery_takes_what_the_pipeline_gives(tiny_pipe):
    images = tiny_pipe("a red seven", num_inference_steps=1).images
    (axis,) = shown(plots.gallery(images, ["a red seven"]))
    assert np.array_equal(axis.images[0].get_array(), np.asarray(images[0]))


def test_pixels_out_of_range_are_clipped_not_wrapped():
    array = plots.to_array(torch.tensor([-3.0, 3.0, 0.0])[:, None, None].expand(3, 2, 2))
    assert array.shape == (2, 2, 3) and array[0, 0].tolist() == [0, 1, 0.5]


def test_long_captions_are_broken_between_words():
    text = plots.wrap(CAPTIONS[0])
    assert max(map(len, text.splitlines())) <= plots.WRAP
    assert text.split() == CAPTIONS[0].split()


def test_a_word_longer_than_a_line_stays_whole():
    assert plots.wrap("x" * 50) == "x" * 50


@pytest.mark.parametrize("suffix", plots.SUFFIXES)
def test_saving_writes_the_file_and_closes_the_figure(tmp_path, suffix):
    figure = plots.gallery([Image.new("RGB", (4, 4))], [r"costs $\frac$"])
    path = tmp_path / "new" / f"picture{suffix}"
    plots.save(figure, path)
    assert path.stat().st_size > 500
    assert not plt.get_fignums()
    if suffix not in (".svg", ".pdf"):
        assert Image.open(path).width > 100


@pytest.mark.parametrize("name", ["picture", "picture.xyz", ".png"])
def test_a_name_that_is_no_pictures_is_refused(tmp_path, name):
    figure = plots.gallery([Image.new("RGB", (4, 4))], ["black"])
    with pytest.raises(ValueError, match=r"must end in \.png"):
        plots.save(figure, tmp_path / "new" / name)
    assert not list(tmp_path.iterdir())
