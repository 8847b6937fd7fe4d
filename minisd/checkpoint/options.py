"""What a config.json may hold: every key that diffusers 0.42 and transformers 4 and 5 write.

Any other key or value is refused by name: a network built without it would load the weights and
draw something else.
"""

import json
from dataclasses import dataclass

from ..errors import InputError, check_number, quote, shorten


@dataclass(frozen=True)
class Keys:
    """The keys of one network's file.

    sizes: numbers that are read, with the reference's defaults for what a file leaves out; options:
    the values that minisd supports, the default first; free: what matters in training alone, or
    only together with an option that is not supported.
    """

    sizes: dict
    options: dict
    free: str


def all_of(keys: str, value) -> dict:
    """Options of which minisd supports one value, the reference's default."""
    return {key: [value] for key in keys.split()}


UNET = Keys(
    sizes={
        "block_out_channels": [320, 640, 1280, 1280],
        "sample_size": None,  # which must be given
        "in_channels": 4,
        "out_channels": 4,
        "layers_per_block": 2,
        "cross_attention_dim": 1280,
        "attention_head_dim": 8,  # in SD 1.x configs this is the number of heads
        "norm_num_groups": 32,
    },
    options={
        "_class_name": ["UNet2DConditionModel"],
        "act_fn": ["silu", "swish"],  # two names of one function
        "mid_block_type": ["UNetMidBlock2DCrossAttn"],
        "norm_eps": [1e-5],
        "time_embedding_type": ["positional"],
        "flip_sin_to_cos": [True],
        "freq_shift": [0],
        **all_of("conv_in_kernel conv_out_kernel", 3),
        **all_of("downsample_padding mid_block_scale_factor transformer_layers_per_block", 1),
        **all_of("attention_type resnet_time_scale_shift", "default"),
        **all_of("center_input_sample class_embeddings_concat dual_cross_attention", False),
        **all_of("only_cross_attention use_linear_projection", False),
        **all_of("addition_embed_type class_embed_type encoder_hid_dim encoder_hid_dim_type", None),
        **all_of("num_attention_heads num_class_embeds reverse_transformer_layers_per_block", None),
        **all_of("time_cond_proj_dim time_embedding_act_fn time_embedding_dim", None),
        "timestep_post_act": [None],
    },
    free="""
        addition_embed_type_num_heads addition_time_embed_dim cross_attention_norm dropout
        mid_block_only_cross_attention projection_class_embeddings_input_dim resnet_out_scale_factor
        resnet_skip_time_act upcast_attention
    """,
)

AUTOENCODER = Keys(
    sizes={
        "block_out_channels": [64],
        "in_channels": 3,
        "out_channels": 3,
        "latent_channels": 4,
        "layers_per_block": 1,
        "norm_num_groups": 32,
        "scaling_factor": 0.18215,  # Stable Diffusion 1.x's own files omit it
    },
    options={
        "_class_name": ["AutoencoderKL"],
        "act_fn": ["silu", "swish"],
        **all_of("latents_mean latents_std shift_factor", None),
        **all_of("mid_block_add_attention use_post_quant_conv use_quant_conv", True),
    },
    free="force_upcast sample_size",
)

# CLIP and its towers share what transformers writes into every file
TOWER_OPTIONS = {
    "hidden_act": ["quick_gelu", "gelu"],
    "layer_norm_eps": [1e-5],
    "pruned_heads": [{}, None],
    **all_of("per_layer_config tie_last_hidden_states", None),
}
TRANSFORMERS_FREE = """
    add_cross_attention architectures attention_dropout bad_words_ids begin_suppress_tokens
    bos_token_id chunk_size_feed_forward cross_attention_hidden_size decoder_start_token_id
    diversity_penalty do_sample dropout dtype early_stopping encoder_no_repeat_ngram_size
    eos_token_id exponential_decay_length_penalty finetuning_task forced_bos_token_id
    forced_eos_token_id gradient_checkpointing id2label initializer_factor initializer_range
    is_decoder is_encoder_decoder label2id length_penalty logit_scale_init_value max_length
    min_length no_repeat_ngram_size num_beam_groups num_beams num_return_sequences
    output_attentions output_hidden_states output_scores pad_token_id prefix problem_type
    projection_dim remove_invalid_values repetition_penalty return_dict return_dict_in_generate
    sep_token_id suppress_tokens task_specific_params temperature text_config tf_legacy_loss
    tie_encoder_decoder tie_word_embeddings tokenizer_class top_k top_p torch_dtype torchscript
    transformers_version typical_p use_bfloat16 vision_config
"""

