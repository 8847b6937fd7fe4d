"""The files that ship with minisd, and the one way in which it writes others."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from .errors import InputError, shorten

INSTALLED = Path(__file__).resolve().with_name("shipped")  # where pyproject.toml puts data/
SHIPPED = INSTALLED if INSTALLED.exists() else INSTALLED.parents[1] / "data"  # or in a checkout
LONGEST = 250  # bytes of a name: file systems take 255, and ".tmp" is added


@contextmanager
def open_atomically(path: Path) -> Iterator[BinaryIO]:
    """Open a file that replaces `path` at the end; what fails or is killed leaves the old one.

    Makes the parent folders, writes to a file beside `path`, flushes it to the disk and renames it.
    OSError, which names `path`, if the disk is full.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno:
            error.filename = str(path)
        raise


def check_writable(path: Path) -> None:
    """InputError if no file can be written at `path`. Its folders need not be there yet."""
    if any(len(os.fsencode(name)) > LONGEST for name in path.parts):
        raise InputError(f"{shorten(str(path), 200)}: names may have {LONGEST} bytes, no more")
    if path.exists() and not path.is_file():
        raise InputError(f"{path} is a folder or a device, and a file is needed")
    above = next(folder for folder in path.absolute().parents if folder.exists())
    if not above.is_dir() or not os.access(above, os.W_OK):
        raise InputError(f"{path} cannot be written: {above} is not a folder that you may change")
