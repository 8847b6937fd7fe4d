"""Files: what minisd writes, the reference libraries read, and the other way round."""

import json
from dataclasses import asdict, fields

import diffusers
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

from minisd import checkpoint
from minisd.checkpoint import (
    autoencoder_from_hf,
    clip_from_hf,
    load_autoencoder,
    load_clip,
    load_scheduler,
    load_text_encoder,
    load_unet,
    save_autoencoder,
    save_clip,
    save_scheduler,
    save_text_encoder,
    save_unet,
    text_from_hf,
    unet_from_hf,
)
from minisd.diffusion import ScheduleConfig
from minisd.models import CLIP, Autoencoder, TextEncoder, UNet
from tests.parity import reference
from tests.parity.reference import randomise

CAPTIONS = reference.captions()


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def call_unet(model):
    out = model(torch.ones(2, 4, 8, 8), torch.tensor([1, 900]), torch.ones(2, 3, 12))
    return out if torch.is_tensor(out) else out.sample


def call_autoencoder(model):
    out = model.decode(torch.ones(2, 4, 4, 4))
    return out if torch.is_tensor(out) else out.sample


def call_text_encoder(model):
    out = model(CAPTIONS)
    return out if torch.is_tensor(out) else out.last_hidden_state


def call_clip(model):
    images = torch.linspace(-1, 1, 3 * 256).view(1, 3, 16, 16)
    if isinstance(model, CLIP):
        return model(images, CAPTIONS)
    return model(input_ids=CAPTIONS, pixel_values=images).logits_per_image


# name: (make theirs, their class, make ours from their config, save ours, load ours, call either)
MODELS = {
    "unet": (
        lambda: reference.unet((8, 16), (True, False), 1),
        diffusers.UNet2DConditionModel,
        lambda config: UNet(unet_from_hf(config)),
        save_unet,
        load_unet,
        call_unet,
    ),
    "autoencoder": (
        lambda: reference.autoencoder(scaling_factor=0.4),
        diffusers.AutoencoderKL,
        lambda config: Autoencoder(autoencoder_from_hf(config)),
        save_autoencoder,
        load_autoencoder,
        call_autoencoder,
    ),
    "text encoder": (
        reference.text_encoder,
        transformers.CLIPTextModel,
        lambda config: TextEncoder(text_from_hf(config.to_dict())),
        save_text_encoder,
        load_text_encoder,
        call_text_encoder,
    ),
    "clip": (
        reference.clip,
        transformers.CLIPModel,
        lambda config: CLIP(clip_from_hf(config.to_dict())),
        save_clip,
        load_clip,
        call_clip,
    ),
}


