"""A picture in, by the pipeline and by edit.py."""

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from minisd import StableDiffusion, data, edit
from minisd.call import Source
from minisd.diffusion import Point
from minisd.edit import exchange, prompt_to_prompt
from minisd.errors import InputError
from minisd.evaluation import Judge, psnr

BATCH = data.draw_batch(
    4, "test", torch.Generator().manual_seed(0), complete=1.0, attributes=torch.tensor(
        [[7, 0, 1, 0], [2, 5, 0, 4], [3, 3, 1, 3], [0, 2, 0, 1]]
    )
)  # fmt: skip
PIXELS = BATCH.images / 2 + 0.5
OLD = ["a red seven", "a blue two", "a green three", "a yellow zero"]
PALE = ["a white seven", "a white two", "a white three", "a white zero"]
OTHER = ["a red two", "a blue six", "a green eight", "a yellow five"]


@pytest.fixture(scope="module")
def pipe():
    return StableDiffusion.from_pretrained()


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def draw(pipe, prompt=OLD, **options):
    options = {"num_inference_steps": 10, "output_type": "pt", "generator": seeded()} | options
    return pipe(prompt, **options).images


def test_strength_0_changes_nothing_but_by_the_autoencoder(pipe):
    kept = draw(pipe, image=PIXELS, strength=0.0)
    assert_close(kept, pipe.decode(pipe.encode(PIXELS)))


def test_strength_1_forgets_the_picture(pipe):
    """With zero terminal SNR nothing of it is left."""
    assert_close(draw(pipe, image=PIXELS, strength=1.0), draw(pipe, image=1 - PIXELS, strength=1.0))
    some = draw(pipe, image=PIXELS, strength=0.6)
    assert (some - draw(pipe, image=1 - PIXELS, strength=0.6)).abs().max() > 0.1


def test_one_picture_serves_all_prompts(pipe):
    one = draw(pipe, OLD[:2], image=PIXELS[0], strength=0.5)
    assert_close(one, draw(pipe, OLD[:2], image=PIXELS[:1].repeat(2, 1, 1, 1), strength=0.5))
    two = draw(pipe, OLD[:2], image=PIXELS[:2], strength=0.5, num_images_per_prompt=2)
    assert len(two) == 4


def test_every_pixel_outside_the_mask_stays(pipe):
    mask = torch.zeros(32, 32)
    mask[3:17, 5:20] = 1  # not on the grid of the latents
    drawn = draw(pipe, image=PIXELS, mask_image=mask)
    assert torch.equal(drawn[..., mask == 0], PIXELS[..., mask == 0])
    assert (drawn - PIXELS)[..., mask == 1].abs().max() > 0.1


@pytest.mark.parametrize("hole", [(slice(8, 24), slice(1, 4)), (slice(13, 15), slice(13, 15))])
def test_a_hole_between_the_latents_is_drawn_too(pipe, hole):
    mask = torch.zeros(32, 32)
    mask[hole] = 1
    touched = torch.nn.functional.max_pool2d(mask[None], 4)[0]
    source = Source(1.0, torch.zeros(1, 4, 8, 8), None, mask[None, None] > 0)
    now = Point(-1, -1, *[None] * 5)
    after = source.keep(torch.zeros(1, 4, 8, 8))(now, torch.ones(1, 4, 8, 8))
    assert torch.equal(after[0, 0], touched) and touched.any()


@pytest.mark.parametrize("mask", [np.ones((32, 32), np.uint8), torch.zeros(32, 32)])
def test_a_black_mask_is_told_of(pipe, mask):
    with pytest.warns(UserWarning, match="the mask is black, so nothing is drawn"):
        draw(pipe, image=PIXELS, mask_image=mask)


