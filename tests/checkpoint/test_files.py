"""Files: what minisd writes, the reference libraries read, and the other way round."""

import json
import os
import stat
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file
from torch.testing import assert_close

from minisd import checkpoint
from minisd.checkpoint import (
    load_unet,
    read_json,
    save_tokenizer,
    save_unet,
    write_json,
)
from minisd.checkpoint.configs import unet_from_hf
from minisd.errors import InputError
from minisd.files import open_atomically
from minisd.models import UNet
from minisd.tokenizer import Tokenizer
from tests.parity import reference
from tests.parity.reference import randomise

from .networks import MODELS, rewrite


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_what_minisd_saves_the_reference_loads(name, tmp_path):
    make, their_class, translate, save, _, call = MODELS[name]
    ours = randomise(translate(make().config), seed=5)
    save(tmp_path, ours)
    theirs, report = their_class.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values()), report  # no key missing, unexpected or of another shape
    assert_close(call(ours), call(theirs.eval()), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_what_the_reference_saves_minisd_loads(name, tmp_path):
    make, _, translate, _, load, call = MODELS[name]
    theirs = make()
    theirs.save_pretrained(tmp_path)
    ours = load(tmp_path)
    assert ours.config == translate(theirs.config).config
    assert_close(call(ours), call(theirs), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", MODELS)
def test_saving_and_loading_gives_the_same_bits(name, tmp_path):
    make, _, translate, save, load, _ = MODELS[name]
    before = randomise(translate(make().config))
    save(tmp_path, before)
    after = load(tmp_path)
    assert after.config == before.config and not after.training
    assert_close(after.state_dict(), before.state_dict(), atol=0, rtol=0)


@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_half_precision_files_load_as_float32(name, tmp_path):
    make, _, _, save, load, call = MODELS[name]
    theirs = make().half()
    theirs.save_pretrained(tmp_path / "theirs")
    ours = load(tmp_path / "theirs")
    assert {p.dtype for p in ours.parameters()} == {torch.float32}
    assert_close(call(ours), call(theirs.float()), atol=1e-5, rtol=1e-4)

    save(tmp_path / "ours", ours, dtype=torch.float16)
    (weights,) = (tmp_path / "ours").glob("*.safetensors")
    assert {value.dtype for value in load_file(weights).values()} == {torch.float16}
    assert_close(load(tmp_path / "ours").state_dict(), ours.state_dict(), atol=0, rtol=0)


@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_files_called_fp16_are_read_where_the_plain_one_is_missing(name, tmp_path):
    make, _, _, _, load, call = MODELS[name]
    theirs = make().half()
    theirs.save_pretrained(tmp_path, variant="fp16")
    assert [file.suffixes for file in tmp_path.glob("*.safetensors")] == [[".fp16", ".safetensors"]]
    assert_close(call(load(tmp_path)), call(theirs.float()), atol=1e-5, rtol=1e-4)
    other = reference.randomise(make(), seed=9)
    other.save_pretrained(tmp_path)  # the plain file, which diffusers prefers
    assert_close(call(load(tmp_path)), call(other), atol=1e-5, rtol=1e-4)


def test_loading_draws_no_random_numbers(folder):
    """First values that the file replaces would take longer than the file."""
    before = torch.get_rng_state()
    network = load_unet(folder)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(p.requires_grad and not p.is_meta for p in network.parameters())


# One way to write a file


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "new" / "deeper" / "numbers.json"
    write_json(path, {"a": 1})
    with pytest.raises(OSError, match="No space"), open_atomically(path) as file:
        file.write(b'{"a": ')
        raise OSError("No space left on device")
    assert read_json(path) == {"a": 1}
    write_json(path, {"a": 2})
    assert read_json(path) == {"a": 2}
    assert [file.name for file in path.parent.iterdir()] == ["numbers.json"]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no umask")
@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_every_file_has_the_permissions_that_the_umask_leaves(tmp_path, umask):
    before = os.umask(umask)
    try:
        save_unet(tmp_path, UNet(unet_from_hf(reference.unet((8, 16), (True, True), 1).config)))
        save_tokenizer(tmp_path, Tokenizer.train(["a red seven"], 8))
    finally:
        os.umask(before)
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()}
    assert len(modes) == 6 and set(modes.values()) == {0o666 & ~umask}, modes


def test_text_is_utf_8_whatever_the_locale(tmp_path):
    path = tmp_path / "words.json"
    code = """if True:
        import locale, sys
        from pathlib import Path
        from minisd.checkpoint import read_json, write_json

        assert "UTF" not in locale.getpreferredencoding(False).upper()
        path = Path(sys.argv[1])
        write_json(path, {"word": "gr\\xfcn"})
        assert read_json(path) == {"word": "gr\\xfcn"}
    """
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    subprocess.run([sys.executable, "-c", code, path], env=os.environ | ascii_only, check=True)
    assert path.read_bytes() == '{\n  "word": "grün"\n}\n'.encode()


# What is missing, damaged or does not fit: one line


@pytest.fixture
def folder(tmp_path):
    save_unet(tmp_path, UNet(unet_from_hf(reference.unet((8, 16), (True, True), 1).config)))
    return tmp_path


def one_line(folder):
    with pytest.raises(InputError) as caught:
        load_unet(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_missing_config_is_named(folder):
    (folder / "config.json").unlink()
    line = (
        f"{folder / 'config.json'} is missing; is {folder} part of a diffusers pipeline directory?"
    )
    assert one_line(folder) == line


def test_a_damaged_config_is_named(folder):
    (folder / "config.json").write_text('{"sample_size": 8,')
    assert "config.json is damaged" in one_line(folder)


def test_missing_weights_are_named_and_pickles_are_not_read(folder):
    weights = folder / checkpoint.DIFFUSERS
    weights.rename(folder / "diffusion_pytorch_model.bin")
    assert f"{weights} is missing; minisd reads safetensors files only" in one_line(folder)


def test_weights_in_parts_are_refused(folder):
    theirs = reference.unet((8, 16), (True, True), 1)
    (folder / checkpoint.DIFFUSERS).unlink()
    theirs.save_pretrained(folder, max_shard_size="50KB")
    assert one_line(folder) == (
        f"{folder / checkpoint.DIFFUSERS} is missing, and minisd does not read weights in parts; "
        'write one file with diffusers: save_pretrained(..., max_shard_size="100GB")'
    )


@pytest.mark.parametrize("keep", [0, 5, 1000, -1])
def test_weights_cut_short_are_damaged(folder, keep):
    weights = folder / checkpoint.DIFFUSERS
    weights.write_bytes(weights.read_bytes()[:keep])
    assert f"{weights} is damaged" in one_line(folder)


def test_weights_of_another_model_do_not_fit(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"block_out_channels": [8, 24]}))
    assert "does not fit its config.json: size mismatch" in one_line(folder)


