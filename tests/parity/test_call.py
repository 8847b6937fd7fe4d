"""Every argument of diffusers' call means the same here: from one directory, the same pictures."""

import inspect

import diffusers
import numpy as np
import pytest
import torch
from diffusers.callbacks import SDCFGCutoffCallback
from torch.testing import assert_close

from minisd import StableDiffusion
from minisd.errors import InputError
from minisd.models import UNet, UNetConfig
from minisd.pretrained import WEIGHTS

from . import reference
from .test_pipeline import SCHEDULERS, TEXTS, draw, same, their_pipeline

pytestmark = [
    pytest.mark.filterwarnings("ignore:the model never saw"),
    pytest.mark.filterwarnings("ignore:the prompt is too long"),
    pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning"),  # diffusers and numpy
    pytest.mark.filterwarnings("ignore:.*diffusers.callbacks:FutureWarning"),
]


@pytest.fixture(scope="module")
def pipes(tmp_path_factory):
    """(ours, theirs), read from the directory that diffusers wrote."""
    folder = tmp_path_factory.mktemp("pipeline")
    theirs = their_pipeline(folder, SCHEDULERS["ddim"])
    return StableDiffusion.from_pretrained(folder), theirs


def seeds(*numbers):
    return [torch.Generator().manual_seed(number) for number in numbers]


def call(pipe, *positional, **arguments):
    defaults = {"num_inference_steps": 4, "guidance_scale": 5.0, "output_type": "pt"}
    return pipe(*positional, **defaults | {"guidance_rescale": 0.0} | arguments).images


def embeddings(pipe, texts=TEXTS):
    """From diffusers: of the prompts, and of the empty ones."""
    return pipe.encode_prompt(texts, "cpu", 1, True)


def test_arguments_stand_in_the_order_of_diffusers():
    theirs = inspect.signature(diffusers.StableDiffusionPipeline.__call__).parameters
    ours = inspect.signature(StableDiffusion.__call__).parameters.values()
    positional = [p.name for p in ours if p.kind == p.POSITIONAL_OR_KEYWORD]
    assert positional == list(theirs)[: len(positional)]
    inpainting = inspect.signature(diffusers.StableDiffusionInpaintPipeline.__call__).parameters
    pictures = {"image", "mask_image", "strength"}
    assert pictures <= inpainting.keys()
    own = {"sampler", "progress", "combine", "clip_guidance_scale"}
    assert {p.name for p in ours} - theirs.keys() == pictures | own
    beyond = {"cross_attention_kwargs", "ip_adapter_image", "ip_adapter_image_embeds", "kwargs"}
    assert theirs.keys() - {p.name for p in ours} == beyond


def test_arguments_may_be_given_by_position(pipes):
    x_T = torch.randn(1, 4, 4, 6, generator=seeds(0)[0])
    arguments = (TEXTS[0], 16, 24, 3, None, None, 5.0, TEXTS[1], 1, 0.0, None, x_T)
    ours, theirs = (pipe(*arguments, output_type="pt").images for pipe in pipes)
    same(ours, theirs)


@pytest.mark.parametrize("eta", [0.0, 0.7])
def test_each_picture_has_a_generator_of_its_own(pipes, eta):
    ours, theirs = (call(pipe, TEXTS, generator=seeds(1, 2, 3), eta=eta) for pipe in pipes)
    same(ours, theirs)
    twice = call(pipes[0], TEXTS[0], generator=tuple(seeds(1, 5)), num_images_per_prompt=2, eta=eta)
    same(twice, call(pipes[1], TEXTS[0], generator=seeds(1, 5), num_images_per_prompt=2, eta=eta))
    for picture, text, seed in zip(ours, TEXTS, (1, 2, 3), strict=True):
        alone = call(pipes[0], text, generator=seeds(seed)[0], eta=eta)
        assert_close(picture, alone[0], atol=1e-5, rtol=0)
    assert (ours[0] - call(pipes[0], TEXTS[0], generator=seeds(2), eta=eta)[0]).abs().max() > 0.01


def test_a_sampler_that_draws_noise_takes_a_list_of_generators(tmp_path):
    theirs = their_pipeline(tmp_path, SCHEDULERS["ddpm"])
    ours = StableDiffusion.from_pretrained(tmp_path)
    same(*(call(pipe, TEXTS, generator=seeds(1, 2, 3)) for pipe in (ours, theirs)))


