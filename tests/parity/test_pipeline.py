"""One directory, two libraries, the same pictures; whichever of the two wrote the directory."""

import inspect
import json

import diffusers
import numpy as np
import pytest
import torch
import transformers
from torch.testing import assert_close

from minisd import StableDiffusion
from minisd.call import SamplingDefaults
from minisd.checkpoint import save_tokenizer
from minisd.checkpoint.configs import clip_from_hf
from minisd.diffusion import NoiseSchedule, ScheduleConfig
from minisd.errors import InputError
from minisd.models import CLIP, Autoencoder, AutoencoderConfig, UNet, UNetConfig
from minisd.pretrained import WEIGHTS
from minisd.tokenizer import Tokenizer

from . import reference

pytestmark = [
    pytest.mark.filterwarnings("ignore:the model never saw"),
    pytest.mark.filterwarnings("ignore:the prompt is too long"),
    pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning"),  # diffusers and numpy
]
TEXTS = ["a large red seven at the top left", "a small green two in the center", "the digit 7"]
ZERO_SNR = {
    "prediction_type": "v_prediction",
    "rescale_betas_zero_snr": True,
    "timestep_spacing": "trailing",
    "steps_offset": 1,  # not used in trailing, but diffusers' pipeline warns of any other
}
LATENTS = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
SD_BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
SCHEDULERS = {
    "stable diffusion 1.x": diffusers.DDIMScheduler(
        **SD_BETAS, clip_sample=False, set_alpha_to_one=False, steps_offset=1
    ),
    "ddim": diffusers.DDIMScheduler(**SD_BETAS, **ZERO_SNR, clip_sample=False),
    "dpm++": diffusers.DPMSolverMultistepScheduler(**SD_BETAS, steps_offset=1),
    "unipc": diffusers.UniPCMultistepScheduler(**SD_BETAS, steps_offset=1),
    "ddpm": diffusers.DDPMScheduler(**SD_BETAS, **ZERO_SNR, clip_sample=False),
}
OTHERS = {  # a walk of these differs in its scheduler alone
    "euler": diffusers.EulerDiscreteScheduler(**SD_BETAS, steps_offset=1),
    "euler, zero SNR": diffusers.EulerDiscreteScheduler(**SD_BETAS, **ZERO_SNR),
    "euler_ancestral": diffusers.EulerAncestralDiscreteScheduler(
        **SD_BETAS, timestep_spacing="leading", steps_offset=1
    ),
    "heun": diffusers.HeunDiscreteScheduler(**SD_BETAS, steps_offset=1),
    "lcm, zero SNR": diffusers.LCMScheduler(**SD_BETAS, **ZERO_SNR),
}


