"""What surrounds the walk: dtypes, numbers that are not finite, short messages, who is warned."""

import copy
import inspect
import warnings
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from minisd import StableDiffusion, data, plots
from minisd.data.digits import load_digits
from minisd.diffusion import NoiseSchedule, ScheduleConfig, draw_noise
from minisd.errors import InputError, quote, shorten
from minisd.machine import pick_device
from minisd.training import NETWORKS, RECIPES, override

HALF = [torch.bfloat16, torch.float16]
NAN, INF = float("nan"), float("inf")


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def pipe(tiny_pipe):
    """To be changed at will."""
    return copy.deepcopy(tiny_pipe)


def draw(pipe, prompt="a red seven", **options):
    options = {"num_inference_steps": 2, "output_type": "pt", "generator": seeded()} | options
    return pipe(prompt, **options).images


# The noise of several generators


def test_a_list_of_generators_draws_row_by_row():
    rows = draw_noise((2, 4, 3, 3), [seeded(1), seeded(2)])
    for row, seed in zip(rows, (1, 2), strict=True):
        assert torch.equal(row[None], draw_noise((1, 4, 3, 3), seeded(seed)))


# Half precision


@pytest.mark.parametrize("dtype", HALF, ids=str)
def test_a_pipeline_in_half_precision_draws_nearly_the_same(pipe, tiny_weights, dtype):
    plain = draw(pipe, guidance_scale=3.0)
    latents = pipe.encode(plain)
    assert pipe.to(dtype) is pipe and pipe.dtype == dtype
    assert {p.dtype for network in pipe.networks for p in network.parameters()} == {dtype}
    half = draw(pipe, guidance_scale=3.0)
    assert half.dtype == torch.float32
    assert 0 < (half - plain).abs().mean() < 0.01
    for name in ("dtype", "torch_dtype"):
        other = StableDiffusion.from_pretrained(tiny_weights, **{name: dtype})
        assert torch.equal(draw(other, guidance_scale=3.0), half)
    assert 0 < (pipe.encode(plain) - latents).abs().mean() < 0.01


def test_the_shipped_weights_draw_what_was_asked_for_in_half_precision():
    pipe = StableDiffusion.from_pretrained()
    plain = draw(pipe, num_inference_steps=4)
    assert (draw(pipe.to("cpu", torch.bfloat16), num_inference_steps=4) - plain).abs().mean() < 0.01


def test_a_text_encoder_in_half_precision_is_stored_as_float32(pipe, tmp_path):
    """transformers computes in the type in which it is stored."""
    pipe.to(torch.float16).save_pretrained(tmp_path)
    stored = {"text_encoder/model": torch.float32, "unet/diffusion_pytorch_model": torch.float16}
    for name, dtype in stored.items():
        tensors = load_file(tmp_path / f"{name}.safetensors").values()
        assert {tensor.dtype for tensor in tensors} == {dtype}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("cuda:99",), "there is no device 'cuda:99' on this machine"),
        (("nonsense", torch.float16), "there is no device 'nonsense' on this machine"),
        ((torch.device("cuda:99"),), "there is no device 'cuda:99' on this machine"),
        ((torch.int64,), "must be one of torch.float32, torch.bfloat16, torch.float16, not torch."),
        (("cpu", torch.complex64), "dtype must be one of .*, not torch.complex64"),
        (("cpu", "float16"), "dtype must be one of .*, not 'float16'"),
    ],
    ids=str,
)
def test_where_a_pipeline_cannot_go(pipe, arguments, message):
    with pytest.raises(InputError, match=message):
        pipe.to(*arguments)
    assert pipe.dtype == torch.float32


def test_weights_are_not_stored_as_numbers_that_cannot_hold_them(pipe, tmp_path):
    with pytest.raises(InputError, match="dtype must be one of .*, not torch.int8"):
        pipe.save_pretrained(tmp_path, torch.int8)
    assert not list(tmp_path.iterdir())


