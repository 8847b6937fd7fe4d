"""The loop: a run that is stopped anywhere ends as if it had not been, bit for bit."""

import copy
import errno
import os
from dataclasses import replace

import pytest
import torch
from torch import nn

from minisd import files
from minisd.errors import InputError
from minisd.training import Recipe, loop
from tests.helpers import equal

RECIPE = Recipe(steps=12, batch_size=4, learning_rate=1e-2, warmup=0.3, ema_decay=0.7)


class Stop(Exception):
    pass


class Tiny(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Conv2d(3, 5, 3, padding=1), nn.SiLU(), nn.Conv2d(5, 3, 1))

    def hidden_matrices(self):
        return [self[0].weight, self[2].weight]


def run(path, recipe=RECIPE, seed=0, stop_at=None, loss_at=None, after_step=None):
    """Train a tiny network to halve pictures; stop where told, replace the loss where told."""
    torch.manual_seed(seed)
    model = Tiny()

    def loss_of_step(step):
        if step == stop_at:
            raise Stop
        run.weights.append(copy.deepcopy(model.state_dict()))
        x = torch.randn(recipe.batch_size, 3, 4, 4, generator=loop.generator_for("x", step, seed))
        loss = (model(x) - x / 2).square().mean()
        return loss * (loss_at or {}).get(step, 1.0)

    run.weights = []  # at the start of each step
    options = {"identity": {"seed": seed}, "after_step": after_step}
    return loop.train(model, loss_of_step, recipe, "test", path, **options).state_dict()


def read(path):
    """All of a checkpoint but the seconds that it took."""
    return {k: v for k, v in torch.load(path, weights_only=True).items() if k != "seconds"}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "new" / "test.ckpt"


@pytest.fixture
def save_always(monkeypatch):
    monkeypatch.setattr(loop, "SAVE_EVERY", 0.0)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """(average weights, checkpoint) of a run that nobody stopped."""
    path = tmp_path_factory.mktemp("whole") / "test.ckpt"
    return run(path), read(path)


@pytest.mark.parametrize("stop_at", [1, 5, 11])
def test_a_stopped_run_resumes_to_the_same_bits(whole, path, save_always, stop_at):
    with pytest.raises(Stop):
        run(path, stop_at=stop_at)
    assert read(path)["step"] == stop_at
    assert equal(run(path), whole[0])
    # weights, average, optimizer and schedule
    assert equal(read(path), whole[1])


def test_steps_after_the_last_checkpoint_are_repeated(whole, path, monkeypatch):
    save = loop.save_atomically
    sometimes = lambda state, path: state["step"] % 4 or save(state, path)  # noqa: E731
    monkeypatch.setattr(loop, "SAVE_EVERY", 0.0)
    monkeypatch.setattr(loop, "save_atomically", sometimes)
    for stop_at in (3, 7, 10):  # the first comes before any checkpoint
        with pytest.raises(Stop):
            run(path, stop_at=stop_at)
        assert path.exists() == (stop_at > 4)
    assert equal(run(path), whole[0])
    assert len(run.weights) == 4  # steps 8 to 11


def test_a_finished_run_is_not_trained_again(whole, path):
    run(path)
    assert equal(run(path), whole[0]) and not run.weights


