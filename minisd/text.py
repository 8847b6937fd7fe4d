"""Text is UTF-8, whatever the locale."""

import os

from .errors import InputError, quote


def utf8(text: str) -> str:
    """`text`, with UTF-8 that Python took for something else put right. InputError if it is none.

    Where the locale is not UTF-8, arguments and file names arrive as bytes that are disguised as
    lone surrogates (PEP 383): "caf\\udcc3\\udca9" is "café".
    """
    try:
        return text.encode("utf-8", "surrogateescape").decode("utf-8")
    except UnicodeError as error:
        raise InputError(f"{quote(text, 200)} is not UTF-8") from error


def file_name(text: str) -> str:
    """A file's name in UTF-8 -> as the locale writes it, to open it. `utf8` turns it back."""
    return os.fsdecode(utf8(text).encode("utf-8"))
