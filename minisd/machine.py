"""The computer: its devices, the precision that is fast on them, its name."""

import os
import platform

import torch
from torch import nn

from .errors import InputError, quote


def pick_device(name: str | torch.device = "auto") -> torch.device:
    """The device of that name; "auto" is a GPU if there is one. InputError if it does not exist.

    Each of several processes takes an NVIDIA GPU of its own.
    """
    if name == "auto":
        apple = "mps" if torch.backends.mps.is_available() else "cpu"
        name = "cuda" if torch.cuda.is_available() else apple
    if name == "cuda":
        name = f"cuda:{os.environ.get('LOCAL_RANK', 0)}"
    try:
        torch.zeros(1, device=name).item()
    except (RuntimeError, AssertionError, TypeError) as error:
        raise InputError(f"there is no device {quote(str(name))} on this machine") from error
    return torch.device(name)


def mixed_precision(device: str | torch.device) -> torch.autocast:
    """bfloat16 where the hardware multiplies in it, else float32."""
    device = torch.device(device)
    if device.type == "cpu":
        abilities = torch.cpu.get_capabilities()
        fast = abilities.get("avx512_bf16") or abilities.get("amx_bf16") or abilities.get("bf16")
    else:
        fast = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.autocast(device.type, torch.bfloat16, enabled=bool(fast))


def channels_last(model: nn.Module) -> nn.Module:
    """Store the channels of a pixel together: faster convolutions, except on Apple's GPUs."""
    if next(model.parameters()).device.type != "mps":
        model.to(memory_format=torch.channels_last)
    return model


def describe(device: str | torch.device = "cpu") -> str:
    """One line to print beside a measured number: processor, cores, threads, versions."""
    device = torch.device(device)
    name = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            name = next(line.split(":")[1].strip() for line in file if "model name" in line)
    except (OSError, StopIteration):  # not Linux, or a processor without a name
        pass
    threads, vectors = torch.get_num_threads(), torch.backends.cpu.get_cpu_capability()
    parts = [f"{name}, {os.cpu_count()} cores, {threads} used by a process, {vectors}"]
    if device.type == "cuda":
        parts.append(torch.cuda.get_device_name(device))
    parts += [f"torch {torch.__version__.split('+')[0]}", f"Python {platform.python_version()}"]
    return "; ".join(parts)
