"""The networks' configurations: ours -> a Hugging Face config.json, and back.

minisd implements Stable Diffusion 1.x alone. An option with any other value is refused here, by
name: a network built without it would load the weights and draw nonsense.
"""

from dataclasses import fields

from ..errors import InputError
from ..models import AutoencoderConfig, CLIPConfig, TextConfig, UNetConfig, VisionConfig


def require(hf: dict, what: str, **values) -> None:
    """InputError unless every named option that `hf` sets has Stable Diffusion 1.x's value."""
    for name, value in values.items():
        if hf.get(name) not in (None, value):
            found = f"{name} is {hf[name]!r}, not {value!r}"
            raise InputError(f"this {what} is not of Stable Diffusion 1.x: {found}")


def pick(config, *names: str) -> dict:
    """The named fields, which have the same names in Hugging Face's configuration."""
    return {name: getattr(config, name) for name in names}


def build(config: type, hf: dict):
    """One of our configurations, from the entries that have the names of its fields."""
    values = {field.name: hf[field.name] for field in fields(config)}
    return config(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})


UNET_OPTIONS = {
    "norm_eps": 1e-5,
    "act_fn": "silu",
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "downsample_padding": 1,
    "center_input_sample": False,
}


def unet_to_hf(config: UNetConfig) -> dict:
    down = ["CrossAttnDownBlock2D" if a else "DownBlock2D" for a in config.cross_attention]
    return {
        "_class_name": "UNet2DConditionModel",
        **pick(config, "sample_size", "in_channels", "out_channels"),
        "down_block_types": down,
        "mid_block_type": "UNetMidBlock2DCrossAttn",
        "up_block_types": [name.replace("Down", "Up") for name in reversed(down)],
        **pick(config, "block_out_channels", "layers_per_block", "cross_attention_dim"),
        "attention_head_dim": config.num_heads,  # in SD 1.x configs this is the number of heads
        **pick(config, "norm_num_groups"),
        **UNET_OPTIONS,
    }


def unet_from_hf(hf: dict) -> UNetConfig:
    require(hf, "U-Net", **UNET_OPTIONS, use_linear_projection=False, class_embed_type=None)
    require(hf, "U-Net", dual_cross_attention=False, only_cross_attention=False)
    require(hf, "U-Net", transformer_layers_per_block=1, resnet_time_scale_shift="default")
    require(hf, "U-Net", addition_embed_type=None)
    attends = tuple(name.startswith("CrossAttn") for name in hf["down_block_types"])
    heads = hf.get("num_attention_heads") or hf["attention_head_dim"]
    return build(UNetConfig, {**hf, "cross_attention": attends, "num_heads": heads})


def autoencoder_to_hf(config: AutoencoderConfig, sample_size: int) -> dict:
    """sample_size: the size of the pictures it was trained on, in pixels."""
    levels = len(config.block_out_channels)
    return {
        "_class_name": "AutoencoderKL",
        "in_channels": config.in_channels,
        "out_channels": config.in_channels,
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
        **pick(config, "block_out_channels", "layers_per_block"),
        **pick(config, "latent_channels", "norm_num_groups"),
        "act_fn": "silu",
        "sample_size": sample_size,
        "scaling_factor": config.scaling_factor,
    }


def autoencoder_from_hf(hf: dict) -> AutoencoderConfig:
    require(hf, "autoencoder", act_fn="silu", use_quant_conv=True, mid_block_add_attention=True)
    require(hf, "autoencoder", shift_factor=None)
    # Stable Diffusion 1.x's own files omit the scaling factor
    return build(AutoencoderConfig, {"scaling_factor": 0.18215, **hf})


# The defaults of transformers; its version 4 leaves values that equal them out of config.json
TEXT_DEFAULTS = {
    "vocab_size": 49408,
    "hidden_size": 512,
    "intermediate_size": 2048,
    "num_hidden_layers": 12,
    "num_attention_heads": 8,
    "max_position_embeddings": 77,
    "eos_token_id": 49407,
}
VISION_DEFAULTS = {
    "image_size": 224,
    "patch_size": 32,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
}


def tower_to_hf(config: TextConfig | VisionConfig) -> dict:
    return {
        **pick(config, "hidden_size", "intermediate_size"),
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "hidden_act": config.hidden_act,
        "layer_norm_eps": 1e-5,
    }


def tower_from_hf(hf: dict) -> dict:
    """`hf` plus the fields that both towers share, under our names."""
    require(hf, "CLIP tower", layer_norm_eps=1e-5)
    if hf.get("hidden_act") != "gelu":
        require(hf, "CLIP tower", hidden_act="quick_gelu")
    act = hf.get("hidden_act") or "quick_gelu"
    ours = {"num_layers": hf["num_hidden_layers"], "num_heads": hf["num_attention_heads"]}
    return {**hf, **ours, "hidden_act": act}


def text_to_hf(config: TextConfig) -> dict:
    return {
        "architectures": ["CLIPTextModel"],
        "model_type": "clip_text_model",
        **tower_to_hf(config),
        "vocab_size": config.vocab_size,
        "max_position_embeddings": config.max_length,
        "bos_token_id": config.end_id - 1,
        "eos_token_id": config.end_id,
        "pad_token_id": config.end_id,
    }


def text_from_hf(hf: dict) -> TextConfig:
    hf = tower_from_hf(TEXT_DEFAULTS | hf)
    # OpenAI's configs say 2, wrongly: the end of text is the last entry of the vocabulary
    end = hf["vocab_size"] - 1 if hf["eos_token_id"] == 2 else hf["eos_token_id"]
    return build(TextConfig, {**hf, "end_id": end, "max_length": hf["max_position_embeddings"]})


def clip_to_hf(config: CLIPConfig) -> dict:
    vision = {
        "model_type": "clip_vision_model",
        **tower_to_hf(config.vision),
        **pick(config.vision, "image_size", "patch_size"),
        "num_channels": 3,
    }
    return {
        "architectures": ["CLIPModel"],
        "model_type": "clip",
        "text_config": text_to_hf(config.text),
        "vision_config": vision,
        "projection_dim": config.projection_dim,
        "logit_scale_init_value": 2.6592,
    }


def clip_from_hf(hf: dict) -> CLIPConfig:
    text = text_from_hf(hf["text_config"])
    vision = build(VisionConfig, tower_from_hf(VISION_DEFAULTS | hf["vision_config"]))
    return CLIPConfig(text, vision, hf.get("projection_dim", 512))
