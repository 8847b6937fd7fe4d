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
from tests.stable_diffusion import TEXT

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
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "in_channels": 3,
    "latent_channels": 4,
    "layers_per_block": 2,
    "norm_num_groups": 32,
    "out_channels": 3,
    "sample_size": 512,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
}
SD15_TEXT = {
    "_name_or_path": "openai/clip-vit-large-patch14",
    "architectures": ["CLIPTextModel"],
    "attention_dropout": 0.0,
    "bos_token_id": 0,
    "dropout": 0.0,
    "eos_token_id": 2,
    "hidden_act": "quick_gelu",
    "hidden_size": 768,
    "initializer_factor": 1.0,
    "initializer_range": 0.02,
    "intermediate_size": 3072,
    "layer_norm_eps": 1e-05,
    "max_position_embeddings": 77,
    "model_type": "clip_text_model",
    "num_attention_heads": 12,
    "num_hidden_layers": 12,
    "pad_token_id": 1,
    "torch_dtype": "float32",
    "transformers_version": "4.22.0.dev0",
    "vocab_size": 49408,
}
TRANSFORMERS_4 = {  # what version 4 writes into each part of a CLIP, besides CLIP's own keys
    "_name_or_path": "",
    "add_cross_attention": False,
    "architectures": None,
    "bad_words_ids": None,
    "chunk_size_feed_forward": 0,
    "cross_attention_hidden_size": None,
    "decoder_start_token_id": None,
    "diversity_penalty": 0.0,
    "do_sample": False,
    "early_stopping": False,
    "encoder_no_repeat_ngram_size": 0,
    "exponential_decay_length_penalty": None,
    "finetuning_task": None,
    "forced_bos_token_id": None,
    "forced_eos_token_id": None,
    "id2label": {"0": "LABEL_0", "1": "LABEL_1"},
    "is_decoder": False,
    "is_encoder_decoder": False,
    "label2id": {"LABEL_0": 0, "LABEL_1": 1},
    "length_penalty": 1.0,
    "max_length": 20,
    "min_length": 0,
    "no_repeat_ngram_size": 0,
    "num_beam_groups": 1,
    "num_beams": 1,
    "num_return_sequences": 1,
    "output_attentions": False,
    "output_hidden_states": False,
    "output_scores": False,
    "prefix": None,
    "problem_type": None,
    "pruned_heads": {},
    "remove_invalid_values": False,
    "repetition_penalty": 1.0,
    "return_dict": True,
    "return_dict_in_generate": False,
    "sep_token_id": None,
    "task_specific_params": None,
    "temperature": 1.0,
    "tf_legacy_loss": False,
    "tie_encoder_decoder": False,
    "tie_word_embeddings": True,
    "tokenizer_class": None,
    "top_k": 50,
    "top_p": 1.0,
    "torch_dtype": None,
    "torchscript": False,
    "transformers_version": "4.22.0.dev0",
    "typical_p": 1.0,
    "use_bfloat16": False,
}


def test_configs_of_stable_diffusion_1_5_are_understood():
    unet = unet_from_hf(SD15_UNET)
    assert unet.num_heads == 8 and unet.cross_attention == (True, True, True, False)
    assert autoencoder_from_hf(SD15_AUTOENCODER).scaling_factor == 0.18215  # the file is silent
    assert text_from_hf(SD15_TEXT) == text_from_hf(SD15_TEXT | TRANSFORMERS_4) == TEXT


def test_a_clip_of_transformers_4_is_understood():
    """OpenAI's own files: long, with null for what was not set."""
    text, vision = ({"model_type": f"clip_{t}_model"} | TRANSFORMERS_4 for t in ("text", "vision"))
    ends = {"bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 1, "dropout": 0.0}
    file = {"text_config": text | ends, "vision_config": vision | {"projection_dim": 512}}
    file |= {"text_config_dict": None, "vision_config_dict": None, "model_type": "clip"}
    assert clip_from_hf(file | {"torch_dtype": "float32"}) == clip_from_hf({})


def test_lists_of_equal_entries_count_as_one_number():
    """As diffusers takes them: one for each level, and both sides of a picture."""
    lists = {"attention_head_dim": [8] * 4, "layers_per_block": [2] * 4, "sample_size": [64, 64]}
    lists |= {"cross_attention_dim": [768] * 4, "transformer_layers_per_block": [1] * 4}
    assert unet_from_hf(SD15_UNET | lists) == unet_from_hf(SD15_UNET)


@pytest.mark.parametrize(("version", "size"), [("0.6.0", 64), ("0.9.0", 32), ("0.10.2", 32)])
def test_stable_diffusion_of_2022_draws_at_64_whatever_its_file_says(version, size):
    """The pipeline of diffusers does so for files that it wrote before 0.9."""
    old = SD15_UNET | {"sample_size": 32, "_diffusers_version": version}
    assert unet_from_hf(old).sample_size == size


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
        (unet_from_hf, SD15_UNET | {"downsample_padding": 0}, "downsample_padding"),
        (unet_from_hf, SD15_UNET | {"time_embedding_act_fn": "silu"}, "time_embedding_act_fn"),
        (unet_from_hf, SD15_UNET | {"flip_sin_to_cos": None}, "flip_sin_to_cos"),
        (unet_from_hf, SD15_UNET | {"_class_name": "UNet2DModel"}, "_class_name"),
        (autoencoder_from_hf, SD15_AUTOENCODER | {"use_quant_conv": None}, "use_quant_conv"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_another_architecture_is_refused_by_the_option_that_differs(translate, config, option):
    with pytest.raises(InputError, match=f"^{option} is .*; minisd supports "):
        translate(config)


@pytest.mark.parametrize(
    ("translate", "config", "line"),
    [
        (
            unet_from_hf,
            SD15_UNET | {"colour": "x" * 20_000},
            f"minisd does not know 'colour', here '{'x' * 26} ... {'x' * 26}'",
        ),
        (
            unet_from_hf,
            SD15_UNET | {"in_channels": "4"},
            "in_channels must be a whole number from 1 to 65536, not '4'",
        ),
        (
            unet_from_hf,
            SD15_UNET | {"block_out_channels": [320, 640, 1280, 0]},
            "block_out_channels[3] must be a whole number from 1 to 65536, not 0",
        ),
        (
            unet_from_hf,
            SD15_UNET | {"norm_num_groups": 48},
            "norm_num_groups is 48, which does not divide 320",
        ),
        (
            autoencoder_from_hf,
            SD15_AUTOENCODER | {"scaling_factor": True},
            "scaling_factor must be a number from 1e-06 to 1000000, not True",
        ),
        (
            text_from_hf,
            SD15_TEXT | {"hidden_act": "gelu_new"},
            "hidden_act is 'gelu_new'; minisd supports 'quick_gelu' or 'gelu'",
        ),
        (
            clip_from_hf,
            {"vision_config": 5},
            "vision_config must be an object, not 5",
        ),
        (
            clip_from_hf,
            {"text_config": {"hidden_size": 0}},
            "text_config: hidden_size must be a whole number from 1 to 65536, not 0",
        ),
    ],
    ids=["unknown", "type", "entry", "groups", "factor", "choice", "object", "tower"],
)
def test_the_line_says_what_is_wrong_and_what_would_be_right(translate, config, line):
    with pytest.raises(InputError) as error:
        translate(config)
    assert str(error.value) == line
