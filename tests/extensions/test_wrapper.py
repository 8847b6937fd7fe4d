"""What all wrappers of a pipeline have in common."""

import copy
import pickle
from itertools import permutations

import pytest
import torch
from torch import nn

from minisd import StableDiffusion
from minisd.errors import InputError
from minisd.extensions import (
    Wrapper,
    clip_guidance,
    cross_resolution,
    few_steps,
    image_prompt,
    pixels_or_latents,
    super_resolution,
)
from minisd.suites import EXTENSIONS
from tests.helpers import equal


class Pipe:
    """A pipeline that says where it was moved."""

    device = torch.device("meta")
    moves = ()

    def to(self, device=None, dtype=None):
        self.moves += ((device, dtype),)
        return self


def test_a_wrapper_moves_the_pipeline_and_what_it_adds_and_stays_a_wrapper():
    wrapper = Wrapper(Pipe())
    wrapper.network = nn.Linear(2, 2)
    assert wrapper.to("meta", torch.bfloat16) is wrapper
    assert wrapper.pipe.moves == (("meta", torch.bfloat16),)
    assert wrapper.network.weight.device == torch.device("meta")
    assert wrapper.network.weight.dtype == torch.float32  # each casts as it needs


def pickled(wrapper):
    return pickle.loads(pickle.dumps(wrapper))


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, pickled])
def test_a_wrapper_can_be_copied(again):
    wrapper = Wrapper(Pipe())
    wrapper.network = nn.Linear(2, 2)
    copied = again(Wrapper(wrapper))
    assert copied.device == Pipe.device
    assert torch.equal(copied.network.weight, wrapper.network.weight)


@pytest.fixture(scope="module")
def shipped():
    return StableDiffusion.from_pretrained()


STACKED = {
    "clip-guidance": clip_guidance.load,
    "image-prompt": image_prompt.load,
    "super-resolution": super_resolution.load,
}


def test_extensions_stack_in_any_order(shipped):
    """Each finds the checkpoint that it stands on; the image prompt sees with its own CLIP."""
    generator, picture = torch.Generator(), torch.rand(3, 32, 32)
    asked = {"image_prompt": picture, "num_inference_steps": 2, "output_type": "pt"}
    asked |= {"clip_guidance_scale": 0.0}
    drawn = []
    for names in permutations(STACKED):
        pipe = shipped
        for name in names:
            pipe = STACKED[name](EXTENSIONS / name, pipe)
        assert pipe.clip is shipped.clip and pipe.guiding_clip() is pipe.guide is not pipe.clip
        drawn.append(pipe("a red seven", generator=generator.manual_seed(0), **asked).images)
    assert drawn[0].shape == (1, 3, 128, 128) and all(equal(x, drawn[0]) for x in drawn)
    assert shipped.guide is None


def test_what_is_saved_from_a_stack_is_the_same(shipped, tmp_path):
    inner = image_prompt.load(EXTENSIONS / "image-prompt", shipped)
    clip_guidance.load(EXTENSIONS / "clip-guidance", inner).save_pretrained(str(tmp_path))
    again = clip_guidance.load(str(tmp_path), shipped)
    ours = clip_guidance.load(EXTENSIONS / "clip-guidance", shipped)
    assert equal(again.guide.state_dict(), ours.guide.state_dict())


@pytest.mark.parametrize(
    "load",
    [
        lambda pipe: few_steps.load(EXTENSIONS, pipe),
        lambda pipe: cross_resolution.CrossResolutionDiffusion(pipe, pipe.unet),
        lambda pipe: pixels_or_latents.PixelDiffusion(pipe, pipe.unet, pixels_or_latents.Pixels()),
    ],
)
def test_an_extension_that_brings_a_u_net_comes_first(load, tiny_pipe):
    with pytest.raises(InputError, match="brings a U-Net first, and others on top"):
        load(Wrapper(tiny_pipe))
