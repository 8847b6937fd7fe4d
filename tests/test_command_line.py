"""The command line: what works, and one clear line for what cannot."""

import errno
import json
import os
import shutil
import subprocess
import sys
import warnings

import pytest
import torch
from PIL import Image

from minisd import __main__ as command_line
from minisd import commands, files
from minisd.diffusion import samplers
from minisd.errors import InputError
from minisd.evaluation import Judge
from minisd.evaluation.judge import Reader
from minisd.pretrained import WEIGHTS

EXAMPLES = str(WEIGHTS.parent / "examples.png")


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Each test runs in an empty directory, and leaves Python's warnings as they were."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
    monkeypatch.setattr(samplers, "tqdm", lambda steps, **_: steps)  # no bar, however slow
    torch.manual_seed(0)
    judge = Judge(Reader())
    monkeypatch.setattr(Judge, "load", lambda device: judge)


def full(descriptor):
    """os.fsync, when the disk is full."""
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.fixture
def weights(tiny_weights, tmp_path_factory):
    """A copy of the tiny checkpoint, to be damaged."""
    return shutil.copytree(tiny_weights, tmp_path_factory.mktemp("copy") / "weights")


@pytest.fixture
def run(capsys):
    def run(*arguments):
        """(exit code, what was printed, lines of stderr)"""
        try:
            code = command_line.main([str(a) for a in arguments])
        except SystemExit as stop:  # argparse's way
            code = stop.code
        out, err = capsys.readouterr()
        return code, out, err.splitlines()

    return run


@pytest.fixture
def refused(run, tmp_path):
    def refused(*arguments):
        """The one line on stderr; nothing is written."""
        before = sorted(tmp_path.rglob("*"))
        code, out, lines = run(*arguments)
        assert code not in (0, None) and not out
        assert len(lines) == 1 and lines[0].startswith("minisd: error: "), lines
        assert sorted(tmp_path.rglob("*")) == before
        return lines[0].removeprefix("minisd: error: ")

    return refused


# What works


def test_sample_writes_a_picture_and_says_so(run, tiny_weights, tmp_path):
    options = ("--weights", tiny_weights, "--steps", 2, "--out", "new/two.png", "--device", "cpu")
    code, out, lines = run("sample", "a red seven", "a blue one", *options)
    assert (code, out, lines) == (0, "wrote new/two.png\n", [])
    assert Image.open(tmp_path / "new" / "two.png").width > 200


def test_the_same_seed_writes_the_same_file(run, tiny_weights, tmp_path):
    for name in ("one.png", "same.png"):
        run("sample", "a red seven", "--weights", tiny_weights, "--steps", 2, "--out", name)
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "same.png").read_bytes()


@pytest.mark.parametrize(
    ("option", "text", "combined"),
    [
        ("--and", "a seven", ("a seven", 1.0)),
        ("--and", "a seven:0.3", ("a seven", 0.3)),
        ("--not", "a seven", ("a seven", -0.5)),
        ("--not", "a seven:2", ("a seven", -2.0)),
        ("--and", "ratio 3:four", ("ratio 3:four", 1.0)),
    ],
)
def test_prompts_are_combined_with_their_weights(option, text, combined):
    assert command_line.parse(["sample", "a red digit", option, text]).combine == [combined]


@pytest.mark.parametrize(
    "option",
    [("--sampler", "ddpm"), ("--sampler", "dpm++"), ("--eta", 1), ("--guidance", 1)]
    + [("--negative", "a blue one"), ("--steps", 5), ("--seed", 1)]
    + [("--and", "a blue one"), ("--not", "a blue one"), ("--and", "a blue one:0.5")],
)
def test_every_option_of_sample_changes_the_picture(run, tiny_weights, tmp_path, option):
    start = ("sample", "a red seven", "--weights", tiny_weights, "--steps", 4)
    for name, more in ("plain", ()), ("changed", option):
        code, _, lines = run(*start, "--out", f"{name}.png", *more)
        assert (code, lines) == (0, [])
    assert (tmp_path / "plain.png").read_bytes() != (tmp_path / "changed.png").read_bytes()


