"""The usual U-Net on pixels: its levels, its training, its file, and the comparison."""

from dataclasses import replace

import pytest
import torch

from minisd import StableDiffusion
from minisd.checkpoint import write_json
from minisd.data import OneDigit
from minisd.errors import InputError
from minisd.evaluation import Judge, to_text
from minisd.extensions.pixels_or_latents import (
    Pixels,
    extend,
    levels_for_pixels,
    load,
    on_pixels,
    pixels_of,
)
from minisd.models import AutoencoderConfig, UNet, UNetConfig
from minisd.suites import Asked
from minisd.suites import pixels_or_latents as suite
from minisd.training import Recipe, run_on
from minisd.training.pool import encode_pool
from tests.helpers import draw_seven, extend_tiny, make_tiny_pipe


def test_pixels_come_back_and_have_unit_variance():
    images = 0.3 * torch.rand(20, 3, 32, 32) - 1
    pixels = Pixels().fit(images)
    latents = pixels.encode(images).mean
    assert abs(latents.mean()) < 1e-4 and latents.std().item() == pytest.approx(1, abs=1e-4)
    torch.testing.assert_close(pixels.encode(images).sample(), latents, atol=1e-4, rtol=0)
    torch.testing.assert_close(pixels.decode(latents), images)
    assert Pixels.config.downscale == 1


def test_the_u_net_goes_down_to_the_places_of_the_usual_one():
    config = levels_for_pixels(AutoencoderConfig(), UNetConfig())
    assert config.block_out_channels == (16, 32, 32, 64)
    assert config.cross_attention == (False, False, True, True)
    sizes = []
    for one, channels, side in (UNetConfig(), 4, 8), (replace(config, in_channels=3), 3, 32):
        unet = UNet(one)
        unet.mid_block.register_forward_hook(lambda _, __, x: sizes.append(x.shape[2:]))
        with torch.no_grad():
            unet(torch.zeros(1, channels, side, side), torch.zeros(()), torch.zeros(1, 4, 128))
    assert sizes == [(4, 4), (4, 4)]


def small_run(pipe, folder):
    recipe = {"pixels_or_latents": Recipe(steps=3, batch_size=8)}
    return run_on(pipe, folder, OneDigit(pool_size=500), 0, recipe)


@pytest.fixture(scope="module")
def extended(tmp_path_factory):
    return extend_tiny(extend, "pixels_or_latents", tmp_path_factory.mktemp("run"))


def test_it_draws_pixels_of_any_size_and_its_file_holds_the_same_network(extended):
    pipe, made, folder = extended
    pictures = draw_seven(made)
    assert pictures.shape == (1, 3, 32, 32) and not torch.allclose(pictures, draw_seven(pipe))
    assert draw_seven(made, height=64, width=40).shape == (1, 3, 64, 40)
    torch.testing.assert_close(draw_seven(load(folder, pipe)), pictures, atol=1e-4, rtol=0)


def test_its_pool_is_the_pictures_themselves(tmp_path):
    pipe = make_tiny_pipe()
    run = small_run(pipe, tmp_path)
    pixels = pixels_of(run)
    pool = encode_pool(run, pixels, pipe.tokenizer, pipe.text_encoder)
    images = torch.cat([batch.images for batch in run.dataset.pool(run.seed, run.device)])
    torch.testing.assert_close(pixels.decode(pool.latents), images)
    assert pool.latents.std().item() == pytest.approx(1, abs=0.05)
    assert on_pixels(run, pipe).unet_config.sample_size == 32


def test_it_refuses_another_checkpoint_and_an_empty_folder(extended, tmp_path):
    pipe, _, folder = extended
    other = make_tiny_pipe()
    with torch.no_grad():
        other.text_encoder.final_layer_norm.bias += 1
    with pytest.raises(InputError, match="trained for another checkpoint; train anew with: "):
        load(folder, other)
    with pytest.raises(InputError, match="holds no pixels-or-latents .* train one with: "):
        load(tmp_path, pipe)


def test_the_suite_compares_equal_seconds_and_equal_pictures(tmp_path, monkeypatch):
    changes = {"FOLDER": tmp_path, "SIDES": (32, 64), "STEPS": 2, "SECONDS": 4}
    changes |= {"ONE": OneDigit(pool_size=500), "RECIPE": Recipe(steps=2, batch_size=8)}
    for name, value in changes.items():
        monkeypatch.setattr(suite, name, value)
    write_json(tmp_path / "seconds.json", {"latents": 1.0, "pixels": 2.0})
    pipe, asked = make_tiny_pipe(), Asked(samples=20)
    results = suite.measure(pipe, Judge.load(), asked)
    rows = [(row["on"], row["for"], row["steps"], row["seconds"]) for row in results["trained"]]
    assert rows == [
        ("latents", "", 4, 4.0),
        ("pixels", "as many seconds", 2, 4.0),
        ("pixels", "as many pictures", 4, 8.0),
    ]
    costs = {(row["side"], row["on"]): row["flops"] for row in results["costs"]}
    assert costs[64, "pixels"] > 3 * costs[32, "pixels"] > 3 * costs[32, "latents"]
    text = "".join(to_text(table) for table in suite.tables(results).values())
    assert "as many pictures" in text and "64 x 64" in text and "real renders" in text

    def never(*_, **__):
        raise AssertionError("it trains anew")

    monkeypatch.setattr("minisd.training.stages.denoising_loss", never)
    assert suite.measure(pipe, Judge.load(), asked)["trained"] == results["trained"]


def test_the_flops_of_a_picture_are_those_of_its_calls_and_of_the_decoder():
    pipe = StableDiffusion.from_pretrained()
    cost = suite.counted(pipe, 32)
    calls = cost["flops"] / cost["flops of a call"]
    assert suite.STEPS < calls < 3 * suite.STEPS  # the decoder and the text encoder come on top