TEXT = Keys(
    sizes={
        "vocab_size": 49408,
        "hidden_size": 512,
        "intermediate_size": 2048,
        "num_hidden_layers": 12,
        "num_attention_heads": 8,
        "max_position_embeddings": 77,
        "eos_token_id": 49407,
    },
    options={"model_type": ["clip_text_model"], **TOWER_OPTIONS},
    free=TRANSFORMERS_FREE,
)

VISION = Keys(
    sizes={
        "image_size": 224,
        "patch_size": 32,
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
    },
    options={"model_type": ["clip_vision_model"], "num_channels": [3], **TOWER_OPTIONS},
    free=TRANSFORMERS_FREE,
)

CLIP = Keys(
    sizes={"projection_dim": 512},
    options={"model_type": ["clip"], **all_of("text_config_dict vision_config_dict", None)},
    free=TRANSFORMERS_FREE,
)

# The whole numbers that a size may be: more would take hours to build or to draw
RANGES = {
    "sample_size": (1, 1024),
    "layers_per_block": (1, 100),
    **dict.fromkeys(("num_hidden_layers", "num_layers", "blocks"), (1, 100)),
    "vocab_size": (1, 2**20),
    "eos_token_id": (0, 2**20),
}
WHOLE = 1, 2**16  # all others
FACTORS = 1e-6, 10**6
LEVELS = range(1, 17)


def read(keys: Keys, hf: dict, **options) -> dict:
    """`hf` with the defaults of what it leaves out; `options` are required besides keys.options.

    InputError for a key or value that minisd does not support.
    """
    hf = keys.sizes | {key: list(v) if isinstance(v, tuple) else v for key, v in hf.items()}
    known = {*keys.sizes, *keys.options, *options, *keys.free.split()}
    for key, value in hf.items():
        if key not in known and not key.startswith("_"):
            raise InputError(f"minisd does not know {quote(key)}, here {quote(value)}")
    for key, default in keys.sizes.items():
        require_size(key, hf[key], default)
    require(hf, keys.options | options)
    return hf


def values_like(usual: dict, found: dict) -> dict:
    """Those of `found`, checked, in place of the usual: sizes where they are sizes, the same texts.

    For networks of our own, which no other library describes.
    """
    texts = {key: [value] for key, value in usual.items() if isinstance(value, str)}
    sizes = {key: value for key, value in usual.items() if key not in texts}
    found = read(Keys(sizes, texts, free=""), found)
    return {key: found.get(key, value) for key, value in usual.items()}


def require(hf: dict, options: dict) -> None:
    """InputError unless every option that `hf` sets has one of the values given for it."""
    for key, supported in options.items():
        value = hf.get(key, supported[0])
        if json.dumps(value) not in map(json.dumps, supported):  # where 1 is not True
            right = " or ".join(map(quote, supported))
            raise InputError(f"{shorten(key)} is {quote(value)}; minisd supports {right}")


def require_size(key: str, value, default) -> None:
    """InputError unless the value is of the default's type, and in range."""
    if isinstance(default, float):
        check_number(key, value, *FACTORS)
    elif isinstance(default, list):
        if not isinstance(value, list) or len(value) not in LEVELS:
            right = f"a list of {LEVELS[0]} to {LEVELS[-1]} entries"
            raise InputError(f"{key} must be {right}, not {quote(value)}")
        for i, entry in enumerate(value):
            require_size(f"{key}[{i}]", entry, default[0])
    else:
        check_number(key, value, *RANGES.get(key, WHOLE), whole=True)


def require_parts(hf: dict, key: str, widths: list[int]) -> None:
    """InputError unless hf[key] divides every width."""
    for width in widths:
        if width % hf[key]:
            raise InputError(f"{key} is {hf[key]}, which does not divide {width}")


def entries(value) -> list:
    """The entries of a list, none of anything else."""
    return list(value) if isinstance(value, (list, tuple)) else []


def single(value, count: int):
    """The one value of a list of `count` equal entries; anything else as it is."""
    first, *others = entries(value) or [value]
    return first if len(others) == count - 1 and all(v == first for v in others) else value
