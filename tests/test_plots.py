"""Figures show the pictures that they are given, with their captions."""

from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from PIL import Image

from minisd import plots
from minisd.errors import InputError

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
    with pytest.raises(InputError, match=r"must end in \.png"):
        plots.save(figure, tmp_path / "new" / name)
    assert not list(tmp_path.iterdir())


def test_a_map_is_drawn_with_the_limits_given():
    (axis,) = shown(plots.gallery([torch.eye(3)], ["map"], limits=(0, 2)))
    assert axis.images[0].get_clim() == (0, 2)
    assert np.array_equal(axis.images[0].get_array(), np.eye(3))


def test_curves_are_labelled_and_smoothed():
    figure = plots.curves({"loss": [1, 2, 3, 4]}, "step", "loss (nats)", smooth=2)
    (axis,) = figure.axes
    (line,) = axis.lines
    assert line.get_xdata().tolist() == [1, 2, 3] and line.get_ydata().tolist() == [1.5, 2.5, 3.5]
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("step", "loss (nats)")
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["loss"]


def test_curves_take_their_own_places():
    (axis,) = plots.curves({"": torch.tensor([5.0, 6.0])}, "t", "SNR", x=[0, 999]).axes
    assert axis.lines[0].get_xdata().tolist() == [0, 999] and axis.get_legend() is None


def test_a_heatmap_names_its_rows_columns_and_values():
    figure = plots.heatmap(torch.eye(2, 3), "token", "digit", "weight", columns="abc", rows="01")
    axis, bar = figure.axes
    assert np.array_equal(axis.images[0].get_array(), np.eye(2, 3))
    assert [label.get_text() for label in axis.get_xticklabels()] == ["a", "b", "c"]
    assert [label.get_text() for label in axis.get_yticklabels()] == ["0", "1"]
    assert bar.get_ylabel() == "weight"


ARROWS = [(start, end) for start, (*_, feeds) in plots.PARTS.items() for end in feeds]


def written(figure):
    """What a diagram has written: its texts, each on one line."""
    return [" ".join(text.get_text().split()) for text in figure.axes[0].texts]


def test_the_diagram_lights_what_it_is_told():
    figure = plots.diagram("U-Net")
    lit = [text.get_text() for text in figure.axes[0].texts if text.get_color() == plots.LIT]
    assert lit == ["U-Net"]
    assert set(written(figure)) >= set(plots.PARTS)


def test_the_diagram_lights_everything_if_it_is_told_nothing():
    (axis,) = plots.diagram().axes
    lit = {" ".join(t.get_text().split()) for t in axis.texts if t.get_color() == plots.LIT}
    assert lit == set(plots.PARTS)


def test_every_arrow_of_the_diagram_ends_at_a_part():
    assert {part for arrow in ARROWS for part in arrow} == set(plots.PARTS)
    assert set(plots.LABELS) <= set(ARROWS)
    for start, end in ARROWS:
        corners = plots.route(start, end)
        for part, corner in ((start, corners[0]), (end, corners[-1])):
            offset = abs(np.subtract(corner, plots.PARTS[part][:2])) / plots.BOX
            assert max(offset) == pytest.approx(1), (start, end)  # on the edge of the box


def test_no_arrow_of_the_diagram_runs_through_a_part():
    for arrow in ARROWS:
        for (x, y), (to_x, to_y) in pairwise(plots.route(*arrow)):
            steps = np.linspace(0, 1, 200)[1:-1, None]
            points = (1 - steps) * (x, y) + steps * (to_x, to_y)  # (198, 2)
            for part, (px, py, *_) in plots.PARTS.items():
                inside = abs(points - (px, py)) < np.array(plots.BOX) - 1e-6
                assert not inside.all(1).any(), (arrow, part)


def test_guidance_joins_the_u_nets_answers_and_the_sampler_feeds_them_back():
    def feeds(part):
        return {end for start, end in ARROWS if start == part}

    assert feeds("text encoder") == feeds("noisy latents") == {"U-Net"}
    assert feeds("U-Net") == {"guidance"} and feeds("guidance") == {"sampler"}
    assert feeds("sampler") == {"noisy latents", "decoder"}  # once more, or out
    assert feeds("noising") == feeds("noise") == {"noisy latents"}
    assert "repeat, t = T ... 0" in written(plots.diagram())


def test_the_diagram_names_its_parts_if_it_does_not_know_one():
    with pytest.raises(ValueError, match="'V-Net' is not one of caption, tokenizer"):
        plots.diagram("V-Net")


def test_a_sheet_has_a_named_row_for_each_and_maps_fill_their_square():
    pictures = [(torch.zeros(3, 8, 8), "black"), (torch.zeros(3, 32, 32), "larger, and black")]
    figure = plots.sheet({"short": pictures[:1], "long": [*pictures, (torch.rand(4, 30), "a map")]})
    names = [part.get_suptitle() for part in figure.subfigs]
    assert names == ["short", "long"]
    titles = [[axis.get_title() for axis in part.axes] for part in figure.subfigs]
    assert titles == [["black", "", ""], ["black", "larger, and black", "a map"]]
    last = figure.subfigs[1].axes[2]
    assert last.get_box_aspect() == 1 and last.images[0].get_array().shape == (4, 30)