def test_a_missing_weight_is_named(folder):
    rewrite(folder, lambda state: {k: v for k, v in state.items() if k != "conv_in.bias"})
    assert "conv_in.bias" in one_line(folder)


def test_a_weight_too_many_is_named(folder):
    rewrite(folder, lambda state: state | {"class_embedding.weight": torch.ones(2)})
    assert 'Unexpected key(s) in state_dict: "class_embedding.weight"' in one_line(folder)


@pytest.mark.parametrize("number", ["nan", "inf", "-inf"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_weights_that_are_not_finite_are_named(folder, number, dtype):
    def spoil(state):
        state["conv_out.weight"][2, 3, 1, 1] = float(number)
        return {key: value.to(dtype) for key, value in state.items()}

    rewrite(folder, spoil)
    line = f"{folder / checkpoint.DIFFUSERS} is damaged: conv_out.weight has numbers that are not"
    assert one_line(folder) == f"{line} finite"


@pytest.mark.parametrize("dtype", [torch.int32, torch.bool, torch.complex64], ids=str)
def test_weights_are_floating_point_numbers(folder, dtype):
    rewrite(folder, lambda state: state | {"conv_in.bias": state["conv_in.bias"].to(dtype)})
    line = f"{folder / checkpoint.DIFFUSERS} is damaged: 'conv_in.bias' is not of floating-point"
    assert one_line(folder) == f"{line} numbers"


@pytest.mark.parametrize("file", ["config.json", checkpoint.DIFFUSERS])
def test_a_folder_in_place_of_a_file_cannot_be_read(folder, file):
    (folder / file).unlink()
    (folder / file).mkdir()
    assert one_line(folder).startswith(f"{folder / file} cannot be read: ")


@pytest.mark.parametrize("text", ["", "[" * 100_000, '{"in_channels": 1' + "0" * 5000 + "}"])
def test_what_is_not_json_is_damaged(folder, text):
    path = folder / "config.json"
    path.write_text(text)
    line = one_line(folder)
    assert line.startswith(f"{path} is damaged: ") and len(line) < len(str(path)) + 250


def test_a_wrong_configuration_is_named_with_its_file(folder):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"in_channels": 0}))
    assert one_line(folder) == (
        f"{path} is not of Stable Diffusion 1.x: "
        "in_channels must be a whole number from 1 to 65536, not 0"
    )


def test_a_bug_of_ours_is_not_blamed_on_the_file(folder):
    def broken(config):
        raise AttributeError("no such layer")

    with pytest.raises(AttributeError, match="no such layer"):
        checkpoint.load_model(checkpoint.DIFFUSERS, broken, unet_from_hf, folder)
