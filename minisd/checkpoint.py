"""Models <-> Hugging Face directories. The only file that knows how diffusers and transformers lay
out and name things: config translation and the few keys that differ.
"""

import json
import os
import textwrap
from collections.abc import Callable, Iterable
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from .errors import InputError
from .models import (
    CLIP,
    Autoencoder,
    AutoencoderConfig,
    CLIPConfig,
    TextConfig,
    TextEncoder,
    UNet,
    UNetConfig,
    VisionConfig,
)

DIFFUSERS = "diffusion_pytorch_model.safetensors"
TRANSFORMERS = "model.safetensors"

# Configs: ours -> theirs, and theirs -> ours


def unet_to_hf(config: UNetConfig) -> dict:
    down = ["CrossAttnDownBlock2D" if a else "DownBlock2D" for a in config.cross_attention]
    up = ["CrossAttnUpBlock2D" if a else "UpBlock2D" for a in reversed(config.cross_attention)]
    return {
        "_class_name": "UNet2DConditionModel",
        "sample_size": config.sample_size,
        "in_channels": config.in_channels,
        "out_channels": config.out_channels,
        "down_block_types": down,
        "mid_block_type": "UNetMidBlock2DCrossAttn",
        "up_block_types": up,
        "block_out_channels": config.block_out_channels,
        "layers_per_block": config.layers_per_block,
        "cross_attention_dim": config.cross_attention_dim,
        "attention_head_dim": config.num_heads,  # in SD 1.x configs this is the number of heads
        "norm_num_groups": config.norm_num_groups,
        "norm_eps": 1e-5,
        "act_fn": "silu",
        "flip_sin_to_cos": True,
        "freq_shift": 0,
        "downsample_padding": 1,
        "center_input_sample": False,
    }


def unet_from_hf(hf: dict) -> UNetConfig:
    require(
        hf, "U-Net", use_linear_projection=False, class_embed_type=None, addition_embed_type=None
    )
    require(hf, "U-Net", dual_cross_attention=False, only_cross_attention=False, freq_shift=0)
    require(hf, "U-Net", flip_sin_to_cos=True, act_fn="silu", resnet_time_scale_shift="default")
    require(hf, "U-Net", transformer_layers_per_block=1, norm_eps=1e-5, center_input_sample=False)
    return UNetConfig(
        sample_size=hf["sample_size"],
        in_channels=hf["in_channels"],
        out_channels=hf["out_channels"],
        block_out_channels=tuple(hf["block_out_channels"]),
        cross_attention=tuple(name.startswith("CrossAttn") for name in hf["down_block_types"]),
        layers_per_block=hf["layers_per_block"],
        num_heads=hf.get("num_attention_heads") or hf["attention_head_dim"],
        cross_attention_dim=hf["cross_attention_dim"],
        norm_num_groups=hf["norm_num_groups"],
    )


def autoencoder_to_hf(config: AutoencoderConfig) -> dict:
    levels = len(config.block_out_channels)
    return {
        "_class_name": "AutoencoderKL",
        "in_channels": config.in_channels,
        "out_channels": config.in_channels,
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
        "block_out_channels": config.block_out_channels,
        "layers_per_block": config.layers_per_block,
        "latent_channels": config.latent_channels,
        "norm_num_groups": config.norm_num_groups,
        "act_fn": "silu",
        "sample_size": 32,
        "scaling_factor": config.scaling_factor,
    }


def autoencoder_from_hf(hf: dict) -> AutoencoderConfig:
    require(hf, "autoencoder", act_fn="silu", use_quant_conv=True, mid_block_add_attention=True)
    require(hf, "autoencoder", shift_factor=None)
    return AutoencoderConfig(
        in_channels=hf["in_channels"],
        latent_channels=hf["latent_channels"],
        block_out_channels=tuple(hf["block_out_channels"]),
        layers_per_block=hf["layers_per_block"],
        norm_num_groups=hf["norm_num_groups"],
        # older Stable Diffusion files leave it out
        scaling_factor=hf.get("scaling_factor", 0.18215),
    )


def tower_to_hf(config: TextConfig | VisionConfig) -> dict:
    return {
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "hidden_act": config.hidden_act,
        "layer_norm_eps": 1e-5,
    }


# transformers leaves out of config.json what equals its defaults, which are these
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


def tower_from_hf(hf: dict) -> dict:
    require(hf, "CLIP tower", layer_norm_eps=1e-5)
    if hf.get("hidden_act") != "gelu":
        require(hf, "CLIP tower", hidden_act="quick_gelu")
    return {
        "hidden_size": hf["hidden_size"],
        "intermediate_size": hf["intermediate_size"],
        "num_layers": hf["num_hidden_layers"],
        "num_heads": hf["num_attention_heads"],
        "hidden_act": hf.get("hidden_act", "quick_gelu"),
    }


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
    hf = TEXT_DEFAULTS | hf
    end = hf["eos_token_id"]
    return TextConfig(
        vocab_size=hf["vocab_size"],
        # OpenAI's configs say 2, which is wrong: the end of text is the last word of the vocabulary
        end_id=hf["vocab_size"] - 1 if end == 2 else end,
        max_length=hf["max_position_embeddings"],
        **tower_from_hf(hf),
    )


