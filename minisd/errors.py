"""Errors that the user can mend. The command line shows them as one line, without a traceback."""

import re


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
