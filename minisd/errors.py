"""What the user is told: errors that can be mended, the checks that raise them, and warnings.

The command line shows an InputError as one line, without a traceback.
"""

import math
import os
import re
import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from numbers import Integral, Real

import torch

LIBRARIES = tuple(os.path.dirname(file) + os.sep for file in (__file__, torch.__file__))


class InputError(ValueError):
    """Something that was asked for cannot be done; the message says what would work.

    A plain ValueError is a bug in minisd and keeps its traceback.
    """


def shorten(text: str, limit: int = 60) -> str:
    """The text in one line, its middle left out if it is longer than limit."""
    text, half = re.sub(r"\s*\n\s*", " ", text), (limit - 5) // 2
    return text if len(text) <= limit else f"{text[:half]} ... {text[-half:]}"


def quote(value, limit: int = 60) -> str:
    """repr(value), its middle left out if it is longer than limit."""
    return shorten(repr(value), limit)


@contextmanager
def located(place) -> Iterator[None]:
    """Put "place: ", the file or the part of it, before the message of an InputError."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{place}: {error}") from error


@contextmanager
def renamed(words: dict[str, str]) -> Iterator[None]:
    """Say it in other words, each for the one that an InputError of the code inside has."""
    try:
        yield
    except InputError as error:
        message = str(error)
        for word, other in words.items():
            message = re.sub(rf"\b{word}\b", other, message)
        raise InputError(message) from error


def check_number(name: str, value, least=-math.inf, most=math.inf, whole=False) -> None:
    """InputError unless it is a finite number, or a whole one, from `least` to `most`."""
    fits = isinstance(value, Integral if whole else Real) and not isinstance(value, bool)
    if not fits or not least <= value <= most or not abs(value) <= sys.float_info.max:
        right = "a whole number" if whole else "a number"
        if most < math.inf:
            right += f" from {least} to {most}"
        elif least > -math.inf:
            right += f" of at least {least}"
        raise InputError(f"{name} must be {right}, not {quote(value)}")


def check_choice(name: str, value, choices: Iterable) -> None:
    """InputError unless it is one of the choices, and of its type: 1 is not True."""
    choices = list(choices)
    if not any(isinstance(value, type(choice)) and value == choice for choice in choices):
        right = ", ".join(map(str, choices))
        raise InputError(f"{name} must be one of {right}, not {quote(value)}")


def warn(message: str) -> None:
    """Warn at the line of the user's that led here, whatever of minisd and torch lies between."""
    level, frame = 1, sys._getframe()
    while frame.f_back and frame.f_code.co_filename.startswith(LIBRARIES):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, stacklevel=level)
