"""A call, watched: what is shown is what the steps saw."""

import pytest
import torch
from PIL import Image
from torch.testing import assert_close

from minisd import StableDiffusion, plots
from minisd.errors import InputError
from minisd.film import watch

PROMPTS = ["a large red seven at the top left", "a small white two in the center"]


@pytest.fixture(scope="module")
def pipe():
    return StableDiffusion.from_pretrained()


@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_frames_follow_the_call(pipe, scale):
    options = {"num_inference_steps": 5, "sampler": "ddim", "guidance_scale": scale}
    options |= {"generator": torch.Generator().manual_seed(0), "output_type": "pt"}
    with watch(pipe) as (frames, watching):
        images = pipe(PROMPTS, **options, **watching).images
    assert [frame.t for frame in frames] == pipe.schedule.timesteps(5)
    assert_close(frames[-1].noisy, 2 * images - 1)  # no noise is left after the last step
    assert_close(frames[-1].guess, 2 * images - 1)
    first = frames[0]
    assert first.maps.shape == (2, 16, 8, 8) and first.guess.shape == (2, 3, 32, 32)
    assert_close(first.maps.sum(dim=1), torch.ones(2, 8, 8))  # each place looks at all tokens
    quiet = options | {"generator": torch.Generator().manual_seed(0)}
    assert torch.equal(pipe(PROMPTS, **quiet).images, images)  # watching changes nothing


def test_words_look_where_they_are_drawn(pipe):
    """The maps are those of the prompts, not of the empty prompts beside them."""
    with watch(pipe) as (frames, watching):
        pipe(PROMPTS, num_inference_steps=5, guidance_scale=3.0, **watching)
    alone = []
    for prompt in PROMPTS:
        with watch(pipe) as (single, watching):
            latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
            pipe(prompt, latents=latents, num_inference_steps=1, guidance_scale=1.0, **watching)
        alone.append(single[0].maps)
    with watch(pipe) as (both, watching):
        ask = {
            "num_inference_steps": 1,
            "guidance_scale": 3.0,
            "latents": latents.repeat(2, 1, 1, 1),
        }
        pipe(PROMPTS, **ask, **watching)
    assert_close(both[0].maps, torch.cat(alone), atol=1e-4, rtol=0)


def test_a_film_is_a_gif_with_a_frame_for_each_step(tmp_path):
    picture, maps = torch.zeros(1, 3, 4, 4), torch.rand(1, 3, 2, 2)
    figures = [plots.frame(t, picture, picture, maps, [["a", "seven"]]) for t in (999, 499)]
    plots.save_film(figures, tmp_path / "film.gif")
    with Image.open(tmp_path / "film.gif") as film:
        assert film.n_frames == 2
    with pytest.raises(InputError, match="film.mp4 must end in .gif"):
        plots.check_film(tmp_path / "film.mp4")
    with pytest.raises(InputError, match="none.gif would be a film without a frame"):
        plots.save_film([], tmp_path / "none.gif")