def test_evaluate_prints_a_table_and_writes_numbers(run, tiny_weights, tmp_path):
    options = ("--weights", tiny_weights, "--samples", 40, "--steps", 1, "--json", "numbers.json")
    code, out, lines = run("evaluate", *options)
    assert (code, lines) == (0, [])
    assert "held out, drawn" in out and "Frechet distance" in out
    assert json.loads((tmp_path / "numbers.json").read_text())["settings"]["samples"] == 40


def pictures(folder, count=60):
    """A folder of different captioned pictures to train on."""
    folder.mkdir()
    for i in range(count):
        Image.new("RGB", (32, 32), (4 * i, 0, 0)).save(folder / f"{i}.png")
        (folder / f"{i}.txt").write_text("a red square")
    return folder


@pytest.fixture
def unnamed(weights):
    """A checkpoint that does not say what it was trained on."""
    (weights / "minisd.json").unlink()
    return weights


def test_extend_makes_another_checkpoint(run, unnamed, tmp_path):
    data = ("--data", pictures(tmp_path / "squares"))
    options = ("--recipe", "few_steps.batch_size=8", "--effort", 0.005, "--out", "new")
    extend = ("extend", "few-steps", "--weights", unnamed, *data, *options)
    code, out, lines = run(*extend)
    assert code == 0, lines
    assert "draw with it: python -m minisd sample" in out
    files = [f"new/{name}" for name in ("unet/diffusion_pytorch_model.safetensors", "gallery.png")]
    made = [(tmp_path / name).read_bytes() for name in files]
    assert made[0] != (unnamed / "unet/diffusion_pytorch_model.safetensors").read_bytes()
    kept = json.loads((tmp_path / "new/training.json").read_text())
    steps = commands.EXTENSIONS["few-steps"].RECIPE.steps
    assert kept["stages"]["few_steps"]["pictures"] == 8 * round(0.005 * steps)
    scheduler = json.loads((tmp_path / "new/scheduler/scheduler_config.json").read_text())
    assert scheduler["_class_name"] == "LCMScheduler"

    for name in files:
        (tmp_path / name).unlink()
    assert run(*extend)[0] == 1  # the folder is not empty
    assert run(*extend, "--resume")[0] == 0
    assert [(tmp_path / name).read_bytes() for name in files] == made


def test_extend_refuses(refused, run, unnamed, tmp_path):
    start = ("extend", "few-steps", "--weights", unnamed)
    assert "does not say what it was trained on" in refused(*start)
    assert "holds no checkpoint" in refused("extend", "few-steps", "--weights", tmp_path)
    here = (*start, "--data", "one")
    assert "no run to resume" in refused(*here, "--out", "new", "--resume")
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "thesis.txt").write_text("years of work")
    assert "thesis is not empty" in refused(*here, "--out", "thesis")
    assert "few_steps has no 'step' to set" in refused(*here, "--recipe", "few_steps.step=3")
    shutil.copytree(unnamed, tmp_path / "own")
    (tmp_path / "own" / "training").mkdir()
    (tmp_path / "own" / "training" / "few_steps.ckpt").write_text("")
    over = ("extend", "few-steps", "--data", "one", "--out", "own", "--weights", "./own")
    assert "--out is --weights" in refused(*over, "--resume")
    code, _, lines = run("extend", "fewer-steps")
    assert code == 2 and "invalid choice: 'fewer-steps'" in lines[-1]


@pytest.fixture
def measured(monkeypatch, tiny_weights):
    """The command that measures, though it takes no time here."""
    monkeypatch.setattr(commands, "evaluate", lambda *_: {"joint": 0.5})
    monkeypatch.setattr(commands, "format_results", lambda results: f"table of {results}")
    return "evaluate", "--weights", tiny_weights, "--json", "numbers.json"


