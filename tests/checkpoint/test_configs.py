"""Configurations: Stable Diffusion 1.5's own are understood, other architectures are refused."""

import pytest
import transformers

from minisd.checkpoint.configs import (
    autoencoder_from_hf,
    autoencoder_to_hf,
    clip_from_hf,
    text_from_hf,
    unet_from_hf,
)
from minisd.errors import InputError
from minisd.models import AutoencoderConfig

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


def test_the_autoencoders_file_names_the_size_of_the_pictures():
    assert autoencoder_to_hf(AutoencoderConfig(), sample_size=64)["sample_size"] == 64


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
    with pytest.raises(InputError, match=f"not of Stable Diffusion 1.x: {option} is"):
        translate(config)
