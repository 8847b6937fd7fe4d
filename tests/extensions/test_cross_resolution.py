"""In cross_resolution the decoder's pixels ask the encoder's other levels where to look."""

from dataclasses import replace

import pytest
import torch

from minisd.checkpoint import write_json
from minisd.data import OneDigit
from minisd.errors import InputError
from minisd.evaluation import Judge, to_text
from minisd.extensions.cross_resolution import CrossResolutionUNet, extend, load, positions
from minisd.models import UNet, UNetConfig, parameter_count
from minisd.suites import Asked
from minisd.suites import cross_resolution as suite
from minisd.training import Recipe, run_on
from minisd.training.pool import encode_pool
from tests.helpers import TINY_UNET, draw_seven, extend_tiny, make_tiny_pipe, wake

THREE = UNetConfig(8, 4, 4, (8, 8, 16), (True,) * 3, 2, 2, 16, 4)  # levels of different depth


def networks(config):
    """The usual U-Net, and one with the same weights whose decoder also asks other levels."""
    usual, crossed = wake(UNet(config)), CrossResolutionUNet(config)
    missing, unexpected = crossed.load_state_dict(usual.state_dict(), strict=False)
    assert not unexpected and {name.split(".")[0] for name in missing} == {"bridges"}
    return usual, crossed