def vision_to_hf(config: VisionConfig) -> dict:
    return {
        "model_type": "clip_vision_model",
        **tower_to_hf(config),
        "image_size": config.image_size,
        "patch_size": config.patch_size,
        "num_channels": 3,
    }


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
    vision = VISION_DEFAULTS | hf["vision_config"]
    return CLIPConfig(
        text=text_from_hf(hf["text_config"]),
        vision=VisionConfig(vision["image_size"], vision["patch_size"], **tower_from_hf(vision)),
        projection_dim=hf.get("projection_dim", 512),
    )


def require(hf: dict, what: str, **values) -> None:
    """ValueError unless each named option, where it is given, has Stable Diffusion 1.x's value."""
    for name, value in values.items():
        if hf.get(name, value) != value and hf.get(name) is not None:
            raise ValueError(
                f"this {what} is not of Stable Diffusion 1.x: {name} is {hf[name]!r}, not {value!r}"
            )


# Keys that differ from ours


def clip_keys_from_hf(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Drop the buffers that old files carry."""
    return {k: v for k, v in state.items() if not k.endswith("position_ids")}


def text_keys_from_hf(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Drop the prefix that the text encoder's files carry, too."""
    return {k.removeprefix("text_model."): v for k, v in clip_keys_from_hf(state).items()}


def text_keys_to_hf(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"text_model.{k}": v for k, v in state.items()}


OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


def autoencoder_keys_from_hf(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Older files call the attention's projections query, key, value and proj_attn."""
    renamed = {}
    for key, value in state.items():
        head, _, last = key.rpartition(".")
        parent, _, name = head.rpartition(".")
        if name in OLD_ATTENTION:
            key = f"{parent}.{OLD_ATTENTION[name]}.{last}"
            value = value.flatten(1) if last == "weight" else value  # once 1x1 convolutions
        renamed[key] = value
    return renamed


# Files


def write_json(path: Path, content: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(content, indent=2) + "\n")
    os.replace(temporary, path)


def read_json(path: Path) -> dict:
    """ValueError with one clear line if the file is missing or does not hold a JSON object."""
    if not path.exists():
        raise ValueError(
            f"{path} is missing; is {path.parent} part of a diffusers pipeline directory?"
        )
    try:
        content = json.loads(path.read_text())
    except ValueError as error:  # not JSON, or not even text
        raise ValueError(f"{path} is damaged: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} is damaged: it does not hold a JSON object")
    return content


def make_model(folder: Path, model: type[nn.Module], translate: Callable) -> nn.Module:
    """The network that the folder's config.json describes. ValueError, one clear line, if none."""
    path = folder / "config.json"
    config = read_json(path)
    try:
        return model(translate(config))
    except KeyError as error:
        raise ValueError(f"{path} is damaged: it lacks {error}") from error
    except (ValueError, TypeError, AttributeError, RuntimeError) as error:
        raise ValueError(f"{path}: {error}") from error


def save_model(folder: Path, file: str, config: dict, state: dict[str, Tensor], dtype=None) -> None:
    """Write config.json and the weights, the latter as `dtype` if one is given."""
    write_json(folder / "config.json", config)
    state = {k: v.detach().cpu().to(dtype).contiguous() for k, v in state.items()}
    temporary = (folder / file).with_suffix(".tmp")  # a kill leaves the old file or the new, whole
    save_file(state, temporary, metadata={"format": "pt"})
    os.replace(temporary, folder / file)


def load_model(folder: Path, file: str, model: nn.Module, rename=lambda state: state) -> nn.Module:
    """Fill `model` from the folder, as float32. ValueError, one clear line, if that cannot be."""
    path = folder / file
    if not path.exists():
        raise ValueError(f"{path} is missing; minisd reads safetensors files only")
    try:
        state = load_file(path)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    try:
        model.load_state_dict(rename(state))  # which casts to the float32 of the model
    except RuntimeError as error:
        first = textwrap.shorten(str(error).splitlines()[1], 200, placeholder=" ...")
        raise ValueError(f"{path} does not fit its config.json: {first}") from error
    return model.eval()


def save_unet(folder: Path, model: UNet, dtype=None) -> None:
    save_model(folder, DIFFUSERS, unet_to_hf(model.config), model.state_dict(), dtype)


def load_unet(folder: Path) -> UNet:
    return load_model(folder, DIFFUSERS, make_model(folder, UNet, unet_from_hf))


def save_autoencoder(folder: Path, model: Autoencoder, dtype=None) -> None:
    save_model(folder, DIFFUSERS, autoencoder_to_hf(model.config), model.state_dict(), dtype)


def load_autoencoder(folder: Path) -> Autoencoder:
    model = make_model(folder, Autoencoder, autoencoder_from_hf)
    return load_model(folder, DIFFUSERS, model, autoencoder_keys_from_hf)


def save_text_encoder(folder: Path, model: TextEncoder, dtype=None) -> None:
    state = text_keys_to_hf(model.state_dict())
    save_model(folder, TRANSFORMERS, text_to_hf(model.config), state, dtype)


def load_text_encoder(folder: Path) -> TextEncoder:
    model = make_model(folder, TextEncoder, text_from_hf)
    return load_model(folder, TRANSFORMERS, model, text_keys_from_hf)


def save_clip(folder: Path, model: CLIP, dtype=None) -> None:
    save_model(folder, TRANSFORMERS, clip_to_hf(model.config), model.state_dict(), dtype)


def load_clip(folder: Path) -> CLIP:
    model = make_model(folder, CLIP, clip_from_hf)
    return load_model(folder, TRANSFORMERS, model, clip_keys_from_hf)


# The scheduler: its file says betas and spacing; which sampler walks the schedule is ours to choose

SAMPLER_CLASSES = {
    "ddim": "DDIMScheduler",
    "ddpm": "DDPMScheduler",
    "dpm++": "DPMSolverMultistepScheduler",
    "unipc": "UniPCMultistepScheduler",
}
BETA_SCHEDULES = {"cosine": "squaredcos_cap_v2"}  # ours -> theirs, where the names differ


def save_scheduler(folder: Path, config: dict, sampler: str) -> None:
    """config: the fields of a schedule, named as in diffusers but for the cosine's name."""
    schedule = BETA_SCHEDULES.get(config["beta_schedule"], config["beta_schedule"])
    hf = {"_class_name": SAMPLER_CLASSES[sampler], **config, "beta_schedule": schedule}
    write_json(folder / "scheduler_config.json", {**hf, "clip_sample": False})


def load_scheduler(folder: Path, fields: Iterable[str]) -> tuple[dict, str]:
    """(the schedule's fields that the file gives, the sampler's name; ddim if it is unknown)."""
    hf = read_json(folder / "scheduler_config.json")
    require(hf, "scheduler", trained_betas=None)
    solver = hf.get("_class_name") in (SAMPLER_CLASSES["dpm++"], SAMPLER_CLASSES["unipc"])
    defaults = {  # diffusers', which differ from ours
        "beta_start": 0.0001,
        "beta_end": 0.02,
        "beta_schedule": "linear",
        "prediction_type": "epsilon",
        "rescale_betas_zero_snr": False,
        "timestep_spacing": "linspace" if solver else "leading",
    }
    config = {**defaults, **{k: v for k, v in hf.items() if k in fields}}
    back = {theirs: ours for ours, theirs in BETA_SCHEDULES.items()}
    config["beta_schedule"] = back.get(config["beta_schedule"], config["beta_schedule"])
    samplers = {theirs: ours for ours, theirs in SAMPLER_CLASSES.items()}
    return config, samplers.get(hf.get("_class_name"), "ddim")


# minisd.json: what belongs to a checkpoint and has no place in diffusers' files


def save_sampling(directory: Path, sampling: dict, data: dict | None) -> None:
    """sampling: how the checkpoint is best sampled; data: what it was trained on, if known."""
    write_json(directory / "minisd.json", {"sampling": sampling, "data": data})


def load_sampling(directory: Path, fields: Iterable[str]) -> tuple[dict, dict | None]:
    """(sampling, data) as in `save_sampling`; ({}, None) if the file is missing.

    Raises InputError, one clear line, unless sampling has exactly the named fields.
    """
    path = directory / "minisd.json"
    if not path.exists():
        return {}, None
    content = read_json(path)
    sampling, data = content.get("sampling"), content.get("data")
    if not isinstance(sampling, dict) or set(sampling) != set(fields):
        raise InputError(f'{path}: "sampling" must be an object with {", ".join(fields)}')
    if not isinstance(data, dict | None):
        raise InputError(f'{path}: "data" must be an object or null, not {data!r}')
    return sampling, data


def save_index(directory: Path, sampler: str) -> None:
    """model_index.json, by which diffusers knows what lies in the directory."""
    index = {
        "_class_name": "StableDiffusionPipeline",
        "_diffusers_version": "0.42.1",
        "feature_extractor": [None, None],
        "image_encoder": [None, None],
        "requires_safety_checker": False,
        "safety_checker": [None, None],
        "scheduler": ["diffusers", SAMPLER_CLASSES[sampler]],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    write_json(directory / "model_index.json", index)
