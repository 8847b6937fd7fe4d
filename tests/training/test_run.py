"""A run: its settings fit one another, and the command line can change them."""

from dataclasses import replace
from pathlib import Path

import pytest

from minisd.data import ONE, TWO
from minisd.errors import InputError
from minisd.models import AutoencoderConfig
from minisd.training import NETWORKS, RECIPES, Run, override, recipes_for, stages
from tests.helpers import our_tokenizer, tiny_run


def test_effort_multiplies_the_steps_and_nothing_else():
    assert recipes_for(ONE) == RECIPES
    for dataset, effort, times in ((ONE, 2, 2), (TWO, 1, 3), (TWO, 0.5, 1.5)):
        for name, recipe in recipes_for(dataset, effort).items():
            assert recipe == replace(RECIPES[name], steps=round(times * RECIPES[name].steps))
    assert all(recipe.steps == 1 for recipe in recipes_for(ONE, 1e-9).values())


def test_settings_change_what_they_name():
    recipes = override(RECIPES, ["unet.steps=300", "clip.learning_rate=1e-4", "unet.batch_size=8"])
    assert recipes["unet"] == replace(RECIPES["unet"], steps=300, batch_size=8)
    assert recipes["clip"] == replace(RECIPES["clip"], learning_rate=1e-4)
    assert recipes["autoencoder"] == RECIPES["autoencoder"]
    settings = ["unet.block_out_channels=48,96", "unet.cross_attention=true,False"]
    unet = override(NETWORKS, settings)["unet"]
    assert unet.block_out_channels == (48, 96) and unet.cross_attention == (True, False)


def test_fields_that_must_agree_can_be_changed_together():
    settings = ["unet.block_out_channels=32,64,64", "unet.cross_attention=true,true,false"]
    for order in (settings, settings[::-1]):
        unet = override(NETWORKS, order)["unet"]
        assert unet.block_out_channels == (32, 64, 64)
        assert unet.cross_attention == (True, True, False)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("unet.stepz=3", "unet has no 'stepz' to set; it has steps, batch_size, learning_rate"),
        ("unett.steps=3", "'unett.steps=3' is not one of autoencoder.FIELD=VALUE, clip"),
        ("unet.steps", "'unet.steps' is not one of"),
        ("steps=3", "'steps=3' is not one of"),
        ("unet.steps=many", "unet.steps cannot be 'many'; it looks like steps=1400"),
        ("unet.steps=1.5", "unet.steps cannot be '1.5'"),
        ("unet.steps=0", "steps must be a whole number from 1 to 10000000, not 0"),
        ("unet.batch_size=1" + "0" * 99, "batch_size must be a whole number from 1 to 10000000"),
    ],
)
def test_a_setting_that_means_nothing_is_refused_with_what_exists(setting, message):
    with pytest.raises(InputError) as error:
        override(RECIPES, [setting])
    assert message in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("unet.in_channels=3", "unet has no 'in_channels' to set; it has block_out_channels"),
        ("text.max_length=77", "text has no 'max_length' to set"),
        ("unet.block_out_channels=48,", "it looks like block_out_channels=32,64"),
        ("vision.patch_size=5", "vision: patches of 5 do not fill 32 pixels"),
        ("vision.patch_size=0", "vision: patches of 0 do not fill 32 pixels"),
        ("unet.cross_attention=yes,no", "it looks like cross_attention=true,true"),
        ("unet.block_out_channels=48", "block_out_channels has 1 levels and cross_attention 2"),
    ],
)
def test_a_network_cannot_be_changed_into_anything(setting, message):
    with pytest.raises(InputError) as error:
        override(NETWORKS, [setting])
    assert message in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "setting", ["unet.norm_num_groups=7", "unet.num_heads=5", "vision.hidden_size=50"]
)
def test_networks_that_do_not_fit_together_are_refused_before_anything_is_written(
    tmp_path, setting
):
    run = Run(tmp_path / "run", ONE, networks=override(NETWORKS, [setting]))
    with pytest.raises(InputError, match="these networks do not fit together") as error:
        stages.train_all(run)
    assert "\n" not in str(error.value) and not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("setting", "found"),
    [
        ("text.num_layers=0", "num_hidden_layers must be a whole number from 1 to 100, not 0"),
        ("vision.num_layers=-1", "num_hidden_layers must be a whole number from 1 to 100, not -1"),
        ("unet.layers_per_block=0", "layers_per_block must be a whole number from 1 to 100"),
        ("autoencoder.layers_per_block=0", "layers_per_block must be a whole number from 1 to 100"),
    ],
)
def test_networks_that_no_checkpoint_can_hold_are_refused_before_they_are_trained(
    tmp_path, setting, found
):
    run = Run(tmp_path, ONE, networks=override(NETWORKS, [setting]))
    with pytest.raises(InputError, match=found):
        stages.check(run, resume=False)


def test_picture_and_tokenizer_and_latents_decide_the_networks_sizes():
    tokenizer, run = our_tokenizer(), tiny_run(Path("unused"))
    networks = {**run.networks, "autoencoder": AutoencoderConfig(3, 6, (8, 8), 1, 4)}
    run = replace(run, networks=networks)
    unet, clip = run.unet_config, run.clip_config(tokenizer)
    assert (unet.sample_size, unet.in_channels, unet.out_channels) == (16, 6, 6)
    assert unet.cross_attention_dim == clip.text.hidden_size == 16
    assert clip.text.vocab_size == len(tokenizer) and clip.vision.image_size == 32
