"""Files that minisd writes: whole or not at all, for others to read; refused before the work."""

import errno
import os
import stat

import matplotlib.pyplot as plt
import pytest

from minisd import files, plots
from minisd.errors import InputError
from minisd.evaluation import Judge
from minisd.evaluation.judge import Reader
from minisd.files import SHIPPED, check_writable, open_atomically


@pytest.fixture
def full_disk(monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files.os, "fsync", full)


def write(path, text):
    with open_atomically(path) as file:
        file.write(text)


def test_what_ships_with_minisd_is_there():
    for name in ("weights/model_index.json", "digits.npz", "judge.safetensors"):
        assert (SHIPPED / name).is_file()


def test_a_full_disk_is_named_and_leaves_the_old_file(tmp_path, full_disk):
    path = tmp_path / "new" / "numbers.json"
    with pytest.raises(OSError, match="No space left on device: '.*numbers.json'$"):
        write(path, b"first")
    assert not list(path.parent.iterdir())
    path.write_bytes(b"old")
    with pytest.raises(OSError, match="No space"):
        write(path, b"new")
    assert path.read_bytes() == b"old" and len(list(path.parent.iterdir())) == 1


def test_what_is_interrupted_leaves_the_old_file(tmp_path):
    path = tmp_path / "numbers.json"
    write(path, b"old")
    with pytest.raises(KeyboardInterrupt), open_atomically(path) as file:
        file.write(b"ne")
        raise KeyboardInterrupt
    assert path.read_bytes() == b"old" and len(list(tmp_path.iterdir())) == 1


def test_a_picture_is_written_whole_or_not_at_all(tmp_path, full_disk):
    with pytest.raises(OSError, match="picture.png"):
        plots.save(plt.figure(), tmp_path / "picture.png")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", plots.SUFFIXES)
def test_a_picture_is_what_its_name_says(tmp_path, suffix):
    begins = {".png": b"\x89PNG", ".webp": b"RIFF", ".svg": b"<?xml", ".pdf": b"%PDF"}
    path = tmp_path / f"picture{suffix.upper()}"
    plots.save(plt.figure(), path)
    assert path.read_bytes().startswith(begins.get(suffix, b"\xff\xd8\xff"))  # JPEG


@pytest.mark.skipif(os.name == "nt", reason="Windows has no umask")
@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_pictures_and_judge_have_the_permissions_that_the_umask_leaves(tmp_path, umask):
    before = os.umask(umask)
    try:
        plots.save(plt.figure(), tmp_path / "picture.png")
        Judge(Reader()).save(tmp_path / "judge.safetensors")
    finally:
        os.umask(before)
    modes = [stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()]
    assert modes == [0o666 & ~umask] * 2


def test_a_place_for_a_file_is_looked_at_without_writing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file, folder = tmp_path / "file", tmp_path / "folder"
    file.write_bytes(b"")
    folder.mkdir()
    check_writable(file)
    check_writable(folder / "new" / "deeper" / "name")
    check_writable(file.relative_to(tmp_path))
    with pytest.raises(InputError, match="folder is a folder or a device, and a file is needed"):
        check_writable(folder)
    if os.path.exists(os.devnull):
        with pytest.raises(InputError, match="is a folder or a device"):
            check_writable(files.Path(os.devnull))
    check_writable(folder / "new" / ("n" * 246 + ".png"))
    for place in (folder / "new" / ("n" * 247 + ".png"), folder / ("\u00e9" * 126) / "name"):
        with pytest.raises(InputError, match=": names may have 250 bytes, no more$"):
            check_writable(place)
    with pytest.raises(InputError, match=r"name cannot be written: .*file is not a folder"):
        check_writable(file / "new" / "name")
    monkeypatch.setattr(files.os, "access", lambda path, mode: False)
    with pytest.raises(InputError, match=r"cannot be written: .*folder is not a folder that you"):
        check_writable(folder / "name")
