"""The networks' configurations: ours -> a Hugging Face config.json, and back.

Every `from_hf` raises InputError, one line that names the key, unless all of the file describes a
network of Stable Diffusion 1.x.
"""

import re
from dataclasses import fields

from ..errors import InputError, located, quote
from ..models import AutoencoderConfig, CLIPConfig, TextConfig, UNetConfig, VisionConfig
from .options import (
    AUTOENCODER,
    CLIP,
    TEXT,
    UNET,
    VISION,
    Keys,
    entries,
    read,
    require,
    require_parts,
    single,
)


def pick(config, *names: str) -> dict:
    """The named fields, which have the same names in Hugging Face's configuration."""
    return {name: getattr(config, name) for name in names}


def standard(keys: Keys, *names: str) -> dict:
    """The named options, which have one value in Stable Diffusion 1.x."""
    return {name: keys.options[name][0] for name in names}


def build(config: type, hf: dict):
    """One of our configurations, from the entries that have the names of its fields."""
    values = {field.name: hf[field.name] for field in fields(config)}
    return config(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})


def unet_blocks(attends) -> dict:
    """Which blocks there are, where `attends` says which levels have cross-attention."""
    down = ["CrossAttnDownBlock2D" if a else "DownBlock2D" for a in attends]
    up = [name.replace("Down", "Up") for name in reversed(down)]
    return {"down_block_types": down, "up_block_types": up}


def unet_to_hf(config: UNetConfig) -> dict:
    blocks = unet_blocks(config.cross_attention)
    return {
        **standard(UNET, "_class_name"),
        **pick(config, "sample_size", "in_channels", "out_channels"),
        "down_block_types": blocks["down_block_types"],
        **standard(UNET, "mid_block_type"),
        "up_block_types": blocks["up_block_types"],
        **pick(config, "block_out_channels", "layers_per_block", "cross_attention_dim"),
        "attention_head_dim": config.num_heads,
        **pick(config, "norm_num_groups"),
        **standard(UNET, "norm_eps", "act_fn", "flip_sin_to_cos", "freq_shift"),
        **standard(UNET, "downsample_padding", "center_input_sample"),
    }


# Of these keys, a file may give a list with an entry for each level
PER_LEVEL = ["attention_head_dim", "cross_attention_dim", "layers_per_block"]
PER_LEVEL += ["only_cross_attention", "transformer_layers_per_block"]


def unet_from_hf(hf: dict) -> UNetConfig:
    hf = UNET.sizes | unet_blocks((True, True, True, False)) | hf  # diffusers' defaults
    widths, down = entries(hf["block_out_channels"]), entries(hf["down_block_types"])
    levels = len(widths)
    attends = tuple(name == "CrossAttnDownBlock2D" for name in (down + [None] * levels)[:levels])
    blocks = {key: [names] for key, names in unet_blocks(attends).items()}
    counts = dict.fromkeys(PER_LEVEL, levels) | {"sample_size": 2}  # height and width
    hf = {key: single(v, counts[key]) if key in counts else v for key, v in hf.items()}
    hf = read(UNET, hf, **blocks)

    with_heads = [width for width, a in zip(widths, attends, strict=True) if a]
    require_parts(hf, "norm_num_groups", widths)
    require_parts(hf, "attention_head_dim", [*with_heads, widths[-1]])
    if widths[0] % 2:  # half of a timestep's features are cosines
        raise InputError(f"block_out_channels[0] is {widths[0]}, not even")
    # Before 0.9 diffusers wrote 32 for Stable Diffusion's 64; its pipeline still puts that right
    if re.match(r"0\.[0-8]\b", str(hf.get("_diffusers_version"))):
        hf["sample_size"] = max(hf["sample_size"], 64)
    ours = {"cross_attention": attends, "num_heads": hf["attention_head_dim"]}
    return build(UNetConfig, hf | ours)


def autoencoder_blocks(levels: int) -> dict:
    down, up = ["DownEncoderBlock2D"] * levels, ["UpDecoderBlock2D"] * levels
    return {"down_block_types": down, "up_block_types": up}