# Numbers that are not finite


@pytest.mark.parametrize("bad", [NAN, INF])
@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("latents", (1, 4, 8, 8)),
        ("prompt_embeds", (1, 16, 16)),
        ("negative_prompt_embeds", (1, 16, 16)),
    ],
)
def test_tensors_that_are_not_finite_are_refused_at_once(pipe, name, shape, bad):
    x = torch.zeros(shape)
    x[0, 1, 2] = bad
    prompt = None if name == "prompt_embeds" else "a red seven"
    pipe.unet.forward = None  # not called
    with pytest.raises(InputError, match=f"^{name} must hold finite numbers, not NaN or infinity$"):
        draw(pipe, prompt, **{name: x})


@pytest.mark.parametrize("name", ["guidance_scale", "guidance_rescale"])
def test_numbers_that_are_not_finite_are_refused(pipe, name):
    with pytest.raises(InputError, match=f"^{name} must be a number.*, not nan$"):
        draw(pipe, **{name: NAN})
    with pytest.raises(InputError, match=f"^{name} must be a number.*, not 10{{26}} ... 0{{27}}$"):
        draw(pipe, **{name: 10**400})  # which is no float
    with pytest.raises(InputError, match=r"^eta must be from 0 to 1.* not nan$"):
        draw(pipe, eta=NAN)


def test_a_huge_whole_number_is_as_good_as_a_huge_float(pipe):
    for scale in (10**100, 1e100):
        with pytest.raises(
            InputError, match="^the latents are not finite numbers after timestep 999"
        ):
            draw(pipe, guidance_scale=scale)


def test_latents_that_become_nan_end_the_walk_at_once(pipe):
    calls = []
    pipe.unet.register_forward_hook(lambda *_: calls.append(1))
    pipe.unet.conv_out.bias.data[0] = NAN
    message = "the latents are not finite numbers after timestep 999: damaged weights, a huge "
    with pytest.raises(InputError, match=message):
        draw(pipe, num_inference_steps=10)
    assert calls == [1]


def test_guidance_that_overflows_gives_no_black_picture(pipe):
    with pytest.raises(InputError, match="the latents are not finite numbers after timestep"):
        draw(pipe, guidance_scale=1e38, num_inference_steps=4)


def test_a_decoder_that_yields_nan_gives_no_black_picture(pipe):
    pipe.autoencoder.decoder.conv_out.bias.data[0] = NAN
    with pytest.raises(InputError, match="pictures that are not finite numbers"):
        draw(pipe)


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        ({"latents": torch.full((1, 4, 8, 8), NAN)}, "latents of the callback must hold finite"),
        ({"latents": torch.zeros(1, 4, 8, 7)}, r"must have the shape \(1, 4, 8, 8\), not \(1, 4"),
        ({"prompt_embeds": torch.zeros(3, 16, 16)}, "3 prompt_embeds do not fit 1 pictures"),
        ({"prompt_embeds": None}, "prompt_embeds of the callback must be a tensor of floats, not"),
    ],
    ids=["nan", "shape", "count", "none"],
)
def test_what_a_callback_returns_is_checked(pipe, returned, message):
    with pytest.raises(InputError, match=message):
        draw(pipe, callback_on_step_end=lambda *_: returned)


def test_latents_must_have_the_size_that_was_asked_for(pipe):
    x_T = torch.zeros(1, 4, 8, 8)
    assert torch.equal(draw(pipe, latents=x_T, height=32, width=32), draw(pipe, latents=x_T))
    with pytest.raises(InputError, match=r"shape \(any, 4, 16, any\), not \(1, 4, 8, 8\)"):
        draw(pipe, latents=x_T, height=64)


# Messages


