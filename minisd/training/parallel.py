"""Data-parallel training: the processes of PyTorch's launcher share the work of each step.

    torchrun --nproc-per-node=2 -m minisd train

Every process draws the same batch, sends its own part of it through the networks, and gathers the
answers of all. So each holds the whole batch's answers and computes the same loss, be it CLIP's,
which compares every picture with every caption. Going back, each follows its own part, and the
gradients are summed. In a single process nothing of this happens.
"""

import os
from collections.abc import Callable
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor, nn


def count() -> int:
    """How many processes share the work."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """The number of this process; number 0 writes the files and shows the progress."""
    return dist.get_rank() if dist.is_initialized() else 0


def wait() -> None:
    """Until every process has come this far."""
    if count() > 1:
        dist.barrier()


@contextmanager
def processes(device: torch.device):
    """Join the other processes, if the launcher started any. ValueError if they cannot work so."""
    if launched := "LOCAL_RANK" in os.environ:
        if device.type == "mps" and os.environ["WORLD_SIZE"] != "1":
            raise ValueError("an Apple GPU trains in one process only; or take --device cpu")
        gpu = device.type == "cuda"
        dist.init_process_group("nccl" if gpu else "gloo", device_id=device if gpu else None)
    try:
        yield
    finally:
        if launched:
            dist.destroy_process_group()


def part(whole: Tensor) -> Tensor:
    """This process's part of a batch: (B, ...) -> (B / processes, ...)."""
    if len(whole) % count():
        raise ValueError(f"a batch of {len(whole)} cannot be shared out to {count()} processes")
    return whole.chunk(count())[rank()].contiguous()


def gather(mine: Tensor) -> Tensor:
    """The parts of all processes (B / processes, ...) -> the whole batch (B, ...)."""
    if count() == 1:
        return mine
    parts = [torch.empty_like(mine) for _ in range(count())]
    dist.all_gather(parts, mine)
    return torch.cat(parts)


class Part(torch.autograd.Function):
    """part, with gradients: those that the processes find for their parts, put together."""

    @staticmethod
    def forward(ctx, whole: Tensor) -> Tensor:
        return part(whole)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        return gather(gradient.contiguous())


class Gather(torch.autograd.Function):
    """gather, with gradients: the loss is the same everywhere, and so is its gradient."""

    @staticmethod
    def forward(ctx, mine: Tensor) -> Tensor:
        return gather(mine.contiguous())

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        return part(gradient)


@contextmanager
def shared(*modules: nn.Module):
    """Within it each process runs these modules on its part of a batch, and gets the whole back.

    Their inputs are tensors (B, ...), and so is their output.
    """
    hooks = []
    for module in modules if count() > 1 else ():
        take = lambda _, inputs: tuple(map(Part.apply, inputs))  # noqa: E731
        hooks.append(module.register_forward_pre_hook(take))
        hooks.append(module.register_forward_hook(lambda _, __, answer: Gather.apply(answer)))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def sum_gradients(*modules: nn.Module) -> None:
    """Add up what the processes found for the weights of shared modules."""
    gradients = [p.grad for module in modules for p in module.parameters() if p.grad is not None]
    if count() > 1 and gradients:
        total = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(total)  # one message instead of hundreds
        sizes = [gradient.numel() for gradient in gradients]
        for gradient, summed in zip(gradients, total.split(sizes), strict=True):
            gradient.copy_(summed.view_as(gradient))


def share_out(work: Callable[[list[Tensor]], list[Tensor]], tensors: list[Tensor]) -> list[Tensor]:
    """work(tensors), of which each process does a part. `work` keeps their number and shapes."""
    if count() == 1:
        return work(tensors)
    done = [torch.zeros_like(x) for x in tensors]
    done[rank() :: count()] = work(tensors[rank() :: count()])
    total = torch.cat([x.flatten() for x in done])
    dist.all_reduce(total)  # what the others did is zero here
    parts = total.split([x.numel() for x in tensors])
    return [part.view(x.shape) for part, x in zip(parts, tensors, strict=True)]