@pytest.mark.parametrize("number", [1, 2])
def test_prompts_may_be_given_as_embeddings(pipes, number):
    prompts, empty = embeddings(pipes[1])
    negatives = prompts.flip(0)
    options = {"num_images_per_prompt": number}
    plain = call(pipes[0], TEXTS, generator=seeds(0)[0], **options)
    for arguments in (
        {"prompt_embeds": prompts},
        {"prompt_embeds": prompts, "negative_prompt_embeds": empty},
        {"prompt": TEXTS, "negative_prompt_embeds": empty},
        {"prompt": TEXTS, "negative_prompt_embeds": negatives},
        {"prompt_embeds": prompts, "negative_prompt": TEXTS[::-1]},
        {"prompt_embeds": prompts[:, :5], "negative_prompt_embeds": negatives[:, :5]},
        {"prompt_embeds": prompts[:, :5], "guidance_scale": 1.0},
    ):
        ours, theirs = (call(pipe, generator=seeds(0)[0], **options, **arguments) for pipe in pipes)
        same(ours, theirs)
        told_nothing_new = "negative_prompt" not in arguments and negatives is not arguments.get(
            "negative_prompt_embeds"
        )
        if told_nothing_new and arguments.get("prompt_embeds", prompts) is prompts:
            assert_close(ours, plain, atol=1e-5, rtol=0)


@pytest.mark.parametrize("skip", [0, 1, 2])
def test_clip_skip_leaves_out_the_same_layers(pipes, skip, monkeypatch):
    cls = type(pipes[1].text_encoder)  # transformers 5 lacks what diffusers 0.42 reads here
    monkeypatch.setattr(cls, "text_model", property(lambda self: self), raising=False)
    ours, theirs = (draw(pipe, TEXTS, clip_skip=skip, negative_prompt=TEXTS) for pipe in pipes)
    same(ours, theirs)
    change = (ours - draw(pipes[0], TEXTS, negative_prompt=TEXTS)).abs().max()
    assert change > 0.01 if skip else change == 0


@pytest.mark.parametrize("output_type", ["np", "latent"])
def test_the_other_types_of_output(pipes, output_type):
    ours, theirs = (draw(pipe, TEXTS, output_type=output_type) for pipe in pipes)
    assert type(ours) is type(theirs) and ours.dtype == theirs.dtype
    assert_close(torch.as_tensor(ours), torch.as_tensor(theirs), atol=1e-4, rtol=0)
    if output_type == "latent":
        assert_close(pipes[0].decode(ours), draw(pipes[0], TEXTS), atol=1e-6, rtol=0)


def test_without_return_dict_a_tuple_is_returned(pipes):
    x_T, arguments = torch.randn(1, 4, 8, 8), {"num_inference_steps": 2, "output_type": "pt"}
    results = [pipe(TEXTS[0], latents=x_T, return_dict=False, **arguments) for pipe in pipes]
    for result in results:
        assert isinstance(result, tuple) and len(result) == 2 and result[1] is None
    assert_close(results[0][0], results[1][0], atol=1e-4, rtol=0)


# callback_on_step_end


@pytest.mark.parametrize("scale", [1.0, 5.0])
def test_the_callback_is_shown_what_diffusers_shows(pipes, scale):
    seen = {pipe: [] for pipe in pipes}

    def keep(pipe, step, timestep, tensors):
        seen[pipe].append((pipe.num_timesteps, step, int(timestep), dict(tensors)))
        return tensors

    names = ["latents", "prompt_embeds", "negative_prompt_embeds"]
    options = {"callback_on_step_end": keep, "callback_on_step_end_tensor_inputs": names}
    same(*(draw(pipe, TEXTS, guidance_scale=scale, **options) for pipe in pipes))
    assert len(seen[pipes[0]]) == 4
    for ours, theirs in zip(*seen.values(), strict=True):
        assert ours[:3] == theirs[:3] and ours[3].keys() == theirs[3].keys()
        for name in names:
            assert_close(ours[3][name], theirs[3][name], atol=1e-4, rtol=1e-4)


def change_latents(pipe, step, timestep, tensors):
    return {"latents": 0.9 * tensors["latents"] + 0.01 * step}


def change_prompts(pipe, step, timestep, tensors):
    if step == 1:
        tensors["prompt_embeds"] = -tensors["prompt_embeds"]
    return tensors


