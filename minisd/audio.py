"""Sound that comes in: a WAV file becomes a tensor, as pictures.py has it for pictures."""

import struct
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor

from .errors import InputError, located, quote

RATE = 8000  # samples a second, as on the telephone
SECONDS = 10  # the longest recording
KINDS = {1: "PCM", 3: "floats", 6: "A-law", 7: "mu-law"}  # what a file may hold, by its number
EXTENSIBLE = 0xFFFE  # the kind's number comes later
STREAM = 0x7FFFF000  # a size that says: until the end, which was not yet known; as does 0
MOST = 2**26  # bytes of a chunk


def read_chunks(file: BinaryIO) -> tuple[bytes, int, bytes]:
    """Of a WAV file: the format, how many bytes of sound it promises, and the sound."""
    riff, form = file.read(12), b""
    if riff[:4] == b"RIFF" and riff[8:] == b"WAVE":
        while len(head := file.read(8)) == 8:
            name, size = struct.unpack("<4sI", head)
            if name == b"data" and len(form) >= 16:
                whole = size == 0 or size >= STREAM
                sound = file.read(MOST if whole else min(size, MOST))
                return form, len(sound) if whole else size, sound
            chunk = file.read(min(size + size % 2, MOST))
            form = chunk if name == b"fmt " else form
    raise InputError("this is no WAV file; save it as one of 16-bit PCM")


def read_wav(path: str | Path) -> Tensor:
    """A file of 16-bit PCM -> sound (T,) in [-1, 1] at RATE, mono. InputError for any other."""
    with located(quote(str(path), 200)), open(path, "rb") as file:
        form, size, sound = read_chunks(file)
        kind, channels, rate, _, _, bits = struct.unpack("<HHIIHH", form[:16])
        if kind == EXTENSIBLE:
            kind = int.from_bytes(form[24:26], "little")
        if (kind, bits) != (1, 16):
            found = f"{bits}-bit {KINDS.get(kind, f'samples of the kind {kind}')}"
            raise InputError(f"it holds {found}; save it as 16-bit PCM")
        count = size // (2 * channels) if channels else 0
        if not count or not rate:
            raise InputError("it is empty; record a caption")
        if count > SECONDS * rate:
            raise InputError(f"it lasts {count / rate:.1f} seconds; the most is {SECONDS}")
        if len(sound) < size:
            raise InputError(f"it is cut short: {len(sound)} bytes of {size}")
    samples = np.frombuffer(sound, "<i2", count * channels).reshape(count, channels)
    return resample(torch.from_numpy(samples.mean(axis=1) / 2**15).float(), rate, RATE)


def resample(x: Tensor, old: float, new: float) -> Tensor:
    """Sound (T,) at `old` samples a second -> at `new`: its spectrum, cut or filled up with 0."""
    length = max(1, round(len(x) * new / old))
    return torch.fft.irfft(torch.fft.rfft(x), n=length) * (length / len(x))


def trim(x: Tensor) -> Tensor:
    """Sound (T,) without what is quiet before and after."""
    loud = (x.abs() >= 0.03 * x.abs().max()).nonzero()
    return x[loud.min() : loud.max() + 1]
