"""Data-parallel training: the processes of PyTorch's launcher share the work of each step.

    torchrun --nproc-per-node=2 -m minisd train

Every process draws the same batch, sends its own chunk of it through the networks, and gathers the
outputs of all. So each holds the outputs of the whole batch and computes the same loss, even
CLIP's, which compares every picture with every caption. In the backward pass each process follows
its own chunk, and the gradients are summed. A single process does none of this.
"""

import logging
import os
from collections.abc import Callable
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ..errors import InputError


def launch(processes: int, arguments: list[str]) -> int:
    """Run `minisd` with these arguments in several processes; returns the exit code."""
    from torch.distributed import run as torchrun  # here, as it adds 0.2 s to every start
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // processes)))
    for name in ("MMAP", "TRIM"):  # glibc keeps up to a gigabyte of freed memory for the next step
        os.environ.setdefault(f"MALLOC_{name}_THRESHOLD_", str(2**30))
    logging.getLogger("torch.distributed").setLevel(logging.CRITICAL)  # the first process reports
    launcher = ["--standalone", f"--nproc-per-node={processes}", "-m", "minisd"]
    try:
        torchrun.main([*launcher, *arguments])
    except ChildFailedError:  # the first process has said why
        return 1
    except SignalException as signal:
        raise KeyboardInterrupt from signal
    return 0


def launched() -> bool:
    """Whether the launcher started this process."""
    return "LOCAL_RANK" in os.environ


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


@contextmanager
def processes(device: torch.device):
    """Join the other processes if there are any. InputError if the device cannot be shared."""
    if launched():
        if device.type == "mps" and os.environ["WORLD_SIZE"] != "1":
            raise InputError("an Apple GPU trains in one process only; or take --device cpu")
        gpu = device.type == "cuda"
        dist.init_process_group("nccl" if gpu else "gloo", device_id=device if gpu else None)
    try:
        yield
    finally:
        if launched():
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
