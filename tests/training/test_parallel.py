"""Two processes that share the work end where one process ends, to rounding, or end together."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from minisd.errors import InputError
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
    def loss(*arguments, **more):
        losses.append(loss_of(*arguments, **more))
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


# The launcher. Its processes here are quick ones, without PyTorch.

WORKER = """
import os, sys, time
from pathlib import Path
rank = int(os.environ["RANK"])
Path(str(rank)).write_text(str(os.getpid()))
def die():
    os.kill(os.getpid(), 9)
def fail(line):
    sys.exit(f"minisd: error: {line}")
def wait():
    time.sleep(600)
"""


@pytest.fixture
def launch(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(parallel, "PATIENCE", 0.5)

    def launch(first, second):
        """(exit code, stderr) of two processes that do this; they are gone afterwards."""
        code = f"{WORKER}\n{first} if rank == 0 else {second}"
        try:
            return parallel.launch(2, [sys.executable, "-c", code]), capfd.readouterr().err
        finally:
            for file in tmp_path.iterdir():
                with pytest.raises(ProcessLookupError):
                    os.kill(int(file.read_text()), 0)

    return launch


def test_the_processes_find_one_another(launch):
    names = ("WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "LOCAL_RANK", "OMP_NUM_THREADS")
    found = f"all(os.environ[name] for name in {names}) or fail('lost')"
    assert launch(found, found) == (0, "")


@pytest.mark.parametrize("first", [True, False])
def test_a_process_that_is_killed_is_named(launch, first):
    lost = f"sys.exit({parallel.LOST})"
    for other in ("wait()", lost):
        with pytest.raises(InputError) as caught:
            launch(*(("die()", other) if first else (other, "die()")))
        assert str(caught.value) == (
            f"process {int(not first)} of 2 was ended by SIGKILL (is memory short?); "
            "a training run goes on with --resume"
        )


def test_a_process_that_fails_is_heard_once(launch):
    line = "minisd: error: no such thing\n"
    fail, lost = "fail('no such thing')", f"sys.exit({parallel.LOST})"
    for first, second in ((fail, fail), (fail, lost), (lost, fail), (fail, "wait()")):
        assert launch(first, second) == (1, line)
    code, err = launch("wait()", fail)  # what follows its progress bar stands on a line of its own
    assert (code, err) == (1, "\n" + line)


@pytest.mark.skipif(os.name == "nt", reason="Windows has other signals")
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_ctrl_c_ends_all_with_one_line(name, tmp_path):
    command = [sys.executable, "-m", "minisd", "train", "--processes", "2", "--out", tmp_path]
    # A shell's background job ignores SIGINT, and its children would, too: they inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    workers = []
    while len(workers) < 2 and process.poll() is None:
        time.sleep(0.05)
        found = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True)
        workers = found.stdout.split()
    if name == "SIGINT":
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    else:
        process.terminate()
    _, err = process.communicate(timeout=100)
    assert process.returncode == 130
    assert err.strip() == "minisd: stopped; a training run goes on with --resume"
    for pid in workers:
        with pytest.raises(ProcessLookupError):
            os.kill(int(pid), 0)


@pytest.mark.skipif(os.name == "nt", reason="on Windows a process does not see its parent end")
def test_a_process_ends_with_its_launcher():
    worker = "import os; from minisd.training.parallel import end_with; parent = os.getppid(); "
    worker += "print(os.getpid(), flush=True); end_with(parent)"
    launcher = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {worker!r}])"
    process = subprocess.Popen([sys.executable, "-c", launcher], stdout=subprocess.PIPE, text=True)
    assert int(process.stdout.readline()) > 0
    process.kill()
    assert process.stdout.read() == ""  # which waits until the worker has closed it, too


def test_a_process_with_half_of_a_launchers_variables_trains_alone(monkeypatch):
    for name in ("LOCAL_RANK", "RANK", "WORLD_SIZE", "MASTER_ADDR"):
        monkeypatch.setenv(name, "0")
    monkeypatch.delenv("MASTER_PORT", raising=False)
    with parallel.processes(torch.device("cpu")):
        assert (parallel.rank(), parallel.count()) == (0, 1)


@pytest.mark.skipif(os.name == "nt", reason="on Windows a process does not see its parent end")
def test_a_process_whose_launcher_ended_before_it_looked_ends_too():
    worker = "import torch; from minisd.training.parallel import processes\n"
    worker += "with processes(torch.device('cpu')): pass"
    common = {"LOCAL_RANK": "1", "RANK": "1", "WORLD_SIZE": "2", "MINISD_LAUNCHER": "1"}
    store = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}  # which nobody answers
    done = subprocess.run(
        [sys.executable, "-c", worker], env=os.environ | common | store, timeout=60
    )
    assert done.returncode == parallel.LOST
