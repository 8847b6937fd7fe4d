"""The part of torture.py that kills training: small runs, killed at random and resumed."""

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from functools import cached_property
from pathlib import Path

import torch

from minisd import data
from minisd.call import to_pil

# A checkpoint half a second apart: the usual half a minute is longer than these runs.
COMMAND = """
import sys
from minisd import __main__
from minisd.training import loop, parallel

loop.SAVE_EVERY, launch = 0.5, parallel.launch
again = [sys.executable, __file__, *sys.argv[1:]]
parallel.launch = lambda processes, command: launch(processes, again)
__main__.start()
"""
TOWER = {"hidden_size": 16, "intermediate_size": 32, "num_layers": 1, "num_heads": 2}
NETWORKS = {
    "autoencoder": {"block_out_channels": "4,8,8", "norm_num_groups": 4},
    "text": TOWER,
    "vision": TOWER,
    "unet": {"block_out_channels": "8,16", "num_heads": 2, "norm_num_groups": 4},
}
RECIPES = {name: {"steps": 40, "batch_size": 8} for name in ("autoencoder", "clip", "unet")}
PICTURES = 60
PATIENCE = 20.0  # seconds in which all processes of a killed run must have ended
SIGKILL_LINE = "was ended by SIGKILL (is memory short?); a training run goes on with --resume"


def settings() -> list[str]:
    options = {"--network": NETWORKS, "--recipe": RECIPES}
    return [
        word
        for option, named in options.items()
        for name, fields in named.items()
        for key, value in fields.items()
        for word in (option, f"{name}.{key}={value}")
    ]


def result(run: Path) -> dict[str, object]:
    """What a run leaves, but for its checkpoints and for what depends on the time that it took."""
    files = [f for f in run.rglob("*") if f.is_file() and f.parent.name != "training"]
    contents = {str(f.relative_to(run)): f.read_bytes() for f in files}
    contents.pop("training.json", None)
    measured = json.loads(contents.pop("evaluation.json"))
    return contents | {"evaluation": {k: v for k, v in measured.items() if k != "seconds"}}


class Kills:
    """Trains, is killed with SIGKILL at random moments, resumes; see `run`."""

    def __init__(self, seed: int, tell: Callable[[str, str], str], same: str):
        self.random, self.seed, self.tell, self.same = random.Random(seed), seed, tell, same

    def run(self, kills: int) -> Counter:
        """Run after run, each killed until the kills are used up, then resumed to its end.

        By turns one process trains and two; of two and their launcher any may be killed.
        """
        counts = Counter()
        with tempfile.TemporaryDirectory() as folder:
            self.folder = Path(folder)
            (self.folder / "train.py").write_text(COMMAND)
            self.make_pictures()
            chain = 0
            while sum(counts.values()) < kills:
                processes, out = 1 + chain % 2, self.folder / f"run{chain}"
                left = min(kills - sum(counts.values()), self.random.randint(1, 8))
                found = [self.kill(out, processes) for _ in range(left)]
                ended = self.finish(out, processes)
                found = [ended if kill == self.same else kill for kill in found]
                for number, said in enumerate(found):
                    case = f"run {chain}, {processes} processes, kill {number}"
                    counts[self.tell(said, case)] += 1
                chain += 1
        return counts

    def make_pictures(self) -> None:
        (self.folder / "pictures").mkdir()
        batch = data.draw_batch(PICTURES, "train", torch.Generator().manual_seed(self.seed))
        for i, picture in enumerate(to_pil((batch.images + 1) / 2)):
            picture.save(self.folder / "pictures" / f"{i}.png")
            (self.folder / "pictures" / f"{i}.txt").write_text(batch.captions[i])

    def start(self, out: Path, processes: int) -> subprocess.Popen:
        """A run that is there is resumed."""
        words = [sys.executable, self.folder / "train.py", "train", "--out", out, *settings()]
        words += ["--data", self.folder / "pictures", "--processes", processes]
        words += ["--resume"] * (out / "training").exists()
        environment = {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
        return subprocess.Popen(
            list(map(str, words)),
            env=os.environ | environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    def kill(self, out: Path, processes: int) -> str:
        """Start or go on, kill at a random moment: `same` if all ended and the right was said."""
        process = self.start(out, processes)
        time.sleep(self.random.uniform(0, self.seconds[processes]))
        workers = children(process.pid)
        victim = self.random.choice([process.pid, *workers])
        with suppress(ProcessLookupError):  # it may have ended just now
            os.kill(victim, signal.SIGKILL)
        deadline = time.monotonic() + PATIENCE
        while any(map(alive, [process.pid, *workers])):
            if time.monotonic() > deadline:
                return "a process outlived the kill"
            time.sleep(0.1)
        _, err = process.communicate()
        if "Traceback" in err:
            return f"a traceback: {err[-300:]!r}"
        if victim != process.pid and process.returncode and SIGKILL_LINE not in err:
            return f"not said that a process was killed: {err[-300:]!r}"
        return self.same

    def finish(self, out: Path, processes: int) -> str:
        """Resume to the end, undisturbed, and compare with a run that was never killed."""
        process = self.start(out, processes)
        _, err = process.communicate()
        if process.returncode:
            return f"could not be resumed: {err[-300:]!r}"
        found, expected = result(out), self.whole[processes]
        changed = [name for name in {**found, **expected} if found.get(name) != expected.get(name)]
        return f"another {', '.join(changed)}" if changed else self.same

    @cached_property
    def whole(self) -> dict[int, dict]:
        """By number of processes: the result of the run that was never killed."""
        return {n: result(self.folder / f"whole{n}") for n in self.seconds}

    @cached_property
    def seconds(self) -> dict[int, float]:
        """By number of processes: what that run took."""
        seconds = {}
        for processes in (1, 2):
            began = time.monotonic()
            process = self.start(self.folder / f"whole{processes}", processes)
            _, err = process.communicate()
            if process.returncode:
                raise RuntimeError(err)
            seconds[processes] = time.monotonic() - began
        return seconds


def children(pid: int) -> list[int]:
    found = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True)
    return [int(line) for line in found.stdout.split()]


def alive(pid: int) -> bool:
    """Whether a process is there, and not only its exit code, which its parent has yet to read."""
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True)
    return bool(state.stdout.strip()) and not state.stdout.strip().startswith("Z")