def test_the_numbers_are_written_even_if_the_table_cannot_be_printed(
    run, measured, tmp_path, monkeypatch
):
    def closed(line):
        raise BrokenPipeError

    monkeypatch.setattr(commands, "print", closed, raising=False)
    assert run(*measured)[0] == 1
    assert json.loads((tmp_path / "numbers.json").read_text())["joint"] == 0.5


def test_the_table_is_printed_even_if_the_disk_is_full(run, measured, tmp_path, monkeypatch):
    monkeypatch.setattr(files.os, "fsync", full)
    line = "minisd: error: numbers.json: No space left on device"
    assert run(*measured) == (1, "table of {'joint': 0.5}\n", [line])
    assert not list(tmp_path.iterdir())


def test_a_full_disk_leaves_no_half_picture(refused, tiny_weights, monkeypatch):
    monkeypatch.setattr(files.os, "fsync", full)
    options = ("--weights", tiny_weights, "--steps", 1)
    assert refused("sample", "a red seven", *options) == "sample.png: No space left on device"


def test_a_prompt_that_is_too_long_is_drawn_and_the_rest_is_shown(run, tiny_weights, tmp_path):
    prompt = "a small red seven at the top left " * 2 + "of the picture"
    code, _, lines = run("sample", prompt, "--weights", tiny_weights, "--steps", 2)
    assert code == 0 and (tmp_path / "sample.png").exists()
    note = "the prompt is too long; this was cut: 'top left of the picture'"
    assert lines == [f"minisd: note: {note}"]


def test_a_word_that_means_nothing_is_named_and_drawn_all_the_same(run, tiny_weights, tmp_path):
    code, _, lines = run("sample", "a red elephant", "--weights", tiny_weights, "--steps", 2)
    assert code == 0 and (tmp_path / "sample.png").exists()
    assert lines == ["minisd: note: the model never saw these words: elephant"]


@pytest.mark.parametrize("prompt", ["", "costs $5 or $6", r"$\frac$", "_^{\\"])
def test_a_prompt_may_be_anything(run, tiny_weights, tmp_path, prompt):
    code, _, lines = run("sample", prompt, "--weights", tiny_weights, "--steps", 2)
    assert code == 0 and (tmp_path / "sample.png").exists()
    assert all(line.startswith("minisd: note: ") for line in lines)


def test_sample_starts_from_a_picture(run, tiny_weights, tmp_path):
    ask = ("sample", "a red seven", "--weights", tiny_weights, "--steps", 2)
    code, _, lines = run(*ask, "--image", EXAMPLES, "--mask", EXAMPLES, "--strength", "0.5")
    assert code == 0 and (tmp_path / "sample.png").exists()
    assert [line.split(" from ")[0] for line in lines] == [
        "minisd: note: image was resized",
        "minisd: note: mask_image was resized",
    ]


def test_sample_needs_a_caption(refused, tiny_weights, monkeypatch):
    class Louder:
        """An extension that changes the call and says nothing of what to draw."""

        @staticmethod
        def use(pipe, options, call):
            call["clip_guidance_scale"] = 5.0
            return pipe

    for _ in range(2):
        message = refused("sample", "--weights", tiny_weights)
        assert message == "there is no caption: say what to draw"
        monkeypatch.setitem(commands.EXTENSIONS, "louder", Louder)


def test_a_strength_that_takes_no_step(run, refused, tiny_weights, tmp_path):
    ask = ("sample", "a red seven", "--weights", tiny_weights, "--steps", 9, "--image", EXAMPLES)
    code, _, lines = run(*ask, "--strength", "0.1")
    note = "minisd: note: strength 0.1 of 9 steps is less than one step: nothing changes"
    assert code == 0 and lines[-1] == note
    warnings.simplefilter("ignore")
    (tmp_path / "sample.png").unlink()
    assert "no step for --animate" in refused(*ask, "--strength", "0", "--animate", "f.gif")