def test_without_a_checkpoint_it_trains_the_same_and_writes_nothing(
    whole, tmp_path, save_always, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    assert equal(run(None), whole[0])
    assert not list(tmp_path.iterdir())


def test_the_seed_decides_every_bit(whole, path, tmp_path):
    assert equal(run(path), whole[0])
    assert not equal(run(tmp_path / "other.ckpt", seed=1), whole[0])


def test_the_result_is_the_moving_average_of_the_weights(path):
    result = run(path)
    after = [*run.weights[1:], read(path)["parts"][0]]  # each step's end
    average = after[0]
    for weights in after[1:]:
        average = {k: 0.7 * average[k] + 0.3 * weights[k] for k in average}
    for k in result:
        torch.testing.assert_close(result[k], average[k])
        assert not torch.equal(result[k], after[-1][k])


def test_the_average_can_be_looked_at_after_each_step(path):
    seen = []
    look = lambda steps, average: seen.append((steps, copy.deepcopy(average.state_dict())))  # noqa: E731
    result = run(path, after_step=look)
    assert [steps for steps, _ in seen] == list(range(1, 13))
    assert equal(seen[-1][1], result) and not equal(seen[-2][1], result)


def test_training_lowers_the_loss(path):
    run(path, replace(RECIPE, steps=60))
    x = torch.randn(64, 3, 4, 4)
    loss = []
    for weights in (run.weights[0], run.weights[-1]):
        model = Tiny()
        model.load_state_dict(weights)
        loss.append((model(x) - x / 2).square().mean())
    assert loss[1] < loss[0] / 2


def test_nothing_temporary_is_left_behind(path, save_always):
    run(path)
    assert [file.name for file in path.parent.iterdir()] == ["test.ckpt"]


def test_a_crash_while_saving_leaves_the_last_checkpoint_whole(
    whole, path, save_always, monkeypatch
):
    with pytest.raises(Stop):
        run(path, stop_at=6)
    before = path.read_bytes()

    def half(state, file):
        file.write(before[: len(before) // 2])
        raise OSError("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(loop.torch, "save", half)
        with pytest.raises(OSError, match="No space"):
            run(path)
    assert path.read_bytes() == before
    assert equal(run(path), whole[0])
    assert [file.name for file in path.parent.iterdir()] == ["test.ckpt"]


def test_a_full_disk_leaves_the_last_checkpoint_whole(whole, path, save_always, monkeypatch):
    with pytest.raises(Stop):
        run(path, stop_at=6)
    before = path.read_bytes()

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(files.os, "fsync", full)
        with pytest.raises(OSError, match="No space left on device: '.*test.ckpt'"):
            run(path)
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == ["test.ckpt"]
    assert equal(run(path), whole[0])


@pytest.mark.parametrize("damage", ["empty", "cut", "noise", "other"])
def test_a_damaged_checkpoint_is_named_in_one_line(path, damage):
    run(path)
    good = path.read_bytes()
    bad = {"empty": b"", "cut": good[: len(good) // 2], "noise": b"\xff" * 500}
    if damage == "other":
        torch.save({"weights": 1}, path)
    else:
        path.write_bytes(bad[damage])
    with pytest.raises(ValueError, match="damaged") as error:
        run(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_a_checkpoint_may_not_run_code(path, tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "evil"), "w"))

    path.parent.mkdir()
    torch.save({"run": Evil()}, path)
    with pytest.raises(ValueError, match="damaged"):
        run(path)
    assert not (tmp_path / "evil").exists()


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({"seed": 1}, "other settings: seed;"),
        ({"recipe": replace(RECIPE, steps=13)}, "other settings: steps;"),
        ({"recipe": replace(RECIPE, batch_size=8, ema_decay=0.9)}, "batch_size, ema_decay;"),
    ],
)
def test_resuming_another_run_says_what_differs(path, change, names):
    run(path)
    before = path.read_bytes()
    with pytest.raises(ValueError, match=names) as error:
        run(path, **change)
    assert str(path) in str(error.value) and "\n" not in str(error.value)
    assert path.read_bytes() == before


@pytest.mark.parametrize("step", [0, 3, 11])
def test_a_loss_that_is_no_number_stops_the_run_and_is_never_saved(path, save_always, step):
    with pytest.raises(ValueError, match=f"test: the loss is nan at step {step}"):
        run(path, loss_at={step: float("nan")})
    if step:
        state = read(path)
        assert state["step"] == step
        assert all(weight.isfinite().all() for weight in state["parts"][0].values())


@pytest.mark.parametrize("step", [7, 11])
def test_a_loss_that_is_no_number_is_noticed_before_the_next_checkpoint(path, step):
    """It is looked at now and then only; but nothing that it spoilt may reach the file."""
    with pytest.raises(ValueError, match="the loss is nan"):
        run(path, loss_at={step: float("nan")})
    assert not path.exists()


def test_huge_gradients_are_clipped(path):
    """The optimizers' mean of the gradients is no longer than the longest of them."""
    run(path, loss_at=dict.fromkeys(range(12), 1e6))
    muon, adamw = (part["state"].values() for part in read(path)["parts"][2:4])
    means = [entry["average"].flatten() for entry in muon]
    means = torch.cat(means + [entry["exp_avg"] for entry in adamw])  # of matrices, of biases
    assert 0.1 < means.norm() <= 1


def test_the_rate_rises_and_falls(path, save_always, monkeypatch):
    rates = []
    save = loop.save_atomically
    note = lambda state, path: rates.append(state["parts"][-1]["_last_lr"][0])  # noqa: E731
    monkeypatch.setattr(loop, "save_atomically", lambda *a: note(*a) or save(*a))
    run(path)
    top = rates.index(max(rates))
    assert max(rates) == pytest.approx(1e-2, rel=0.1)
    assert top in (2, 3, 4) and rates[:top] == sorted(rates[:top])
    assert rates[top:] == sorted(rates[top:], reverse=True) and rates[-1] < 1e-4


@pytest.mark.parametrize(("steps", "warmup"), [(19, 0.05), (4, 0.2), (4, 0), (4, 1)])
def test_a_warmup_may_have_any_length(path, steps, warmup):
    run(path, replace(RECIPE, steps=steps, warmup=warmup))


def test_each_use_step_and_seed_has_randomness_of_its_own():
    numbers = {
        torch.rand((), generator=loop.generator_for(use, step, seed)).item()
        for use in ("pictures", "noise")
        for step in range(25)
        for seed in range(4)
    }
    assert len(numbers) == 200


def test_what_is_frozen_stays_and_what_lies_outside_the_model_may_be_used(path):
    """An adapter is trained through a frozen network that is not part of it."""
    torch.manual_seed(0)
    frozen, adapter = Tiny().requires_grad_(False), nn.Conv2d(3, 3, 1)
    before = copy.deepcopy(frozen.state_dict())
    adapter.bias.requires_grad_(False)
    bias, weight = adapter.bias.clone(), adapter.weight.clone()

    def loss_of_step(step):
        x = torch.randn(4, 3, 4, 4, generator=loop.generator_for("x", step, 0))
        return (frozen(adapter(x)) - x / 2).square().mean()

    average = loop.train(adapter, loss_of_step, RECIPE, checkpoint=path)
    assert equal(frozen.state_dict(), before) and torch.equal(average.bias, bias)
    assert not torch.equal(average.weight, weight)
    state = read(path)
    assert state["step"] == 12 and len(state["parts"]) == 4  # one optimizer, one schedule


def test_another_identity_is_another_run(path):
    run(path)
    with pytest.raises(InputError, match="other settings: stage;"):
        identity = {"seed": 0, "stage": "unet"}
        loop.train(Tiny(), lambda step: 1 / 0, RECIPE, "test", path, identity)


@pytest.mark.parametrize(
    "bad", [{"steps": 0}, {"batch_size": -1}, {"learning_rate": float("nan")}, {"ema_decay": 1.5}]
)
def test_a_recipe_that_cannot_train_is_refused(bad):
    (name,) = bad
    with pytest.raises(InputError, match=f"{name} must be"):
        replace(RECIPE, **bad)