def test_a_strength_of_less_than_a_step_is_told_of(pipe):
    with pytest.warns(UserWarning, match="strength 0.04 of 10 steps is less than one step"):
        draw(pipe, image=PIXELS, strength=0.04)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image": None}, "image must be a PIL image"),
        ({"prompt": "a red seven"}, "4 new prompts do not fit 1 prompts"),
        ({"new_prompt": PALE[:1]}, "1 new prompts do not fit 4 prompts"),
        ({"prompt": [], "new_prompt": []}, "prompt is an empty list"),
        ({"num_inference_steps": "x"}, "num_inference_steps must be a whole number, not 'x'"),
        ({"guidance_scale": float("nan")}, "guidance_scale must be a number, not nan"),
        ({"strength": 2}, "strength must be a number from 0 to 1, not 2"),
    ],
)
@pytest.mark.parametrize("way", [prompt_to_prompt, exchange])
def test_an_edit_refuses_what_the_pipeline_refuses(pipe, way, changes, message):
    good = {"image": PIXELS, "prompt": OLD, "new_prompt": PALE, "num_inference_steps": 2}
    with pytest.raises(InputError) as error:
        way(pipe, **good | changes)
    assert message in str(error.value)


@pytest.mark.parametrize("keep", ["x", float("nan"), 5])
def test_a_share_that_is_none_is_refused(pipe, keep):
    with pytest.raises(InputError, match="keep must be a number from 0 to 1"):
        prompt_to_prompt(pipe, PIXELS, OLD, PALE, 2, keep=keep)


def test_inversion_and_back(pipe):
    latents = pipe.invert(PIXELS, OLD, 25)
    back = draw(pipe, latents=latents, num_inference_steps=25, guidance_scale=1.0, sampler="ddim")
    assert psnr(2 * back - 1, 2 * pipe.decode(pipe.encode(PIXELS)) - 1) > 45
    part = pipe.invert(PIXELS, OLD, 20, strength=0.5)
    ask = {"latents": part, "strength": 0.5, "num_inference_steps": 20, "sampler": "ddim"}
    assert psnr(2 * draw(pipe, **ask) - 1, 2 * pipe.decode(pipe.encode(PIXELS)) - 1) > 45


def test_prompt_to_prompt_recolours_and_keeps_the_rest(pipe):
    edited = prompt_to_prompt(pipe, PIXELS, OLD, PALE, 20, strength=0.5, keep=0.6)
    wanted = BATCH.attributes.clone()
    wanted[:, 1] = data.ONE.values[1].index("white")
    assert torch.equal(Judge.load()(2 * edited - 1), wanted)


@pytest.mark.parametrize(("keep", "steps"), [(0.0, 0), (0.5, 2), (1.0, 4)])
def test_the_new_words_look_where_the_old_ones_did(pipe, monkeypatch, keep, steps):
    seen, change = [], edit.change_cross_attention

    def spy(unet, look):
        return change(unet, lambda name, maps: seen.append((maps, look(name, maps))) or seen[-1][1])

    monkeypatch.setattr(edit, "change_cross_attention", spy)
    prompt_to_prompt(pipe, PIXELS, OLD, PALE, 4, strength=1.0, keep=keep)
    replaced = [(maps, new) for maps, new in seen if new is not None]
    assert len(replaced) * 4 == len(seen) * steps
    for maps, new in replaced:
        assert torch.equal(new, torch.cat([maps[:8], maps[:4]]))
    assert not [m for m in pipe.unet.modules() if m._forward_hooks]


def test_exchange_draws_another_digit(pipe):
    edited = exchange(pipe, PIXELS, OLD, OTHER, 20, generator=seeded())
    read = Judge.load()(2 * edited - 1)
    assert read[:, 0].tolist() == [2, 6, 8, 5] and read[:, 1].tolist() == [0, 5, 3, 2]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image": PIXELS, "strength": 1.1}, "strength must be a number from 0 to 1, not 1.1"),
        ({"image": PIXELS, "strength": -0.1}, "strength must be a number from 0 to 1"),
        ({"mask_image": PIXELS[0, 0]}, "mask_image needs an image"),
        ({"strength": 0.5}, "strength needs something to start from: image or latents"),
        ({"image": PIXELS[:3]}, "image has 3 pictures, which do not fit 4 to draw"),
        ({"image": "seven.png"}, "image must be a PIL image"),
    ],
)
def test_bad_input(pipe, options, message):
    with pytest.raises(InputError) as error:
        draw(pipe, **options)
    assert message in str(error.value)