# What cannot work


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (("--sampler", "nonsense"), "unipc, euler, euler_ancestral, heun, lcm, not 'nonsense'"),
        (("--steps", "0"), "from 1 to 1000, not 0"),
        (("--steps", "1001"), "from 1 to 1000, not 1001"),
        (("--steps", "-5"), "from 1 to 1000, not -5"),
        (("--eta", "2"), "eta must be from 0 to 1"),
        (("--eta", "nan"), "eta must be from 0 to 1"),
        (("--eta", "0.5", "--sampler", "dpm++"), "0 unless the sampler is ddim"),
        (("--guidance", "nan"), "--guidance must be a number, not nan"),
        (("--device", "tpu"), "no device 'tpu'"),
        (("--device", "meta"), "no device 'meta'"),
        (("--weights", "nowhere"), "nowhere holds no checkpoint (no model_index.json)"),
        (("--out", "picture.xyz"), "picture.xyz must end in .png"),
        (("--out", "picture"), "picture must end in .png"),
        (("--image", "nowhere.png"), "nowhere.png: No such file"),
        (("--image", __file__), "is no picture"),
        (("--image", EXAMPLES, "--mask", __file__), "is no picture"),
        (("--image", "folder.png"), "folder.png: Is a directory"),
        (("--mask", EXAMPLES), "--mask needs an image"),
        (("--strength", "0.5"), "--strength needs something to start from: --image"),
        (("--image", EXAMPLES, "--strength", "2"), "strength must be a number from 0 to 1, not 2"),
    ],
)
def test_sample_refuses(refused, tiny_weights, tmp_path, option, message):
    (tmp_path / "folder.png").mkdir()
    assert message in refused("sample", "a red seven", "--weights", tiny_weights, *option)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (("--samples", "0"), "samples must be a whole number from 2 to 100000"),
        (("--samples", "1"), "samples must be a whole number from 2 to 100000"),
        (("--samples", "-7"), "samples must be a whole number from 2 to 100000"),
        (("--samples", str(10**12)), "samples must be a whole number from 2 to 100000"),
        (("--samples", str(10**12), "--suite", "editing"), "whole number from 2 to 100000"),
        (("--samples", "4", "--guidance", "nan"), "--guidance must be a number, not nan"),
        (("--samples", "4", "--sampler", "nonsense"), "not 'nonsense'"),
        (("--samples", "4", "--steps", "0"), "from 1 to 1000, not 0"),
        (("--weights", "nowhere"), "nowhere holds no checkpoint"),
        (("--device", "cuda:99"), "no device 'cuda:99'"),
    ],
)
def test_evaluate_refuses(refused, tiny_weights, option, message):
    assert message in refused("evaluate", "--weights", tiny_weights, "--json", "n.json", *option)


@pytest.mark.parametrize("flag", ["steps", "sampler", "guidance", "rescale", "classifier"])
def test_evaluate_refuses_what_a_suite_would_ignore(refused, tiny_weights, flag):
    option = (f"--{flag}", "ddim" if flag == "sampler" else 0)
    message = refused("evaluate", "--weights", tiny_weights, "--suite", "editing", *option)
    assert message == f"--suite editing has its own settings: leave out --{flag}"


def test_evaluate_says_when_the_judge_is_missing(refused, tiny_weights, monkeypatch):
    def load(device):
        raise InputError("the judge's weights are missing or damaged")

    monkeypatch.setattr(Judge, "load", load)
    assert "judge" in refused("evaluate", "--weights", tiny_weights)


def test_evaluate_refuses_pictures_that_the_weights_were_not_trained_on(refused, weights):
    message = refused("evaluate", "--weights", weights, "--data", "two")
    assert "was trained on other data: name one, not two" in message