def end_guidance(pipe, step, timestep, tensors):
    """The example of diffusers' documentation."""
    if step == int(pipe.num_timesteps * 0.4):
        tensors["prompt_embeds"] = tensors["prompt_embeds"].chunk(2)[-1]
        pipe._guidance_scale = 0.0
    return tensors


@pytest.mark.parametrize("callback", [change_latents, change_prompts, end_guidance])
def test_the_callback_may_change_what_diffusers_lets_it_change(pipes, callback):
    names = ["latents"] if callback is change_latents else ["prompt_embeds"]
    options = {"callback_on_step_end": callback, "callback_on_step_end_tensor_inputs": names}
    ours, theirs = (draw(pipe, TEXTS, **options) for pipe in pipes)
    same(ours, theirs)
    assert (ours - draw(pipes[0], TEXTS)).abs().max() > 0.01


def test_the_callbacks_of_diffusers_serve_here(pipes):
    """They name their tensors themselves."""
    options = {"callback_on_step_end": SDCFGCutoffCallback(cutoff_step_ratio=0.4)}
    ours, theirs = (draw(pipe, **options) for pipe in pipes)
    same(ours, theirs)
    assert (ours - draw(pipes[0])).abs().max() > 0.01


# Sizes


@pytest.mark.parametrize("size", [(5, 7), (1, 1), (9, 2), (8, 8)], ids=str)
@torch.no_grad()
def test_a_unet_of_four_levels_takes_latents_of_any_size(size):
    widths, attends = (8, 8, 16, 16), (True, True, True, False)
    theirs = reference.unet(widths, attends, 1)
    config = {"cross_attention_dim": 12, "num_heads": 2, "norm_num_groups": reference.GROUPS}
    ours = UNet(UNetConfig(block_out_channels=widths, cross_attention=attends, **config))
    ours.load_state_dict(theirs.state_dict())
    x, context, t = torch.randn(2, 4, *size), torch.randn(2, 8, 12), torch.tensor(500)
    assert_close(ours(x, t, context), theirs(x, t, context).sample, atol=1e-5, rtol=1e-4)


@pytest.fixture(scope="module")
def deep(tmp_path_factory):
    """As `pipes`, with three levels in the U-Net: 32 pixels halve to 8, 4, 2 latents."""
    folder = tmp_path_factory.mktemp("deep")
    theirs = their_pipeline(folder, SCHEDULERS["ddim"])
    unet = reference.unet((8, 8, 16), (True, True, False), 1, cross_attention_dim=16)
    theirs.register_modules(unet=unet)
    theirs.save_pretrained(folder)
    return StableDiffusion.from_pretrained(folder), theirs


@pytest.mark.parametrize("height, width", [(24, 40), (8, 72), (32, 32)])
def test_sizes_that_do_not_halve_evenly_are_drawn_as_diffusers_draws_them(deep, height, width):
    ours, theirs = (call(p, TEXTS, height=height, width=width, generator=seeds(0)[0]) for p in deep)
    assert ours.shape == (3, 3, height, width)
    same(ours, theirs)


def test_latents_decide_the_size_if_none_is_named(deep):
    x_T = torch.randn(1, 4, 5, 7, generator=seeds(0)[0])
    ours, theirs = (call(pipe, TEXTS[0], latents=x_T) for pipe in deep)
    assert ours.shape == (1, 3, 20, 28)
    same(ours, theirs)


# What diffusers refuses


