"""Data-parallel training: several processes share the work of each step.

    python -m minisd train --processes 2
    torchrun --nproc-per-node=2 -m minisd train     # the same, by PyTorch's own launcher

Every process draws the same batch, sends its own chunk of it through the networks, and gathers the
outputs of all. So each holds the outputs of the whole batch and computes the same loss, even
CLIP's, which compares every picture with every caption. In the backward pass each process follows
its own chunk, and the gradients are summed. A single process does none of this.
"""

import math
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager
from typing import BinaryIO

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ..errors import InputError

LOST = 3  # the exit code of a process that could not go on because another one had ended
PATIENCE = 5.0  # seconds in which the others may end by themselves when one has failed


def launch(processes: int, command: list[str]) -> int:
    """Run a command in several processes that find one another; returns the exit code.

    When one fails, all end. The first writes to the terminal, the others only if they fail alone.
    InputError if one was killed.
    """
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)  # any free port
    common = {"WORLD_SIZE": processes, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": store.port}
    common["TORCHELASTIC_USE_AGENT_STORE"] = True  # this store, instead of one in process 0
    common["MINISD_LAUNCHER"] = os.getpid()
    defaults = {"OMP_NUM_THREADS": max(1, (os.cpu_count() or 1) // processes)}
    for name in ("MMAP", "TRIM"):  # glibc keeps up to a gigabyte of freed memory for the next step
        defaults[f"MALLOC_{name}_THRESHOLD_"] = 2**30
    heard = [tempfile.TemporaryFile() for _ in range(1, processes)]  # noqa: SIM115
    workers: list[subprocess.Popen] = []
    hold = getattr(signal, "pthread_sigmask", None)  # Windows has none
    if hold:
        hold(signal.SIG_BLOCK, [signal.SIGINT])  # which they inherit: Ctrl-C ends this process,
    try:
        for rank, stderr in enumerate([None, *heard]):
            own = {**defaults, **os.environ, **common, "RANK": rank, "LOCAL_RANK": rank}
            environment = {name: str(value) for name, value in own.items()}
            workers.append(subprocess.Popen(command, env=environment, stderr=stderr))
        if hold:
            hold(signal.SIG_UNBLOCK, [signal.SIGINT])
        codes, deadline = [None], math.inf
        while None in codes and time.monotonic() < deadline:
            time.sleep(0.1)
            codes = [worker.poll() for worker in workers]
            if any(codes):
                deadline = min(deadline, time.monotonic() + PATIENCE)
    finally:
        for worker in workers:  # and this one ends them
            worker.kill()
            worker.wait()
        if workers and workers[0].returncode < 0:
            print(file=sys.stderr)  # after its progress bar
    report(codes, heard)
    return int(any(codes))


def report(codes: list[int | None], heard: list[BinaryIO]) -> None:
    """Say why a process failed, if it did not. heard: what all but the first wrote to stderr.

    An exit code below zero is the number of the signal that ended the process.
    """
    for rank, code in enumerate(codes):
        if code is not None and code < 0:
            why = f"process {rank} of {len(codes)} was ended by {signal.Signals(-code).name}"
            raise InputError(f"{why} (is memory short?); a training run goes on with --resume")
    failed = [rank for rank, code in enumerate(codes) if code not in (None, 0, LOST)]
    if failed and failed[0] > 0:  # the first process did not fail, and so said nothing
        heard[failed[0] - 1].seek(0)
        sys.stderr.write(heard[failed[0] - 1].read().decode(errors="replace"))


def launched() -> bool:
    """Whether the launcher started this process."""
    names = {"LOCAL_RANK", "RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"}
    return names <= os.environ.keys()


def count() -> int:
    """How many processes share the work."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """The number of this process. Number 0 writes the files and shows the progress."""
    return dist.get_rank() if dist.is_initialized() else 0


def wait() -> None:
    """Wait until every process has reached this line."""
    if count() > 1:
        dist.barrier()


def end_with(parent: int) -> None:
    """Wait for the process that started this one to end, and end too."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(LOST)


@contextmanager
def processes(device: torch.device):
    """Join the other processes if there are any. InputError if the device cannot be shared.

    Ends this process when the launcher or another process is gone.
    """
    if not launched():
        yield
        return
    launcher = int(os.environ.get("MINISD_LAUNCHER", os.getppid()))  # it may have ended before
    threading.Thread(target=end_with, args=[launcher], daemon=True).start()
    if device.type == "mps" and os.environ["WORLD_SIZE"] != "1":
        raise InputError("an Apple GPU trains in one process only; or take --device cpu")
    gpu = device.type == "cuda"
    dist.init_process_group("nccl" if gpu else "gloo", device_id=device if gpu else None)
    try:
        yield
    except RuntimeError as error:
        if "gloo" in str(error):  # it lost its connection to another process, which says why
            sys.exit(LOST)
        raise
    finally:
        dist.destroy_process_group()


def chunk(whole: Tensor) -> Tensor:
    """This process's chunk of a batch: (B, ...) -> (B / processes, ...)."""
    if len(whole) % count():
        raise InputError(f"a batch of {len(whole)} cannot be shared out to {count()} processes")
    return whole.chunk(count())[rank()].contiguous()


def gather(mine: Tensor) -> Tensor:
    """The chunks of all processes (B / processes, ...) -> the whole batch (B, ...).

    Its gradient is that of this process's chunk, as the loss is the same in every process.
    """
    if count() == 1:
        return mine
    mine = mine.contiguous()
    chunks = [torch.empty_like(mine) for _ in range(count())]
    dist.all_gather(chunks, mine.detach())
    chunks[rank()] = mine
    return torch.cat(chunks)


class Chunk(torch.autograd.Function):
    """`chunk` for autograd: its backward pass gathers the gradients of all chunks."""

    @staticmethod
    def forward(ctx, whole: Tensor) -> Tensor:
        return chunk(whole)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        return gather(gradient)


@contextmanager
def shared(*modules: nn.Module):
    """A context in which each process runs the modules on its chunk and gets all outputs back.

    Their inputs are tensors (B, ...), and so is their output.
    """
    hooks = []
    for module in modules if count() > 1 else ():
        take = lambda _, inputs: tuple(map(Chunk.apply, inputs))  # noqa: E731
        hooks.append(module.register_forward_pre_hook(take))
        hooks.append(module.register_forward_hook(lambda _, __, answer: gather(answer)))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def sum_gradients(*modules: nn.Module) -> None:
    """Sum the gradients of the shared modules over all processes."""
    gradients = [p.grad for module in modules for p in module.parameters() if p.grad is not None]
    if count() > 1 and gradients:
        for gradient, total in zip(gradients, sum_over_processes(gradients), strict=True):
            gradient.copy_(total)


def sum_over_processes(tensors: list[Tensor]) -> list[Tensor]:
    """Each tensor's sum over all processes, in one message instead of hundreds."""
    total = torch.cat([x.flatten() for x in tensors])
    dist.all_reduce(total)
    pieces = total.split([x.numel() for x in tensors])
    return [piece.view_as(x) for piece, x in zip(pieces, tensors, strict=True)]


def share_out(work: Callable[[list[Tensor]], list[Tensor]], tensors: list[Tensor]) -> list[Tensor]:
    """work(tensors), each process doing some of them. `work` keeps their number and shapes."""
    if count() == 1:
        return work(tensors)
    done = [torch.zeros_like(x) for x in tensors]
    done[rank() :: count()] = work(tensors[rank() :: count()])
    return sum_over_processes(done)  # each process holds zeros for the work of the others
