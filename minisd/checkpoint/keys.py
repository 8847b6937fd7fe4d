"""The few names of weights that differ between Hugging Face's files and our state dicts."""

from torch import Tensor

State = dict[str, Tensor]


def clip_keys_from_hf(state: State) -> State:
    """Drop `position_ids`, a constant that files of 2022 store among the weights."""
    return {k: v for k, v in state.items() if not k.endswith("position_ids")}


def image_keys_to_hf(state: State) -> State:
    """The vision tower of CLIP and its projection."""
    return {k: v for k, v in state.items() if k.startswith(("vision_model.", "visual_projection."))}


def text_keys_from_hf(state: State) -> State:
    """As for CLIP; and drop the prefix that files of the text encoder carry."""
    return {k.removeprefix("text_model."): v for k, v in clip_keys_from_hf(state).items()}


def text_keys_to_hf(state: State) -> State:
    return {f"text_model.{k}": v for k, v in state.items()}


OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


def autoencoder_keys_from_hf(state: State) -> State:
    """Rename the attention's projections, which files of 2022 call query, key, value, proj_attn."""
    renamed = {}
    for key, value in state.items():
        head, _, last = key.rpartition(".")
        parent, _, name = head.rpartition(".")
        if name in OLD_ATTENTION:
            key = f"{parent}.{OLD_ATTENTION[name]}.{last}"
            value = value[:, :, 0, 0] if value.dim() == 4 else value  # once 1x1 convolutions
        renamed[key] = value
    return renamed