def autoencoder_to_hf(config: AutoencoderConfig, sample_size: int) -> dict:
    """sample_size: the size of the pictures it was trained on, in pixels."""
    return {
        **standard(AUTOENCODER, "_class_name"),
        "in_channels": config.in_channels,
        "out_channels": config.in_channels,
        **autoencoder_blocks(len(config.block_out_channels)),
        **pick(config, "block_out_channels", "layers_per_block"),
        **pick(config, "latent_channels", "norm_num_groups"),
        **standard(AUTOENCODER, "act_fn"),
        "sample_size": sample_size,
        "scaling_factor": config.scaling_factor,
    }


def autoencoder_from_hf(hf: dict) -> AutoencoderConfig:
    hf = AUTOENCODER.sizes | autoencoder_blocks(1) | hf  # diffusers' defaults
    levels = len(entries(hf["block_out_channels"]))
    hf = read(AUTOENCODER, hf, **{k: [names] for k, names in autoencoder_blocks(levels).items()})
    require(hf, {"out_channels": [hf["in_channels"]]})
    require_parts(hf, "norm_num_groups", hf["block_out_channels"])
    return build(AutoencoderConfig, hf)


def tower_to_hf(config: TextConfig | VisionConfig) -> dict:
    return {
        **pick(config, "hidden_size", "intermediate_size"),
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "hidden_act": config.hidden_act,
        "layer_norm_eps": 1e-5,
    }


def tower_from_hf(keys: Keys, hf: dict) -> dict:
    """`hf` in full, and the fields that both towers share, under our names."""
    hf = read(keys, hf)
    require_parts(hf, "num_attention_heads", [hf["hidden_size"]])
    ours = {"num_layers": hf["num_hidden_layers"], "num_heads": hf["num_attention_heads"]}
    return {"hidden_act": "quick_gelu", **hf, **ours}


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
    hf = tower_from_hf(TEXT, hf)
    # OpenAI's configs say 2, wrongly: the end of text is the last entry of the vocabulary
    end = hf["vocab_size"] - 1 if hf["eos_token_id"] == 2 else hf["eos_token_id"]
    return build(TextConfig, {**hf, "end_id": end, "max_length": hf["max_position_embeddings"]})


def vision_to_hf(config: VisionConfig) -> dict:
    return {
        "model_type": "clip_vision_model",
        **tower_to_hf(config),
        **pick(config, "image_size", "patch_size"),
        "num_channels": 3,
    }


def vision_from_hf(hf: dict) -> VisionConfig:
    hf = tower_from_hf(VISION, hf)
    require_parts(hf, "patch_size", [hf["image_size"]])
    return build(VisionConfig, hf)


def clip_to_hf(config: CLIPConfig) -> dict:
    return {
        "architectures": ["CLIPModel"],
        "model_type": "clip",
        "text_config": text_to_hf(config.text),
        "vision_config": vision_to_hf(config.vision),
        "projection_dim": config.projection_dim,
        "logit_scale_init_value": 2.6592,
    }


def clip_from_hf(hf: dict) -> CLIPConfig:
    hf, towers = read(CLIP, hf), []
    for key, from_hf in {"text_config": text_from_hf, "vision_config": vision_from_hf}.items():
        tower = {} if hf.get(key) is None else hf[key]
        if not isinstance(tower, dict):
            raise InputError(f"{key} must be an object, not {quote(tower)}")
        with located(key):
            towers.append(from_hf(tower))
    return CLIPConfig(*towers, hf["projection_dim"])


def image_encoder_to_hf(config: CLIPConfig) -> dict:
    """Of transformers' CLIPVisionModelWithProjection."""
    architecture = {"architectures": ["CLIPVisionModelWithProjection"]}
    return architecture | vision_to_hf(config.vision) | pick(config, "projection_dim")


def preprocessor_to_hf(image_size: int) -> dict:
    """Of transformers' CLIPImageProcessor: pictures of any size -> ours, in [-1, 1]."""
    half = [0.5, 0.5, 0.5]
    return {
        "image_processor_type": "CLIPImageProcessor",
        "do_center_crop": False,
        "size": {"height": image_size, "width": image_size},
        "image_mean": half,
        "image_std": half,
    }


def check_configs(unet: UNetConfig, autoencoder: AutoencoderConfig, clip: CLIPConfig) -> None:
    """InputError, before they are trained, for networks that could be written but not read."""
    unet_from_hf(unet_to_hf(unet))
    autoencoder_from_hf(autoencoder_to_hf(autoencoder, sample_size=clip.vision.image_size))
    clip_from_hf(clip_to_hf(clip))
