"""Two processes that share the work end where one process ends, to rounding."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from minisd.training import parallel

ROOT = Path(__file__).resolve().parents[2]

# Trains tiny networks; each process writes down every loss and gradient, and its last weights.
SCRIPT = """
import json, sys
from pathlib import Path
import torch
from minisd.training import loop, parallel, stages
from tests.helpers import change_recipe, tiny_run

folder, losses, gradients, weights = Path(sys.argv[1]), [], [], {}
loop.mixed_precision = stages.mixed_precision = lambda _: torch.autocast("cpu", enabled=False)
# Without an average the result is the last step's weights, which a wrong gradient moves.
run = tiny_run(folder / "run")
for stage in run.recipes:
    run = change_recipe(run, stage, ema_decay=0.0)

def noted(loss_of):
    def loss(*arguments):
        losses.append(loss_of(*arguments))
        return losses[-1]
    return loss

for name in ("autoencoder_loss", "clip_loss", "denoising_loss"):
    setattr(stages, name, noted(getattr(stages, name)))
clip = torch.nn.utils.clip_grad_norm_

def noted_clip(parameters, limit):
    parameters = list(parameters)
    gradients.append(torch.cat([p.grad.flatten() for p in parameters if p.grad is not None]))
    return clip(parameters, limit)

torch.nn.utils.clip_grad_norm_ = noted_clip
train = stages.train

def keep(model, *arguments, **options):
    average = train(model, *arguments, **options)
    weights[type(model).__name__] = {k: v.clone() for k, v in average.state_dict().items()}
    return average

stages.train = keep
with parallel.processes(torch.device("cpu")):
    stages.train_all(run)
    me = parallel.rank()
    (folder / f"losses{me}.json").write_text(json.dumps([loss.item() for loss in losses]))
    torch.save({"weights": weights, "gradients": gradients}, folder / f"{me}.pt")
"""


def run(folder: Path, *launcher: str) -> None:
    script = folder / "script.py"
    script.write_text(SCRIPT)
    environment = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"}
    words = [sys.executable, *launcher, str(script), str(folder)]
    done = subprocess.run(
        words, env=os.environ | environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    folder = tmp_path_factory.mktemp("one")
    run(folder)
    return folder


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    run(folder, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
    return folder


def losses(folder, rank=0):
    return json.loads((folder / f"losses{rank}.json").read_text())


def weights(folder, rank=0):
    return torch.load(folder / f"{rank}.pt")["weights"]


def gradients(folder, rank=0):
    return torch.load(folder / f"{rank}.pt")["gradients"]


def test_every_process_ends_with_the_same_bits(two):
    assert losses(two, 0) == losses(two, 1)
    first, second = weights(two, 0), weights(two, 1)
    assert first.keys() == second.keys() == {"Autoencoder", "CLIP", "UNet"}
    for model in first:
        for name in first[model]:
            assert torch.equal(first[model][name], second[model][name]), name


def test_two_processes_see_the_losses_of_one(one, two):
    assert len(losses(one)) == 12  # four steps of each stage
    assert losses(two) == pytest.approx(losses(one), rel=1e-4)


def test_two_processes_find_the_gradients_of_one(one, two):
    """In each stage's first step; later ones differ by what AdamW makes of rounding."""
    assert len(gradients(one)) == 12
    for first, (a, b) in enumerate(zip(gradients(two)[::4], gradients(one)[::4], strict=True)):
        assert b.norm() > 0 and (a - b).norm() < 1e-3 * b.norm(), first


def test_two_processes_end_with_the_weights_of_one(one, two):
    """But for the biases: before a norm they have no gradient but rounding, which Adam enlarges."""
    for model, expected in weights(one).items():
        found = weights(two)[model]
        names = [name for name in expected if not name.endswith("bias")]
        a, b = (torch.cat([w[name].flatten() for name in names]) for w in (found, expected))
        assert (a - b).norm() < 1e-5 * b.norm(), model


def test_one_process_writes_the_run(two):
    names = sorted(path.name for path in (two / "run").iterdir())
    assert "model_index.json" in names and "training" in names


def test_a_single_process_keeps_everything_for_itself():
    assert (parallel.count(), parallel.rank()) == (1, 0)
    batch = torch.arange(6)
    assert torch.equal(parallel.chunk(batch), batch)
    layer = torch.nn.Linear(2, 2)
    with parallel.shared(layer):
        assert not layer._forward_hooks


def test_a_batch_that_cannot_be_shared_out_is_refused_in_one_line(monkeypatch):
    monkeypatch.setattr(parallel, "count", lambda: 4)
    with pytest.raises(ValueError, match="a batch of 6 cannot be shared out to 4 processes"):
        parallel.chunk(torch.arange(6))
