"""Errors that the user can mend. The command line shows them as one line, without a traceback."""


class InputError(ValueError):
    """Something that was asked for cannot be done; the message says what would work.

    A plain ValueError is a bug in minisd and keeps its traceback.
    """


def quote(value, limit: int = 60) -> str:
    """repr(value), its middle left out if it is longer than limit."""
    text = repr(value)
    half = (limit - 5) // 2
    return text if len(text) <= limit else f"{text[:half]} ... {text[-half:]}"
