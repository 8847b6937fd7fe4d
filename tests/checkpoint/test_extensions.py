"""The files of an extension, and what is said when they are damaged."""

from functools import partial

import pytest
import torch
from torch import nn

from minisd.checkpoint import load_extension, read_json, save_extension, values_like, write_json
from minisd.errors import InputError

USUAL = {"blocks": 2, "channels": 3, "hidden_act": "gelu"}


def build(config):
    config = values_like(USUAL, config)
    return nn.Sequential(*(nn.Linear(*[config["channels"]] * 2) for _ in range(config["blocks"])))


load = partial(load_extension, name="name", build=build, stands_on="this")


@pytest.fixture
def folder(tmp_path):
    save_extension(str(tmp_path), build(USUAL), USUAL, "this")
    return tmp_path


def test_what_is_saved_is_read_again(folder):
    for again in (load(folder), load(str(folder))):
        assert len(again) == 2 and not again.training and not again[0].weight.is_meta


def config_with(**changes):
    return {"stands_on": "this", "config": {**USUAL, **changes}}


SHAPE = "is damaged: stands_on must be a text, and config an object"
BLOCKS = "is damaged: blocks must be a whole number from 1 to 100, not "
DAMAGED = [
    ({}, SHAPE),
    ({"config": USUAL}, SHAPE),
    ({"stands_on": 7, "config": USUAL}, SHAPE),
    ({"stands_on": "this"}, SHAPE),
    ({"stands_on": "this", "config": [1]}, SHAPE),
    ({"stands_on": "that", "config": USUAL}, "was trained for another checkpoint; train anew"),
    (config_with(more=1), "is damaged: minisd does not know 'more'"),
    (config_with(hidden_act="relu"), "is damaged: hidden_act is 'relu'; minisd supports 'gelu'"),
    (config_with(hidden_act=1), "is damaged: hidden_act is 1"),
    (config_with(channels=10**9), "is damaged: channels must be a whole number from 1 to 65536"),
    (config_with(channels=60000), "does not fit its config.json"),
    *((config_with(blocks=wrong), BLOCKS) for wrong in (0, -1, 2.0, "2", True, None, [2], 101)),
]


@pytest.mark.parametrize(("content", "message"), DAMAGED)
def test_damage_is_told_in_one_line(content, message, folder):
    write_json(folder / "config.json", content)
    with pytest.raises(InputError) as error:
        load(folder)
    assert message in str(error.value) and "\n" not in str(error.value)
    assert len(str(error.value).removeprefix(str(folder))) < 250


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_missing_file_is_named(name, folder):
    (folder / name).unlink()
    with pytest.raises(InputError, match=f"holds no name .no {name}.; train one with: python -m"):
        load(folder)


def test_keys_that_are_left_out_are_as_usual(folder):
    about = read_json(folder / "config.json")
    del about["config"]["blocks"], about["config"]["hidden_act"]
    write_json(folder / "config.json", about)
    assert torch.equal(load(folder)[1].weight, load(folder)[1].weight) and len(load(folder)) == 2
