"""The front page: short, its code runs, its commands parse, its links and numbers are right."""

import re
import shlex
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from minisd import StableDiffusion, data
from minisd.__main__ import parse
from minisd.evaluation import Judge
from minisd.models import Autoencoder, TextEncoder, UNet, VisionEncoder, parameter_count
from minisd.plots import PARTS
from tests import stable_diffusion

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(path for path in ROOT.glob("*/README.md"))])
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMAND = re.compile(r"-m minisd (?:train|sample|evaluate)\b[^`#\n]*")


@pytest.fixture(params=PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def page(request):
    return request.param


def blocks(text, language):
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def anchors(text):
    """The addresses that GitHub gives a page's headings."""
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_front_page_is_short():
    assert len(README.splitlines()) <= 150
    assert len(README.split()) <= 1300


def test_diffusion_in_a_few_lines_draws_what_was_asked_for(tmp_path, monkeypatch):
    """And nothing else than the pipeline draws from the same noise."""
    monkeypatch.chdir(tmp_path)
    (code,) = blocks(README, "python")
    names = {}
    exec(code, names)
    (prompt,) = re.findall(r'encode_prompt\(\["", "(.*?)"\]\)', code)
    images = names["pipe"].decode(names["x"])
    assert data.say(Judge.load()(2 * images - 1)[0].tolist()) == prompt
    assert (tmp_path / "seven.png").exists()

    torch.manual_seed(0)
    x_T = torch.randn(1, 4, 8, 8)
    options = {"guidance_scale": 1.5, "sampler": "ddim", "output_type": "pt"}
    out = names["pipe"](prompt, num_inference_steps=10, latents=x_T, **options)
    assert torch.allclose(images, out.images, atol=1e-4)


@pytest.mark.parametrize("path", ["notebooks/README.md", "data/README.md"])
def test_python_on_the_other_pages_runs(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = blocks((ROOT / path).read_text(encoding="utf-8"), "python")
    assert found
    for code in found:
        exec(code, {})
    if path == "data/README.md":
        new, stored = (np.array(Image.open(f / "data/machine.png")) for f in (tmp_path, ROOT))
        assert np.array_equal(new, stored), "the drawing has changed; make it again"


def test_commands_parse(page):
    for command in COMMAND.findall(page.read_text(encoding="utf-8")):
        parse(shlex.split(command)[2:])


def test_the_front_page_has_all_three_commands():
    commands = {parse(shlex.split(line)[2:]).command for line in COMMAND.findall(README)}
    assert commands == {"train", "sample", "evaluate"}


def test_benchmarks_named_are_there(page):
    for module in re.findall(r"-m (benchmarks\.\w+)", page.read_text(encoding="utf-8")):
        assert find_spec(module), module


@pytest.mark.parametrize("name", sorted(p.stem for p in (ROOT / "benchmarks").glob("[!_]*.py")))
def test_benchmarks_are_kept_up_with_what_they_import(name):
    import_module(f"benchmarks.{name}")


def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if link.startswith(("https://", "http://")):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        if anchor:
            target = target / "README.md" if target.is_dir() else target
            assert anchor in anchors(target.read_text(encoding="utf-8")), link


def test_every_chapter_is_listed_in_order():
    chapters = sorted(path.name for path in (ROOT / "notebooks").glob("[0-9]*.ipynb"))
    assert re.findall(r"^- \[.*\]\(notebooks/(.*)\)", README, re.MULTILINE) == chapters


def test_parameter_counts_are_counted():
    pipe = StableDiffusion.from_pretrained()
    ours = [pipe.unet, pipe.autoencoder, pipe.text_encoder, pipe.clip.vision_model]
    theirs = [
        stable_diffusion.on_meta(network, config)
        for network, config in {
            UNet: stable_diffusion.UNET,
            Autoencoder: stable_diffusion.AUTOENCODER,
            TextEncoder: stable_diffusion.TEXT,
            VisionEncoder: stable_diffusion.VISION,
        }.items()
    ]
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    _, table = text.split("| | minisd | Stable Diffusion 1.x |\n")
    rows = [line.strip("| ").split(" | ")[1:] for line in table.splitlines()[1:5]]
    counts = zip(ours, theirs, strict=True)
    assert rows == [[f"{parameter_count(m) / 1e6:.2f}" for m in pair] for pair in counts]


def test_the_drawing_is_small_and_described():
    assert (ROOT / "data/machine.png").stat().st_size < 60_000
    (text,) = re.findall(r"!\[(.*)\]\(data/machine.png\)", README)
    for part in PARTS:
        assert part in text, part