def inputs(size=8, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x, context = (torch.randn(s, generator=generator) for s in ((2, 4, size, size), (2, 5, 16)))
    return x, torch.tensor([3, 700]), context


@pytest.mark.parametrize("config", [TINY_UNET, THREE])
@pytest.mark.parametrize("size", [8, 6])  # 6 is halved to 3 and 2
def test_at_first_it_is_the_usual_u_net(config, size):
    usual, crossed = networks(config)
    with torch.no_grad():
        assert torch.equal(usual(*inputs(size)), crossed(*inputs(size)))
        wake(crossed)  # now it listens to the answers
        assert not torch.allclose(usual(*inputs(size)), crossed(*inputs(size)))


@pytest.mark.parametrize("config", [TINY_UNET, THREE])
def test_each_level_asks_all_others_and_not_itself(config):
    """The number of keys says whom it asks: 8 x 8, 4 x 4 and 2 x 2 pixels."""
    _, crossed = networks(config)
    pixels = [(8 >> i) ** 2 for i in range(len(config.block_out_channels))]
    shapes = []
    for bridge in crossed.bridges:
        softmax = bridge.attention.attention.softmax
        softmax.register_forward_hook(lambda _, __, maps: shapes.append(maps.shape[2:]))
    with torch.no_grad():
        crossed(*inputs())
    assert shapes == [(n, sum(pixels) - n) for n in reversed(pixels)]


def test_what_other_levels_hold_reaches_the_decoder():
    _, crossed = networks(TINY_UNET)
    bridge = wake(crossed).bridges[-1]
    x, other = torch.randn(1, 16, 8, 8), torch.randn(1, 16, 4, 4, requires_grad=True)
    bridge(x, [other]).sum().backward()
    assert other.grad.flatten(2).abs().sum(dim=1).gt(0).all()  # from every pixel of it


def test_the_same_place_has_the_same_position_at_every_resolution():
    coarse = positions(4, 4, 32, "cpu").unflatten(0, (4, 4))  # (4, 4, 32)
    fine = positions(8, 8, 32, "cpu").unflatten(0, (8, 8))
    near = torch.cdist(coarse.flatten(0, 1), fine.flatten(0, 1)).argmin(dim=1)
    rows, columns = (near // 8).reshape(4, 4) // 2, (near % 8).reshape(4, 4) // 2
    assert rows.tolist() == [[i] * 4 for i in range(4)]
    assert columns.tolist() == [[0, 1, 2, 3]] * 4


def small_run(pipe, folder):
    recipe = {"cross_resolution": Recipe(steps=3, batch_size=8)}
    return run_on(pipe, folder, OneDigit(pool_size=500), 0, recipe)


def test_both_networks_are_trained_on_the_same_batches_from_the_same_weights(tmp_path):
    pipe = make_tiny_pipe()
    run = small_run(pipe, tmp_path)
    pool = encode_pool(run, pipe.autoencoder, pipe.tokenizer, pipe.text_encoder)
    losses = [suite.stage_of(run, pool, name).loss_of_step(0).item() for name in suite.NETWORKS]
    assert losses[0] == losses[1] > 0
    assert suite.stage_of(replace(run, seed=1), pool, "usual").loss_of_step(0) != losses[0]


@pytest.fixture(scope="module")
def extended(tmp_path_factory):
    return extend_tiny(extend, "cross_resolution", tmp_path_factory.mktemp("run"))


def test_it_draws_and_its_file_holds_the_same_network(extended):
    pipe, made, folder = extended
    changed = made.unet.bridges[0].attention.to_out[0].weight
    assert changed.abs().sum() > 0  # it has learnt
    pictures = draw_seven(made)
    assert pictures.shape == (1, 3, 32, 32)
    assert not torch.allclose(pictures, draw_seven(pipe))
    torch.testing.assert_close(draw_seven(load(folder, pipe)), pictures, atol=1e-4, rtol=0)


def test_the_default_u_net_knows_nothing_of_it(extended):
    pipe, _, _ = extended
    assert type(pipe.unet) is UNet and not hasattr(pipe.unet, "bridges")


def test_it_refuses_another_checkpoint_and_an_empty_folder(extended, tmp_path):
    pipe, _, folder = extended
    other = make_tiny_pipe()
    with torch.no_grad():
        other.autoencoder.decoder.conv_out.bias += 1
    with pytest.raises(InputError, match="trained for another checkpoint; train anew with: "):
        load(folder, other)
    with pytest.raises(InputError, match="holds no cross-resolution .* train one with: "):
        load(tmp_path, pipe)


def test_damage_is_named(extended, tmp_path):
    pipe, made, _ = extended
    made.save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(path.read_text().replace('"attention_head_dim": 2', '"attention_head_dim": 3'))
    with pytest.raises(InputError, match="is damaged: attention_head_dim is 3, which"):
        load(tmp_path, pipe)


COST = {"parameters": 1000, "flops": 2e6, "seconds": 0.5, "steps": 2}


@pytest.fixture
def small_suite(tmp_path, monkeypatch):
    """The ablation, in seconds."""
    monkeypatch.setattr(suite, "ONE", OneDigit(pool_size=500))
    monkeypatch.setattr(suite, "FOLDER", tmp_path)
    monkeypatch.setattr(suite, "RECIPE", Recipe(steps=2, batch_size=8))
    monkeypatch.setattr(suite, "SEEDS", 2)
    monkeypatch.setattr(suite, "TIMED", 2)
    return tmp_path


def test_the_suite_trains_both_networks_and_goes_on_where_it_was(small_suite, monkeypatch):
    write_json(small_suite / "costs.json", dict.fromkeys(suite.NETWORKS, COST))
    pipe, judge, asked = make_tiny_pipe(), Judge.load(), Asked(samples=20)
    results = suite.measure(pipe, judge, asked)
    assert [(run["network"], run["seed"]) for run in results["runs"]] == [
        ("usual", 0),
        ("cross-resolution", 0),
        ("usual", 1),
        ("cross-resolution", 1),
    ]
    assert results["all"]["usual"]["joint"]["of"] == 40
    table = to_text(suite.tables(results)["after 180 seconds of one core"])
    assert table.count("cross-resolution") == 3 and "real renders" in table
    load(small_suite / "cross-resolution-1", pipe)

    def never(*_):
        raise AssertionError("it trains anew")

    monkeypatch.setattr("minisd.training.stages.denoising_loss", never)
    assert suite.measure(pipe, judge, asked) == results


def test_the_steps_are_those_that_fit_into_the_seconds(small_suite, monkeypatch):
    pipe = make_tiny_pipe()
    run = suite.run_of(pipe, "pool", 0, 1)
    pool = encode_pool(run, pipe.autoencoder, pipe.tokenizer, pipe.text_encoder)
    seconds = {"usual": 0.1, "cross-resolution": 0.4}
    monkeypatch.setattr(suite, "seconds_a_step", lambda stages, recipe: seconds)
    cost = suite.costs(pipe, pool)
    assert {name: c["steps"] for name, c in cost.items()} == {
        "usual": 1800,
        "cross-resolution": 450,
    }
    extra = [cost["cross-resolution"][x] - cost["usual"][x] for x in ("parameters", "flops")]
    bridges = CrossResolutionUNet(pipe.unet.config).bridges
    assert extra[0] == parameter_count(bridges) and extra[1] > 0
    monkeypatch.setattr(suite, "seconds_a_step", None)  # asked once
    assert suite.costs(pipe, pool) == cost
