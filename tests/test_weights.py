"""The shipped checkpoint does what benchmarks/README.md says of it, here on a small sample.

Bounds are the promised rates less about three standard errors of the sample at hand.
"""

import shlex
from pathlib import Path

import pytest
import torch

from benchmarks import results
from minisd import StableDiffusion, data
from minisd.evaluation import Judge, accuracy, evaluate_autoencoder, psnr, zero_shot
from minisd.pretrained import WEIGHTS

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def pipe():
    return StableDiffusion.from_pretrained()


@pytest.fixture(scope="module")
def judge():
    return Judge.load()


@pytest.fixture(scope="module")
def real():
    return data.draw_batch(500, "test", torch.Generator().manual_seed(11))


def draw(pipe, prompts, seed=0):
    """Pictures (B, 3, 32, 32) in [-1, 1]."""
    generator = torch.Generator().manual_seed(seed)
    return 2 * pipe(prompts, generator=generator, output_type="pt").images - 1


def test_the_weights_are_small():
    assert sum(file.stat().st_size for file in WEIGHTS.rglob("*") if file.is_file()) < 16e6


@pytest.mark.parametrize("readme", results.PAGES, ids=lambda path: path.parent.name)
def test_the_readmes_say_what_was_measured(readme):
    assert readme.read_text() == results.page(readme)


def test_make_demo_draws_what_it_says(pipe, judge):
    makefile = (ROOT / "Makefile").read_text().replace("\\\n", " ")
    prompts = shlex.split(makefile.split("PROMPTS :=")[1].splitlines()[0])
    assert "a large red seven at the top left" in prompts
    read = [data.say(answer) for answer in judge(draw(pipe, prompts)).tolist()]
    assert read == prompts


@pytest.mark.parametrize("kind", ["seen", "held_out"])
def test_pictures_show_what_the_caption_says(pipe, judge, kind):
    combinations = {"seen": data.seen_combinations, "held_out": data.held_out_combinations}[kind]()
    generator = torch.Generator().manual_seed(5)
    wanted = combinations[torch.randperm(len(combinations), generator=generator)[:160]]
    captions, _ = data.write_captions(wanted, generator, complete=1.0)
    right = (judge(draw(pipe, captions)) == wanted).all(dim=1).float().mean()
    assert right >= 0.94


def test_what_a_short_caption_leaves_open_is_decided(pipe, judge):
    """`a red seven`: a red seven, of one size and in one place."""
    wanted = data.cycle(data.all_combinations(), 160, 5)
    captions = [data.say(c, (True, True, False, False)) for c in wanted.tolist()]
    answers = judge(draw(pipe, captions))
    asked, decided = (answers == wanted)[:, :2].all(dim=1), (answers >= 0).all(dim=1)
    assert (asked & decided).float().mean() >= 0.87


def test_the_caption_decides(pipe, judge):
    """The same noise and another caption: another picture."""
    x_T = pipe.draw_latents(1, generator=torch.Generator().manual_seed(2)).expand(10, -1, -1, -1)
    captions = [f"a large green {digit} in the center" for digit in data.VALUES[0]]
    pictures = pipe(captions, latents=x_T, sampler="ddim", output_type="pt").images * 2 - 1
    assert (judge(pictures)[:, 0] == torch.arange(10)).sum() >= 8


def test_the_autoencoder_keeps_what_matters(pipe, judge, real):
    measured = evaluate_autoencoder(pipe, judge, data.ONE, real)
    assert measured["psnr"] >= 38
    assert all(rate["rate"] >= 0.985 for rate in measured["kept"].values())


def test_psnr_would_notice_a_bad_autoencoder(pipe, real):
    """38 dB is no low bar: a picture shifted by one pixel does not reach it."""
    assert psnr(real.images.roll(1, dims=-1), real.images) < 25


def test_clip_names_what_it_sees(pipe, real):
    rates = accuracy(zero_shot(pipe, real.images, data.ONE), real.attributes, data.ONE)
    assert rates["digit"]["rate"] >= 0.945
    assert rates["joint"]["rate"] >= 0.94
    assert all(rates[name]["rate"] >= 0.98 for name in ("colour", "size", "position"))


def test_the_scaling_factor_makes_latents_of_unit_variance(pipe, real):
    with torch.no_grad():
        latents = pipe.autoencoder.encode(real.images).mean
    assert (latents * pipe.autoencoder.config.scaling_factor).std().item() == pytest.approx(
        1, abs=0.05
    )


def test_the_prompt_reaches_the_unet_through_cross_attention(pipe):
    """The words of the caption, not the padding alone, are looked at."""
    from minisd.models import cross_attention_maps

    caption = "a large red seven at the top left"
    with cross_attention_maps(pipe.unet) as maps:
        draw(pipe, [caption])
    steps = pipe.defaults.num_inference_steps
    assert len(maps) == 7 and all(len(calls) == steps for calls in maps.values())
    final = maps["up_blocks.1.attentions.1.transformer_blocks.0.attn2"][5]  # (1, heads, 64, 16)
    assert final.shape == (1, 4, 64, 16)  # one picture, as the default is no guidance
    torch.testing.assert_close(final.sum(dim=-1), torch.ones(1, 4, 64))
