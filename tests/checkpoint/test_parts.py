"""The parts of a pipeline: what model_index.json must name, and what must fit."""

import json
import shutil
from dataclasses import replace

import pytest

from minisd import StableDiffusion
from minisd.checkpoint import (
    load_autoencoder,
    load_clip,
    load_text_encoder,
    load_tokenizer,
    load_unet,
    save_autoencoder,
    save_clip,
    save_text_encoder,
    save_tokenizer,
    save_unet,
)
from minisd.errors import InputError
from minisd.models import CLIP, Autoencoder, TextEncoder, UNet


def with_unet(folder, **changes):
    save_unet(folder / "unet", UNet(replace(load_unet(folder / "unet").config, **changes)))


def with_autoencoder(folder, **changes):
    config = replace(load_autoencoder(folder / "vae").config, **changes)
    save_autoencoder(folder / "vae", Autoencoder(config), sample_size=32)


def with_text_encoder(folder, **changes):
    config = replace(load_text_encoder(folder / "text_encoder").config, **changes)
    save_text_encoder(folder / "text_encoder", TextEncoder(config))


def with_clip(folder, **changes):
    config = load_clip(folder / "clip").config
    save_clip(folder / "clip", CLIP(replace(config, text=replace(config.text, **changes))))


def with_tokenizer(folder, max_length):
    tokenizer = load_tokenizer(folder / "tokenizer")
    tokenizer.max_length = max_length
    save_tokenizer(folder / "tokenizer", tokenizer)


@pytest.mark.parametrize(
    ("change", "values", "found", "right"),
    [
        (
            with_unet,
            {"in_channels": 9},
            "unet's in_channels is 9",
            "equal vae's latent_channels, 4",
        ),
        (
            with_unet,
            {"out_channels": 8},
            "unet's out_channels is 8",
            "equal vae's latent_channels, 4",
        ),
        (
            with_unet,
            {"cross_attention_dim": 12},
            "unet's cross_attention_dim is 12",
            "equal text_encoder's hidden_size, 16",
        ),
        (
            with_autoencoder,
            {"latent_channels": 3},
            "unet's in_channels is 4",
            "equal vae's latent_channels, 3",
        ),
        (
            with_autoencoder,
            {"in_channels": 1},
            "vae's in_channels is 1",
            "equal a picture's channels, 3",
        ),
        (
            with_text_encoder,
            {"max_length": 8},
            "text_encoder's max_position_embeddings is 8",
            "be at least the tokenizer's length, 16",
        ),
        (
            with_tokenizer,
            {"max_length": 77},
            "text_encoder's max_position_embeddings is 16",
            "be at least the tokenizer's length, 77",
        ),
        (
            with_text_encoder,
            {"vocab_size": 608},
            "text_encoder's vocab_size is 608",
            "be at least the tokenizer's number of ids, 609",
        ),
        (
            with_clip,
            {"vocab_size": 608},
            "clip's vocab_size is 608",
            "be at least the tokenizer's number of ids, 609",
        ),
        (
            with_clip,
            {"max_length": 8},
            "clip's max_position_embeddings is 8",
            "be at least the tokenizer's length, 16",
        ),
        (
            with_clip,
            {"end_id": 7},
            "clip's eos_token_id is 7",
            "equal the tokenizer's end of text, 608",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_parts_that_do_not_fit_are_refused_at_loading(
    tiny_weights, tmp_path, change, values, found, right
):
    folder = tmp_path / "W"
    shutil.copytree(tiny_weights, folder)
    change(folder, **values)
    with pytest.raises(InputError) as error:
        StableDiffusion.from_pretrained(folder)
    assert str(error.value) == f"{folder}: {found}, but must {right}"


@pytest.mark.parametrize("more", [{"vocab_size": 700}, {"max_length": 32}], ids=str)
def test_a_text_encoder_may_have_more_than_the_tokenizer_needs(tiny_weights, tmp_path, more):
    folder = tmp_path / "W"
    shutil.copytree(tiny_weights, folder)
    with_text_encoder(folder, **more)
    assert (
        StableDiffusion.from_pretrained(folder).text_encoder.config
        != load_clip(folder / "clip").config.text
    )


XL, CONTROL = "StableDiffusionXLPipeline", ["diffusers", "ControlNetModel"]


@pytest.mark.parametrize(
    ("key", "value", "line"),
    [
        ("_class_name", XL, f"_class_name is '{XL}'; minisd supports 'StableDiffusionPipeline'"),
        ("unet", None, "unet is None; minisd supports ['diffusers', 'UNet2DConditionModel']"),
        (
            "vae",
            ["x", "Tiny"],
            "vae is ['x', 'Tiny']; minisd supports ['diffusers', 'AutoencoderKL']",
        ),
        ("controlnet", CONTROL, f"minisd does not know 'controlnet', here {CONTROL}"),
    ],
    ids=["class", "null", "vae", "unknown"],
)
def test_other_pipelines_are_refused(tiny_weights, tmp_path, key, value, line):
    folder = tmp_path / "W"
    shutil.copytree(tiny_weights, folder)
    path = folder / "model_index.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    with pytest.raises(InputError) as error:
        StableDiffusion.from_pretrained(folder)
    assert str(error.value) == f"{path} is not of Stable Diffusion 1.x: {line}"


def test_a_save_that_is_cut_short_passes_for_no_checkpoint(tmp_path, monkeypatch):
    pipe = StableDiffusion.from_pretrained()
    pipe.save_pretrained(tmp_path)
    monkeypatch.setattr("minisd.checkpoint.save_tokenizer", fail)
    with pytest.raises(OSError):
        pipe.save_pretrained(tmp_path)
    with pytest.raises(InputError, match="holds no checkpoint"):
        StableDiffusion.from_pretrained(tmp_path)


def fail(*_):
    raise OSError("the disk is full")


def test_a_clip_of_another_pipeline_is_not_left_behind(tmp_path):
    pipe = StableDiffusion.from_pretrained()
    pipe.save_pretrained(tmp_path)
    pipe.clip = None
    pipe.save_pretrained(tmp_path)
    assert StableDiffusion.from_pretrained(tmp_path).clip is None


def test_a_length_that_no_file_states_is_the_text_encoders(tiny_weights, tmp_path):
    folder = tmp_path / "W"
    shutil.copytree(tiny_weights, folder)
    before = StableDiffusion.from_pretrained(folder).tokenizer
    (folder / "tokenizer" / "tokenizer_config.json").unlink()
    after = StableDiffusion.from_pretrained(folder).tokenizer
    assert after.max_length == before.max_length == 16
    assert after("a red seven").tolist() == before("a red seven").tolist()