def test_what_is_quoted_is_short_and_in_one_line():
    assert quote("a red seven") == "'a red seven'"
    assert shorten("abcdefghijklmnop", limit=11) == "abc ... nop"
    assert quote("x" * 99) == "'" + "x" * 26 + " ... " + "x" * 26 + "'"
    assert "\n" not in quote(torch.zeros(20, 20)) and len(quote([0.5] * 9999, limit=20)) <= 20


LONG, MANY = "x" * 20_000, [0.5] * 7_000
TRAINING = RECIPES | NETWORKS
ENTRIES = {
    "a prompt of one word": lambda pipe: draw(pipe, LONG),
    "a prompt of many words": lambda pipe: draw(pipe, "seven " * 4_000),
    "unknown words": lambda pipe: draw(pipe, " ".join("x" * n for n in range(1, 200))),
    "an encoded prompt": lambda pipe: pipe.encode_prompt([LONG]),
    "prompts": lambda pipe: draw(pipe, MANY),
    **{
        name: lambda pipe, name=name, value=value: draw(pipe, **{name: value})
        for value in (LONG, MANY)
        for name in (
            "height",
            "num_inference_steps",
            "guidance_scale",
            "guidance_rescale",
            "num_images_per_prompt",
            "eta",
            "generator",
            "latents",
            "negative_prompt_embeds",
            "output_type",
            "clip_skip",
            "callback_on_step_end",
            "callback_on_step_end_tensor_inputs",
            "sampler",
        )
    },
    "a negative prompt": lambda pipe: draw(pipe, negative_prompt=LONG),
    "negative prompts": lambda pipe: draw(pipe, negative_prompt=[LONG] * 3),
    "embeddings": lambda pipe: draw(pipe, None, prompt_embeds=MANY),
    "a callback's dict": lambda pipe: draw(pipe, callback_on_step_end=lambda *_: MANY),
    "a device": lambda pipe: pipe.to(LONG),
    "a dtype": lambda pipe: pipe.to("cpu", LONG),
    "another device": lambda pipe: pick_device(LONG),
    "a directory": lambda pipe: StableDiffusion.from_pretrained(LONG),
    "betas": lambda pipe: NoiseSchedule(ScheduleConfig(beta_schedule=LONG)),
    "a prediction": lambda pipe: NoiseSchedule(ScheduleConfig(prediction_type=LONG)),
    "a spacing": lambda pipe: NoiseSchedule(ScheduleConfig(timestep_spacing=LONG)).timesteps(5),
    "a setting": lambda pipe: override(TRAINING, [LONG]),
    "a setting's name": lambda pipe: override(TRAINING, [f"unet.{LONG}=3"]),
    "a setting's value": lambda pipe: override(TRAINING, [f"unet.num_heads={LONG}"]),
    "a picture's name": lambda pipe: plots.check_name(LONG),
    "a split": lambda pipe: load_digits(LONG),
    "a batch's split": lambda pipe: data.ONE.batch(2, LONG, seeded()),
}


@pytest.mark.parametrize("entry", ENTRIES)
def test_every_message_is_one_short_line(tiny_pipe, entry):
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        try:
            ENTRIES[entry](tiny_pipe)
            messages = []
        except InputError as error:
            messages = [str(error)]
    messages += [str(warning.message) for warning in told]
    assert messages
    for message in messages:
        assert len(message) <= 300 and "\n" not in message


def test_warnings_point_at_the_users_line(tiny_pipe):
    def line():
        return inspect.currentframe().f_back.f_lineno

    expected = []
    with pytest.warns(UserWarning) as told:
        tiny_pipe("a red elephant", num_inference_steps=1)
        expected.append(line() - 1)
        tiny_pipe.encode_prompt(["a red mouse"])
        expected.append(line() - 1)
        with torch.no_grad():
            tiny_pipe.encode_prompt("red " * 40)
            expected.append(line() - 1)
    assert [warning.filename for warning in told] == [str(Path(__file__))] * 3
    assert [warning.lineno for warning in told] == expected