def test_evaluate_takes_the_data_from_the_checkpoint(refused, weights):
    about = json.loads((weights / "minisd.json").read_text())
    for data, message in (
        (None, "does not say what it was trained on; name it with --data"),
        ({"name": 3}, "does not say what it was trained on; name it with --data"),
        ({"name": "one", "image_size": "x"}, "does not say what it was trained on"),
        ({"name": "gone"}, "gone is not a folder of pictures"),
    ):
        (weights / "minisd.json").write_text(json.dumps({**about, "data": data}))
        assert message in refused("evaluate", "--weights", weights)


@pytest.mark.parametrize("seed", ["0", 1.5, None, -1, 2**80, "x" * 1000])
def test_evaluate_refuses_a_seed_that_is_none(refused, weights, seed):
    (weights / "training.json").write_text(json.dumps({"seed": seed}))
    message = refused("evaluate", "--weights", weights)
    assert "training.json: the seed must be a whole number from 0 to 4294967295, not " in message
    assert len(message) < 400


def test_a_bug_of_ours_keeps_its_traceback(run, monkeypatch, tiny_weights):
    def broken(device):
        raise ValueError("a bug")

    monkeypatch.setattr(Judge, "load", broken)
    with pytest.raises(ValueError, match="a bug"):
        run("evaluate", "--weights", tiny_weights)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (("--recipe", "unet.stepz=3"), "unet has no 'stepz' to set; it has steps"),
        (("--recipe", "unett.steps=3"), "is not one of autoencoder.FIELD=VALUE"),
        (("--network", "unet.block_out_channels=x"), "it looks like block_out_channels=32,64"),
        (("--network", "unet.norm_num_groups=5"), "these networks do not fit together"),
        (("--data", "nowhere"), "nowhere is not a folder of pictures"),
        (("--data", "two", "--size", "64"), "rendered at 32 pixels only"),
    ],
)
def test_train_refuses(refused, setting, message):
    assert message in refused("train", "--out", "run", *setting)


