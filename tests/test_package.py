"""What `pip install .` installs: all that `minisd` needs, from any folder.

Building needs no network: setuptools is there, because PyTorch requires it.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest
import torch

from minisd import StableDiffusion, plots
from minisd.files import SHIPPED

ROOT = Path(__file__).resolve().parents[1]
BUILD = "from setuptools import build_meta; build_meta.build_wheel('.')"
# What pip's script `minisd` does.
COMMAND = """
from importlib.metadata import entry_points
(command,) = entry_points(group="console_scripts", name="minisd")
command.load()()
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder with the wheel's files, built from a copy of the project."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("installed")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in ("minisd", "data"):
        ignore = shutil.ignore_patterns("__pycache__", "emoji")
        shutil.copytree(ROOT / name, source / name, ignore=ignore)
    (source / "data" / "emoji").mkdir()
    (source / "data" / "emoji" / "metadata.jsonl").write_text("not ours to give away")
    subprocess.run([sys.executable, "-c", BUILD], cwd=source, check=True, capture_output=True)
    (wheel,) = source.glob("*.whl")
    ZipFile(wheel).extractall(target)
    return target


def test_a_wheel_holds_the_code_the_weights_the_digits_the_judge_and_the_licences(installed):
    code = {path.relative_to(ROOT).as_posix() for path in (ROOT / "minisd").rglob("*.py")}
    folders = SHIPPED / "weights", SHIPPED / "extensions"
    shipped = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    single = ("README.md", "digits.npz", "speech.npz", "judge.safetensors")
    shipped += [SHIPPED / name for name in single]
    files = {f"minisd/shipped/{path.relative_to(SHIPPED).as_posix()}" for path in shipped}
    found = {path.relative_to(installed).as_posix() for path in installed.rglob("*.*")}
    found = {name for name in found if (installed / name).is_file()}
    about = {name for name in found if ".dist-info/" in name}
    assert found - about == code | files
    assert [f.read_text() for f in installed.rglob("LICENSE")] == [(ROOT / "LICENSE").read_text()]


def test_the_command_draws_from_any_folder_what_the_checkout_draws(installed, tmp_path):
    environment = os.environ | {"PYTHONPATH": str(installed)}
    words = ["sample", "a red seven", "--steps", "2", "--device", "cpu"]
    done = subprocess.run(
        [sys.executable, "-P" if sys.version_info >= (3, 11) else "-s", "-c", COMMAND, *words],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (0, "wrote sample.png\n"), done.stderr
    generator = torch.Generator().manual_seed(0)
    pipe = StableDiffusion.from_pretrained()
    images = pipe("a red seven", num_inference_steps=2, generator=generator).images
    plots.save(plots.gallery(images, ["a red seven"]), tmp_path / "here.png")
    assert (tmp_path / "sample.png").read_bytes() == (tmp_path / "here.png").read_bytes()
