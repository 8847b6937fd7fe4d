"""What the user is told: errors that can be mended, warnings, and how values are quoted in them.

The command line shows an InputError as one line, without a traceback.
"""

import os
import re
import sys
import warnings

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


def warn(message: str) -> None:
    """Warn at the line of the user's that led here, whatever of minisd and torch lies between."""
    level, frame = 1, sys._getframe()
    while frame.f_back and frame.f_code.co_filename.startswith(LIBRARIES):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, stacklevel=level)