def test_train_refuses_a_directory_that_holds_something(refused, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.txt").write_text("years of work")
    assert "run is not empty" in refused("train", "--out", "run")
    assert "run holds no run to resume" in refused("train", "--out", "run", "--resume")
    assert "no device 'tpu'" in refused("train", "--out", "new", "--device", "tpu")
    assert "run/thesis.txt" in refused("train", "--out", "run/thesis.txt")


@pytest.mark.parametrize("name", ["file/numbers.json", "folder", os.devnull])
def test_a_place_that_cannot_be_written_is_refused_before_the_work(
    refused, tmp_path, monkeypatch, tiny_weights, name
):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    for work in ("estimate", "evaluate", "pick_device"):
        monkeypatch.setattr(commands, work, None)
    assert name in refused("evaluate", "--weights", tiny_weights, "--json", name)
    monkeypatch.setattr(commands, "pick_device", lambda name: torch.device("cpu"))
    assert "file" in refused("train", "--out", "file/run")
    assert os.devnull in refused("train", "--out", os.devnull)


def test_sample_refuses_a_place_where_nothing_can_be_written(refused, tiny_weights, tmp_path):
    (tmp_path / "file").write_text("")
    options = ("--weights", tiny_weights, "--steps", 1)
    assert "file" in refused("sample", "a red seven", *options, "--out", "file/sample.png")
    (tmp_path / "folder.png").mkdir()
    assert "folder.png" in refused("sample", "a red seven", *options, "--out", "folder.png")


@pytest.mark.parametrize(
    "arguments",
    [
        ("sample", "--steps", "abc", "a red seven"),
        ("sample", "--seed", "x", "a red seven"),
        ("sample", "--seed", "-1", "a red seven"),
        ("sample", "--seed", str(2**64), "a red seven"),
        ("train", "--seed", str(2**64)),
        ("train", "--processes", "0"),
        ("train", "--effort", "0"),
        ("train", "--effort", "inf"),
        ("train", "--size", "48"),
        ("evaluate", "--samples", "many"),
        ("sample", "a red seven", "--image", ""),
        ("draw", "a red seven"),
        (),
    ],
)
def test_argparse_refuses_in_its_own_words(run, tmp_path, arguments):
    code, out, lines = run(*arguments)
    assert code == 2 and not out
    assert lines[0].startswith("usage: python -m minisd")
    assert sum("error: " in line for line in lines) == 1 and "error: " in lines[-1]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("arguments", [(), ("sample", "red", "--steps"), ("evaluate",)])
def test_argparse_quotes_no_more_than_needed(run, arguments):
    _, _, lines = run(*arguments, "9" * 9000)
    assert "error: " in lines[-1] and " ... " in lines[-1] and len(lines[-1]) < 300


def test_an_error_of_the_system_names_a_file_in_short(run, monkeypatch):
    def save(*_):
        raise FileNotFoundError(errno.ENOENT, "No such file or directory", "d/" * 900 + "x.png")

    monkeypatch.setattr(commands, "sample", save)
    code, _, lines = run("sample", "a red seven")
    assert (code, len(lines)) == (1, 1) and len(lines[0]) < 300
    assert lines[0].startswith("minisd: error: d/d/d/")
    assert lines[0].endswith("d/d/x.png: No such file or directory")


def test_a_note_that_python_makes_an_error_is_one_line_too(refused, tiny_weights):
    warnings.simplefilter("error", UserWarning)  # as python -W error does
    line = refused("sample", "an elephant", "--weights", tiny_weights, "--steps", 1)
    assert line == "the model never saw these words: elephant"


# Damaged weights

UNET = "unet/diffusion_pytorch_model.safetensors"


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def garble(path):
    path.write_bytes(b"\xff{" + path.read_bytes())


def more_layers(path):
    path.write_text(path.read_text().replace('"layers_per_block": 1', '"layers_per_block": 2'))


def make_sdxl(path):
    path.write_text(path.read_text().replace("{", '{"addition_embed_type": "text_time",', 1))


def empty_object(path):
    path.write_text("{}")


def a_list(path):
    path.write_text("[1, 2]")


def a_word(path):
    path.write_text(path.read_text().replace('"layers_per_block": 1', '"layers_per_block": "one"'))


def remove(path):
    path.unlink()


@pytest.mark.parametrize(
    ("damage", "file"),
    [
        (cut, UNET),
        (cut, "vae/diffusion_pytorch_model.safetensors"),
        (cut, "text_encoder/model.safetensors"),
        (cut, "clip/model.safetensors"),
        (cut, "unet/config.json"),
        (cut, "vae/config.json"),
        (cut, "text_encoder/config.json"),
        (cut, "clip/config.json"),
        (cut, "scheduler/scheduler_config.json"),
        (cut, "tokenizer/vocab.json"),
        (cut, "tokenizer/merges.txt"),
        (garble, "unet/config.json"),
        (garble, "tokenizer/vocab.json"),
        (garble, "tokenizer/merges.txt"),
        (empty_object, "unet/config.json"),
        (empty_object, "vae/config.json"),
        (empty_object, "clip/config.json"),
        (a_list, "unet/config.json"),
        (a_list, "scheduler/scheduler_config.json"),
        (a_word, "unet/config.json"),
        (remove, UNET),
        (remove, "unet/config.json"),
        (remove, "tokenizer/vocab.json"),
        (remove, "tokenizer/merges.txt"),
        (remove, "scheduler/scheduler_config.json"),
        (more_layers, "unet/config.json"),
        (make_sdxl, "unet/config.json"),
    ],
)
def test_damaged_weights_are_refused_by_name(refused, weights, damage, file):
    damage(weights / file)
    message = refused("sample", "a red seven", "--weights", weights)
    assert str((weights / file).parent.name) in message
    assert len(message) < 400


def test_another_architecture_is_refused_by_the_option_that_differs(refused, weights):
    make_sdxl(weights / "unet/config.json")
    message = refused("sample", "a red seven", "--weights", weights)
    assert "not of Stable Diffusion 1.x" in message and "addition_embed_type" in message


# As the shell sees it


def shell(*arguments):
    environment = {k: v for k, v in os.environ.items() if k != "TQDM_DISABLE"}  # with its bars
    command = [sys.executable, "-m", "minisd", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment)


def test_help_names_the_commands():
    done = shell("--help")
    assert done.returncode == 0 and not done.stderr
    assert all(command in done.stdout for command in ("train", "extend", "sample", "evaluate"))


def test_several_processes_refuse_with_one_line(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.txt").write_text("years of work")
    done = shell("train", "--processes", 2, "--out", "run")
    assert done.returncode == 1 and not done.stdout
    assert done.stderr == "minisd: error: run is not empty; choose another --out\n"


def test_several_processes_run_this_package_wherever_they_start(tmp_path, capfd):
    for path in (tmp_path / "minisd" / "__init__.py", tmp_path / "run" / "thesis.txt"):
        path.parent.mkdir()
        path.write_text("raise SystemExit('another minisd')")
    assert command_line.main(["train", "--processes", "2", "--out", "run"]) == 1
    line = "minisd: error: run is not empty; choose another --out\n"
    assert capfd.readouterr() == ("", line)


def test_a_prompt_of_half_a_character_is_one_short_line(tiny_weights, tmp_path):
    prompt = os.fsdecode(b"x" * 20_000 + b"\xff")
    done = shell("sample", prompt, "--weights", tiny_weights, "--out", tmp_path / "x.png")
    assert done.returncode == 1 and done.stderr.startswith("minisd: error: 'xxx")
    assert done.stderr.endswith("x\\udcff' is not UTF-8\n") and len(done.stderr) < 250
    assert not list(tmp_path.iterdir())


def test_captions_and_names_are_utf_8_whatever_the_locale(tiny_weights, tmp_path, monkeypatch):
    for name, value in {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}.items():
        monkeypatch.setenv(name, value)
    out = tmp_path / "sieben-ü.png"
    done = shell("sample", "a red séven", "--weights", tiny_weights, "--steps", 1, "--out", out)
    assert done.returncode == 0 and Image.open(out).width > 100
    assert r"the model never saw these words: s\xe9ven" in done.stderr


def test_a_backend_that_is_not_installed_here_is_not_asked_for(tiny_weights, monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "module://of_a_notebook.elsewhere")
    done = shell("sample", "a red seven", "--weights", tiny_weights, "--steps", 1)
    assert (done.returncode, done.stdout) == (0, "wrote sample.png\n")


def test_an_error_is_one_line_and_no_bar_stands_above_it(tiny_weights, tmp_path):
    done = shell("sample", "a red seven", "--weights", tiny_weights, "--steps", 1001)
    assert done.returncode == 1 and not done.stdout
    line = "the number of steps must be a whole number from 1 to 1000, not 1001"
    assert done.stderr == f"minisd: error: {line}\n"
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(os.name == "nt", reason="bash is needed")
def test_a_picture_counts_though_nobody_reads_what_is_said(tiny_weights, tmp_path):
    said = {  # how the output is closed: what arrives
        "a.png >&- 2>&-": "",
        "b.png 2>&1 | true": "",
        "$'\\xc3\\xbc\\xff.png'": "wrote \\xfc\\udcff.png\n",
    }
    sample = f"{sys.executable} -m minisd sample red --weights {tiny_weights} --steps 1 --out"
    environment = os.environ | {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "1"}
    done = [
        subprocess.Popen(
            ["bash", "-c", f"{sample} {ending}; exit ${{PIPESTATUS[0]}}"],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for ending in said
    ]
    assert [process.communicate() for process in done] == [(out, "") for out in said.values()]
    assert [process.returncode for process in done] == [0] * len(done)
    assert len(list(tmp_path.iterdir())) == len(done)