@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_what_minisd_saves_the_reference_loads(name, tmp_path):
    make, their_class, translate, save, _, call = MODELS[name]
    ours = randomise(translate(make().config), seed=5)
    save(tmp_path, ours)
    theirs, report = their_class.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values()), report  # no key missing, unexpected or of another shape
    assert_close(call(ours), call(theirs.eval()), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_what_the_reference_saves_minisd_loads(name, tmp_path):
    make, _, translate, _, load, call = MODELS[name]
    theirs = make()
    theirs.save_pretrained(tmp_path)
    ours = load(tmp_path)
    assert ours.config == translate(theirs.config).config
    assert_close(call(ours), call(theirs), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", MODELS)
def test_saving_and_loading_gives_the_same_bits(name, tmp_path):
    make, _, translate, save, load, _ = MODELS[name]
    before = randomise(translate(make().config))
    save(tmp_path, before)
    after = load(tmp_path)
    assert after.config == before.config and not after.training
    assert_close(after.state_dict(), before.state_dict(), atol=0, rtol=0)


@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_half_precision_files_load_as_float32(name, tmp_path):
    make, _, _, save, load, call = MODELS[name]
    theirs = make().half()
    theirs.save_pretrained(tmp_path / "theirs")
    ours = load(tmp_path / "theirs")
    assert {p.dtype for p in ours.parameters()} == {torch.float32}
    assert_close(call(ours), call(theirs.float()), atol=1e-5, rtol=1e-4)

    save(tmp_path / "ours", ours, torch.float16)
    (weights,) = (tmp_path / "ours").glob("*.safetensors")
    assert {value.dtype for value in load_file(weights).values()} == {torch.float16}
    assert_close(load(tmp_path / "ours").state_dict(), ours.state_dict(), atol=0, rtol=0)


# Old and odd files


def rewrite(folder, change):
    """Pass the weights in `folder` through `change`."""
    (file,) = folder.glob("*.safetensors")
    save_file(change(load_file(file)), file)


def test_text_keys_in_our_files_carry_the_prefix(tmp_path):
    save_text_encoder(tmp_path, TextEncoder(text_from_hf(reference.text_config().to_dict())))
    assert all(key.startswith("text_model.") for key in load_file(tmp_path / "model.safetensors"))


@torch.no_grad()
def test_text_encoders_of_2022_have_a_prefix_and_a_buffer(tmp_path):
    theirs = reference.text_encoder()
    theirs.save_pretrained(tmp_path)
    positions = {"text_model.embeddings.position_ids": torch.arange(8)[None]}
    prefix = "text_model."
    rewrite(
        tmp_path, lambda s: {prefix + k.removeprefix(prefix): v for k, v in s.items()} | positions
    )
    assert_close(call_text_encoder(load_text_encoder(tmp_path)), call_text_encoder(theirs))


@torch.no_grad()
def test_clips_of_2022_have_buffers_in_both_towers(tmp_path):
    theirs = reference.clip()
    theirs.save_pretrained(tmp_path)
    old = {f"{t}_model.embeddings.position_ids": torch.arange(5)[None] for t in ("text", "vision")}
    rewrite(tmp_path, lambda state: state | old)
    assert_close(call_clip(load_clip(tmp_path)), call_clip(theirs), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("convolutions", [False, True])
@torch.no_grad()
def test_autoencoders_of_2022_name_their_attention_otherwise(tmp_path, convolutions):
    theirs = reference.autoencoder()
    theirs.save_pretrained(tmp_path)
    names = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}

    def age(state):
        for new, old in names.items():
            for key in [key for key in state if f".{new}." in key]:
                value = state.pop(key)
                value = value[:, :, None, None] if convolutions and value.dim() == 2 else value
                state[key.replace(new, old)] = value.contiguous()
        assert sum("proj_attn" in key for key in state) == 4  # weight and bias, both halves
        return state

    rewrite(tmp_path, age)
    assert_close(call_autoencoder(load_autoencoder(tmp_path)), call_autoencoder(theirs))


# The config.json files of Stable Diffusion 1.5


SD15_UNET = {
    "_class_name": "UNet2DConditionModel",
    "_diffusers_version": "0.6.0",
    "act_fn": "silu",
    "attention_head_dim": 8,
    "block_out_channels": [320, 640, 1280, 1280],
    "center_input_sample": False,
    "cross_attention_dim": 768,
    "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
    "downsample_padding": 1,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "in_channels": 4,
    "layers_per_block": 2,
    "mid_block_scale_factor": 1,
    "norm_eps": 1e-05,
    "norm_num_groups": 32,
    "out_channels": 4,
    "sample_size": 64,
    "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
}
SD15_AUTOENCODER = {
    "_class_name": "AutoencoderKL",
    "act_fn": "silu",
    "block_out_channels": [128, 256, 512, 512],
    "in_channels": 3,
    "latent_channels": 4,
    "layers_per_block": 2,
    "norm_num_groups": 32,
    "out_channels": 3,
    "sample_size": 512,
}


def test_configs_of_stable_diffusion_1_5_are_understood():
    unet = unet_from_hf(SD15_UNET)
    assert unet.num_heads == 8 and unet.cross_attention == (True, True, True, False)
    assert autoencoder_from_hf(SD15_AUTOENCODER).scaling_factor == 0.18215  # the file is silent


def test_what_a_clip_config_leaves_out_is_the_default_of_transformers():
    """transformers 4 wrote only what differs from its defaults."""
    silent = clip_from_hf({"text_config": {}, "vision_config": {}})
    assert silent == clip_from_hf(transformers.CLIPConfig().to_dict())
    assert text_from_hf({}) == text_from_hf(transformers.CLIPTextConfig().to_dict())


def test_an_end_of_text_id_of_2_means_the_last_word():
    assert text_from_hf({"eos_token_id": 2}).end_id == 49407
    assert text_from_hf({"eos_token_id": 7}).end_id == 7


# Foreign architectures are refused, not misread


@pytest.mark.parametrize(
    ("translate", "config", "option"),
    [
        (unet_from_hf, SD15_UNET | {"use_linear_projection": True}, "use_linear_projection"),
        (unet_from_hf, SD15_UNET | {"addition_embed_type": "text_time"}, "addition_embed_type"),
        (unet_from_hf, SD15_UNET | {"norm_eps": 1e-6}, "norm_eps"),
        (unet_from_hf, SD15_UNET | {"flip_sin_to_cos": False}, "flip_sin_to_cos"),
        (autoencoder_from_hf, SD15_AUTOENCODER | {"shift_factor": 0.1}, "shift_factor"),
        (autoencoder_from_hf, SD15_AUTOENCODER | {"use_quant_conv": False}, "use_quant_conv"),
        (text_from_hf, {"hidden_act": "gelu_new"}, "hidden_act"),
        (text_from_hf, {"layer_norm_eps": 1e-6}, "layer_norm_eps"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_another_architecture_is_refused_by_the_option_that_differs(translate, config, option):
    with pytest.raises(ValueError, match=f"not of Stable Diffusion 1.x: {option} is"):
        translate(config)


@pytest.fixture
def folder(tmp_path):
    save_unet(tmp_path, UNet(unet_from_hf(reference.unet((8, 16), (True, True), 1).config)))
    return tmp_path


def one_line(folder):
    with pytest.raises(ValueError) as caught:
        load_unet(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_missing_config_is_named(folder):
    (folder / "config.json").unlink()
    assert "config.json is missing" in one_line(folder)


def test_a_damaged_config_is_named(folder):
    (folder / "config.json").write_text('{"sample_size": 8,')
    assert "config.json is damaged" in one_line(folder)


def test_missing_weights_are_named_and_pickles_are_not_read(folder):
    weights = folder / checkpoint.DIFFUSERS
    weights.rename(folder / "diffusion_pytorch_model.bin")
    assert f"{weights} is missing; minisd reads safetensors files only" in one_line(folder)


@pytest.mark.parametrize("keep", [0, 5, 1000, -1])
def test_weights_cut_short_are_damaged(folder, keep):
    weights = folder / checkpoint.DIFFUSERS
    weights.write_bytes(weights.read_bytes()[:keep])
    assert f"{weights} is damaged" in one_line(folder)


def test_weights_of_another_model_do_not_fit(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"block_out_channels": [8, 24]}))
    assert "does not fit its config.json: size mismatch" in one_line(folder)


def test_a_missing_weight_is_named(folder):
    rewrite(folder, lambda state: {k: v for k, v in state.items() if k != "conv_in.bias"})
    assert "conv_in.bias" in one_line(folder)


# The scheduler's file


FIELDS = [field.name for field in fields(ScheduleConfig)]
SCHEDULES = [
    ScheduleConfig(),
    ScheduleConfig(
        num_train_timesteps=500,
        beta_start=0.001,
        beta_end=0.01,
        beta_schedule="cosine",
        prediction_type="epsilon",
        rescale_betas_zero_snr=False,
        timestep_spacing="leading",
        steps_offset=0,
        set_alpha_to_one=False,
    ),
]


@pytest.mark.parametrize("sampler", checkpoint.SAMPLER_CLASSES)
@pytest.mark.parametrize("config", SCHEDULES, ids=["ours", "another"])
def test_a_schedule_survives_its_file_and_diffusers_reads_the_same(tmp_path, config, sampler):
    save_scheduler(tmp_path, asdict(config), sampler)
    loaded, name = load_scheduler(tmp_path, FIELDS)
    assert (ScheduleConfig(**loaded), name) == (config, sampler)

    theirs = getattr(diffusers, checkpoint.SAMPLER_CLASSES[sampler]).from_pretrained(tmp_path)
    theirs.save_pretrained(tmp_path)
    loaded, name = load_scheduler(tmp_path, FIELDS)
    unknown = {} if sampler == "ddim" else {"set_alpha_to_one": config.set_alpha_to_one}
    assert (ScheduleConfig(**loaded | unknown), name) == (config, sampler)
    assert not theirs.config.get("clip_sample", False)


@pytest.mark.parametrize("sampler", checkpoint.SAMPLER_CLASSES)
def test_what_a_scheduler_file_leaves_out_is_the_default_of_diffusers(tmp_path, sampler):
    name = checkpoint.SAMPLER_CLASSES[sampler]
    (tmp_path / "scheduler_config.json").write_text(json.dumps({"_class_name": name}))
    ours = asdict(ScheduleConfig(**load_scheduler(tmp_path, FIELDS)[0]))
    theirs = getattr(diffusers, name)().config
    shared = {field for field in FIELDS if field in theirs} - {"steps_offset"}
    assert {field: ours[field] for field in shared} == {field: theirs[field] for field in shared}
    assert ours["steps_offset"] == 1  # where diffusers' pipeline overrules its own scheduler


def test_the_scheduler_of_stable_diffusion_1_5_is_walked_by_ddim(tmp_path):
    """Its file names PNDM, which minisd does not have; the betas are what matters."""
    theirs = diffusers.PNDMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        set_alpha_to_one=False,
        skip_prk_steps=True,
        steps_offset=1,
    )
    theirs.save_pretrained(tmp_path)
    loaded, sampler = load_scheduler(tmp_path, FIELDS)
    config = ScheduleConfig(**loaded)
    assert sampler == "ddim" and config.prediction_type == "epsilon"
    assert (config.timestep_spacing, config.steps_offset) == ("leading", 1)
    assert (config.set_alpha_to_one, config.rescale_betas_zero_snr) == (False, False)


def test_betas_given_one_by_one_are_refused(tmp_path):
    diffusers.DDIMScheduler(trained_betas=[0.1, 0.2]).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="trained_betas"):
        load_scheduler(tmp_path, FIELDS)