def their_pipeline(folder, scheduler):
    """A StableDiffusionPipeline with random weights, saved in `folder`; it draws noise."""
    tokenizer = Tokenizer.train(TEXTS, max_length=8)
    save_tokenizer(folder / "made_by_minisd", tokenizer)
    vae = reference.autoencoder((8, 16, 16), scaling_factor=0.7)
    with torch.no_grad():
        vae.decoder.conv_out.weight.mul_(0.2)
    pipe = diffusers.StableDiffusionPipeline(
        vae=vae,
        text_encoder=reference.text_encoder(len(tokenizer)),
        tokenizer=transformers.CLIPTokenizer.from_pretrained(folder / "made_by_minisd"),
        unet=reference.unet((8, 16), (True, True), 1, cross_attention_dim=16),
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipe.set_progress_bar_config(disable=True)
    pipe.save_pretrained(folder)
    return pipe


@pytest.fixture(scope="module", params=SCHEDULERS)
def pipes(request, tmp_path_factory):
    """(ours, theirs), read from the directory that diffusers wrote."""
    folder = tmp_path_factory.mktemp("pipeline")
    theirs = their_pipeline(folder, SCHEDULERS[request.param])
    return StableDiffusion.from_pretrained(folder), theirs


def draw(pipe, prompt=TEXTS[0], steps=4, seed=None, **arguments):
    """Pictures (B, 3, H, W) from fixed latents, or from a seed alone."""
    generator = torch.Generator().manual_seed(seed or 0)
    if seed is None:
        count = 1 if isinstance(prompt, str) else len(prompt)
        count *= arguments.get("num_images_per_prompt", 1)
        arguments["latents"] = torch.randn(count, 4, 8, 8, generator=generator)
    defaults = {"guidance_scale": 5.0, "guidance_rescale": 0.0, "output_type": "pt"}
    arguments = defaults | arguments
    return pipe(prompt, num_inference_steps=steps, generator=generator, **arguments).images


def same(ours, theirs):
    assert theirs.std() > 0.05 and (theirs % 1 == 0).float().mean() < 0.05  # not grey, not clipped
    assert_close(ours, theirs, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    "arguments",
    [
        {"guidance_scale": 1.0},
        {"guidance_scale": 5.0},
        {"guidance_rescale": 0.7},
        {"negative_prompt": "a small green two"},
        {"prompt": TEXTS},
        {"prompt": TEXTS, "negative_prompt": TEXTS[::-1], "num_images_per_prompt": 2},
        {"prompt": "a very long prompt that does not fit the context of eight tokens"},
        {"steps": 15},
        {"seed": 3},
        {"seed": 4, "num_images_per_prompt": 2, "height": 16, "width": 48},
    ],
    ids=str,
)
def test_minisd_draws_what_diffusers_draws(pipes, arguments):
    same(*(draw(pipe, **arguments) for pipe in pipes))


@pytest.mark.parametrize("name", OTHERS)
def test_the_other_samplers_draw_what_diffusers_draws(tmp_path, name):
    theirs = their_pipeline(tmp_path, OTHERS[name])
    ours = StableDiffusion.from_pretrained(tmp_path)
    assert ours.sampler == name.split(",")[0]
    for arguments in ({"steps": 4}, {"steps": 7, "seed": 3}):  # of latents, and of a seed alone
        same(*(draw(pipe, **arguments) for pipe in (ours, theirs)))


def test_every_argument_changes_the_picture(pipes):
    """Or the test above would show nothing."""
    plain = draw(pipes[0])
    for arguments in (
        {"guidance_scale": 1},
        {"guidance_rescale": 0.7},
        {"negative_prompt": TEXTS[1]},
        {"steps": 15},
    ):
        assert (draw(pipes[0], **arguments) - plain).abs().max() > 0.01, arguments


def test_pil_images_are_those_of_diffusers(pipes):
    ours, theirs = (draw(pipe, TEXTS, output_type="pil") for pipe in pipes)
    for a, b in zip(ours, theirs, strict=True):
        assert a.size == b.size == (32, 32) and a.mode == b.mode == "RGB"
        difference = np.abs(np.int16(a) - np.int16(b))
        assert difference.max() <= 1 and difference.mean() < 0.01  # a half is rounded either way


def test_eta_adds_the_noise_of_diffusers(tmp_path):
    theirs = their_pipeline(tmp_path, SCHEDULERS["ddim"])
    ours = StableDiffusion.from_pretrained(tmp_path)
    same(*(draw(pipe, eta=0.7) for pipe in (ours, theirs)))
    assert (draw(ours, eta=0.7) - draw(ours)).abs().max() > 0.01


def our_pipeline(sampler="ddim", **schedule):
    """A pipeline of ours with random weights, CLIP and all."""
    tokenizer = Tokenizer.train(TEXTS, max_length=8)
    clip = CLIP(clip_from_hf(reference.clip(len(tokenizer)).config.to_dict()))
    unet = UNet(UNetConfig(block_out_channels=(16, 32), cross_attention_dim=16, num_heads=2))
    config = AutoencoderConfig(block_out_channels=(8, 16, 16), scaling_factor=0.7)
    autoencoder = reference.randomise(Autoencoder(config))
    with torch.no_grad():
        autoencoder.decoder.conv_out.weight.mul_(0.2)
    return StableDiffusion(
        tokenizer,
        reference.randomise(clip).text_model,
        reference.randomise(unet),
        autoencoder,
        NoiseSchedule(ScheduleConfig(**schedule)),
        clip,
        sampler,
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize(
    ("sampler", "schedule"),
    [
        ("ddim", {}),  # minisd's own
        ("ddpm", {}),
        ("dpm++", {"timestep_spacing": "linspace"}),
        ("unipc", {}),
        ("euler", {}),
        ("euler_ancestral", {"timestep_spacing": "linspace"}),
        ("heun", {"rescale_betas_zero_snr": False}),
        (
            "ddim",
            {
                "prediction_type": "epsilon",
                "rescale_betas_zero_snr": False,
                "timestep_spacing": "leading",
                "beta_schedule": "cosine",
                "num_train_timesteps": 500,
                "steps_offset": 1,
                "set_alpha_to_one": False,
            },
        ),
    ],
    ids=["ddim", "ddpm", "dpm++", "unipc", "euler", "euler_ancestral", "heun", "other options"],
)
def test_diffusers_draws_what_minisd_saved(tmp_path, sampler, schedule, dtype):
    ours = our_pipeline(sampler, **schedule)
    ours.save_pretrained(tmp_path, dtype)
    if dtype == torch.float16:
        ours = StableDiffusion.from_pretrained(tmp_path)  # with the rounded weights
    theirs = diffusers.StableDiffusionPipeline.from_pretrained(tmp_path)
    theirs.set_progress_bar_config(disable=True)
    same(draw(ours, TEXTS), draw(theirs, TEXTS))


@torch.no_grad()
def test_transformers_reads_the_clip_and_the_text_encoder_that_minisd_saved(tmp_path):
    ours = our_pipeline()
    ours.save_pretrained(tmp_path)
    ids, images = ours.tokenizer(TEXTS), torch.randn(2, 3, 16, 16)
    clip = transformers.CLIPModel.from_pretrained(tmp_path / "clip")
    logits = clip(input_ids=ids, pixel_values=images).logits_per_image
    assert_close(ours.clip(images, ids), logits, atol=1e-4, rtol=1e-4)
    text_encoder = transformers.CLIPTextModel.from_pretrained(tmp_path / "text_encoder")
    expected = text_encoder(ids)
    assert_close(ours.text_encoder(ids), expected.last_hidden_state, atol=1e-5, rtol=1e-4)


def test_a_foreign_checkpoint_is_sampled_as_diffusers_does_by_default(pipes):
    ours, theirs = pipes
    defaults = inspect.signature(type(theirs).__call__).parameters
    assert ours.defaults == SamplingDefaults()
    assert vars(ours.defaults) == {name: defaults[name].default for name in vars(ours.defaults)}


def test_the_call_with_nothing_but_a_prompt_draws_what_diffusers_draws(tmp_path):
    """Of a directory with diffusers' own scheduler, whose options are older than its pipeline."""
    scheduler = diffusers.DDIMScheduler(**SD_BETAS)  # steps_offset 0, clip_sample true
    their_pipeline(tmp_path, scheduler)
    options = {"steps_offset": 0, "clip_sample": True, "_class_name": "DDIMScheduler", **SD_BETAS}
    (tmp_path / "scheduler" / "scheduler_config.json").write_text(json.dumps(options))
    ours = StableDiffusion.from_pretrained(tmp_path)
    theirs = diffusers.StableDiffusionPipeline.from_pretrained(tmp_path)
    theirs.set_progress_bar_config(disable=True)
    same(*(pipe(TEXTS[0], latents=LATENTS, output_type="pt").images for pipe in (ours, theirs)))


def test_what_is_not_read_right_is_refused_with_its_file_and_a_stand_in_is_told_of(tmp_path):
    options = {"steps_offset": 1, "set_alpha_to_one": False, "skip_prk_steps": True}
    theirs = their_pipeline(tmp_path, diffusers.PNDMScheduler(**SD_BETAS, **options))
    with pytest.warns(UserWarning, match="minisd has no PNDMScheduler: it draws with ddim") as told:
        ours = StableDiffusion.from_pretrained(tmp_path)
    assert [w.filename for w in told] == [__file__]
    theirs.scheduler = diffusers.DDIMScheduler.from_config(
        theirs.scheduler.config, clip_sample=False
    )
    same(*(draw(pipe, guidance_scale=1.0) for pipe in (ours, theirs)))

    path = tmp_path / "scheduler" / "scheduler_config.json"
    path.write_text(path.read_text().replace("1000", '"1000"'))
    with pytest.warns(UserWarning), pytest.raises(InputError) as refused:
        StableDiffusion.from_pretrained(tmp_path)
    asked = "a whole number from 2 to 1000000"
    assert str(refused.value) == f"{path}: num_train_timesteps must be {asked}, not '1000'"


def test_diffusers_is_as_quiet_with_our_minisd_json_as_without(tmp_path, capfd, recwarn):
    our_pipeline().save_pretrained(tmp_path)

    def heard():
        diffusers.StableDiffusionPipeline.from_pretrained(tmp_path)
        said = capfd.readouterr()
        return said.out + said.err, [str(recwarn.pop().message) for _ in range(len(recwarn))]

    heard()  # some warnings are given once
    with_it = heard()
    (tmp_path / "minisd.json").unlink()
    assert "minisd.json" not in str(with_it) and with_it == heard()


@pytest.mark.skipif(not WEIGHTS.exists(), reason="the shipped weights are not there")
def test_the_shipped_weights_draw_the_same_in_both_libraries():
    theirs = diffusers.StableDiffusionPipeline.from_pretrained(WEIGHTS)
    theirs.set_progress_bar_config(disable=True)
    ours = StableDiffusion.from_pretrained()
    prompts = ["a large red seven at the top left", "a small blue zero at the bottom right"]
    a, b = (draw(pipe, prompts, steps=10, guidance_scale=3.0) for pipe in (ours, theirs))
    assert_close(a, b, atol=1e-3, rtol=0)


@pytest.mark.skipif(not WEIGHTS.exists(), reason="the shipped weights are not there")
@torch.no_grad()
def test_transformers_reads_the_shipped_clip():
    ours = StableDiffusion.from_pretrained()
    clip = transformers.CLIPModel.from_pretrained(WEIGHTS / "clip", dtype=torch.float32)
    side = ours.clip.config.vision.image_size
    ids, images = ours.tokenizer(TEXTS), torch.rand(2, 3, side, side) * 2 - 1
    logits = clip(input_ids=ids, pixel_values=images).logits_per_image
    assert_close(ours.clip(images, ids), logits, atol=1e-3, rtol=1e-4)
    text_encoder = transformers.CLIPTextModel.from_pretrained(WEIGHTS / "text_encoder")
    expected = text_encoder(ids).last_hidden_state
    assert_close(ours.text_encoder(ids), expected, atol=1e-4, rtol=1e-4)
