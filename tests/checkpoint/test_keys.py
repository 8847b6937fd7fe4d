"""Keys: the names of the weights in our files, and in the files of 2022."""

import pytest
import torch
from safetensors.torch import load_file
from torch.testing import assert_close

from minisd.checkpoint import load_autoencoder, load_clip, load_text_encoder, save_text_encoder
from minisd.checkpoint.configs import text_from_hf
from minisd.models import TextEncoder
from tests.parity import reference

from .networks import call_autoencoder, call_clip, call_text_encoder, rewrite


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


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