PROMPT, EMBEDS, LONGER = "a red seven", torch.zeros(1, 8, 16), torch.zeros(1, 9, 16)
CALLBACK = {"callback_on_step_end": lambda *_: {}}
REFUSED = [
    ({"prompt": PROMPT, "prompt_embeds": EMBEDS}, "give prompt or prompt_embeds, not both"),
    ({}, "give prompt or prompt_embeds"),
    ({"prompt": 7}, "prompt must be a text or a list of texts, not 7"),
    ({"prompt": [7]}, "prompt must be a text or a list of texts, not [7]"),
    ({"prompt": b"a"}, "prompt must be a text or a list of texts, not b'a'"),
    (
        {"prompt": PROMPT, "negative_prompt": 7},
        "negative_prompt must be a text or a list of texts, not 7",
    ),
    (
        {"prompt": PROMPT, "negative_prompt": PROMPT, "negative_prompt_embeds": EMBEDS},
        "give negative_prompt or negative_prompt_embeds, not both",
    ),
    (
        {"prompt_embeds": EMBEDS, "negative_prompt_embeds": LONGER},
        "prompts and negative prompts must have one shape, not (1, 8, 16) and (1, 9, 16)",
    ),
    (
        {"prompt": [PROMPT] * 2, "negative_prompt_embeds": EMBEDS},
        "prompts and negative prompts must have one shape, not (2, 8, 16) and (1, 8, 16)",
    ),
    (
        {"prompt_embeds": EMBEDS[0]},
        "prompt_embeds must have the shape (any, any, 16), not (8, 16)",
    ),
    (
        {"prompt_embeds": EMBEDS[..., :5]},
        "prompt_embeds must have the shape (any, any, 16), not (1, 8, 5)",
    ),
    ({"prompt_embeds": [[0.0]]}, "prompt_embeds must be a tensor of floats, not [[0.0]]"),
    (
        {"prompt": PROMPT, "height": 36, "width": 32},
        "height and width must be multiples of 8, not 36x32",
    ),
    ({"prompt": PROMPT, "height": 32, "width": "32"}, "width must be a whole number, not '32'"),
    (
        {"prompt": PROMPT, "generator": seeds(0, 1)},
        "2 generators do not fit 1 pictures",
    ),
    (
        {"prompt": PROMPT, "generator": 3},
        "generator must be a torch.Generator or a list of them, not 3",
    ),
    (
        {"prompt": PROMPT, "timesteps": [999, 499]},
        "minisd takes no timesteps or sigmas; give num_inference_steps",
    ),
    (
        {"prompt": PROMPT, "sigmas": [9.0, 1.0]},
        "minisd takes no timesteps or sigmas; give num_inference_steps",
    ),
    ({"prompt": PROMPT, "clip_skip": 3}, "clip_skip must be a whole number from 0 to 2, not 3"),
    (
        {"prompt": PROMPT, "num_images_per_prompt": None},
        "num_images_per_prompt must be a whole number of at least 1, not None",
    ),
    (
        {"prompt": PROMPT, "callback_on_step_end": 3},
        "callback_on_step_end must be a function, not 3",
    ),
    (
        {"prompt": PROMPT, "callback_on_step_end_tensor_inputs": ["image"], **CALLBACK},
        "callback_on_step_end_tensor_inputs must list some of latents, prompt_embeds, "
        "negative_prompt_embeds, pred_original_sample, not ['image']",
    ),
    (
        {"prompt": PROMPT, "callback_on_step_end": lambda *_: None},
        "callback_on_step_end must return a dict, not None",
    ),
    ({"prompt": PROMPT, "latents": EMBEDS}, "latents must have the shape (any, 4, any, any), "),
    ({"prompt": PROMPT, "cross_attention_kwargs": {"scale": 0.5}}, "'cross_attention_kwargs'"),
    ({"prompt": PROMPT, "ip_adapter_image": np.zeros(3)}, "'ip_adapter_image'"),
]


@pytest.mark.parametrize(("arguments", "message"), REFUSED, ids=[m for _, m in REFUSED])
def test_what_diffusers_refuses_is_refused_in_one_line(pipes, arguments, message):
    with pytest.raises((InputError, TypeError)) as error:
        call(pipes[0], **arguments)
    assert message in str(error.value) and "\n" not in str(error.value)
    assert isinstance(error.value, InputError) or "unexpected keyword" in str(error.value)
    with pytest.raises(Exception):  # noqa: B017 it has many kinds of errors
        call(pipes[1], **arguments)


# The shipped weights


@pytest.mark.skipif(not WEIGHTS.exists(), reason="the shipped weights are not there")
def test_the_shipped_weights_are_called_alike():
    theirs = diffusers.StableDiffusionPipeline.from_pretrained(WEIGHTS)
    theirs.set_progress_bar_config(disable=True)
    ours = StableDiffusion.from_pretrained()
    prompts, empty = embeddings(theirs, ["a red seven", "a large blue zero"])
    embeds = {"prompt_embeds": prompts, "negative_prompt_embeds": empty}
    options = {"height": 40, "callback_on_step_end": change_latents, "guidance_rescale": 0.9}
    a, b = (
        call(p, width=24, generator=seeds(1, 2), output_type="np", **embeds, **options)
        for p in (ours, theirs)
    )
    assert a.shape == (2, 40, 24, 3)
    assert np.abs(a - b).max() < 1e-3
