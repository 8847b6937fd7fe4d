"""The set of emoji is a folder of captioned pictures; tried on packages made here, without npm."""

import hashlib
import io
import json
import sys
import tarfile

import pytest
from PIL import Image

from benchmarks import emoji

PACKAGES = list(emoji.SHA256)
LABELS = {  # hexcode: label, in Unicode's order
    "1F600": "grinning face",
    "2764-FE0F": "red heart",
    "1F1E7-1F1FB": "flag: Bouvet Island",
    "1F1F3-1F1F4": "flag: Norway",
    "1F468-200D-1F466": "family: man, boy",
    "1F3FB": "light skin tone",
}
COLOURS = {"1F600": "gold", "2764-FE0F": "red", "1F3FB": "tan"}  # flags and families: navy


def png(colour: str) -> bytes:
    """A picture that is transparent on its right half."""
    picture = Image.new("RGBA", (64, 64))
    picture.paste(colour, (0, 0, 32, 64))
    picture.save(file := io.BytesIO(), "png")
    return file.getvalue()


def pack(path, files: dict[str, bytes]) -> str:
    """Write what `npm pack` would; its SHA-256."""
    with tarfile.open(path, "w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def archives(tmp_path, monkeypatch):
    entries = [
        {
            "unified": code,
            "image": f"{code.lower()}.png",
            "sort_order": i,
            "category": "Component" if code == "1F3FB" else "Any",
        }
        for i, code in enumerate(LABELS)
    ]
    pictures = {
        f"{emoji.PICTURES}{code.lower()}.png": png(COLOURS.get(code, "navy")) for code in LABELS
    }
    labels = [{"hexcode": c.removesuffix("-FE0F"), "label": label} for c, label in LABELS.items()]
    files = (
        {emoji.EMOJI: json.dumps(entries[::-1]).encode(), **pictures, "package/README.md": b""},
        {emoji.NAMES: json.dumps(labels).encode()},
    )
    folder = tmp_path / "archives"
    folder.mkdir()
    for package, content in zip(PACKAGES, files, strict=True):
        sha256 = pack(folder / f"{package.replace('@', '-')}.tgz", content)
        monkeypatch.setitem(emoji.SHA256, package, sha256)
    return folder


def run(monkeypatch, *arguments) -> str | None:
    """What the program says when it fails, or None."""
    monkeypatch.setattr(sys, "argv", ["emoji", *map(str, arguments)])
    try:
        emoji.main()
    except SystemExit as end:
        return end.code


def test_a_folder_of_captioned_pictures(archives, tmp_path, monkeypatch):
    out = tmp_path / "new" / "set"
    assert run(monkeypatch, "--out", out, "--archive", archives) is None
    lines = (out / "metadata.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == [
        {"file_name": "1f600.png", "text": "grinning face"},
        {"file_name": "2764-fe0f.png", "text": "red heart"},
        {"file_name": "1f1f3-1f1f4.png", "text": "flag: Norway"},  # Bouvet's is the same
    ]
    assert len(list(out.iterdir())) == 4
    picture = Image.open(out / "2764-fe0f.png")
    assert picture.mode == "RGB" and picture.size == (64, 64)
    assert picture.getpixel((10, 10)) == (255, 0, 0)
    assert picture.getpixel((50, 10)) == (255, 255, 255)


def test_what_cannot_work_is_refused_in_one_line(archives, tmp_path, monkeypatch):
    full, out = tmp_path, tmp_path / "set"
    refusals = {"is not empty": run(monkeypatch, "--out", full, "--archive", archives)}
    file = archives / f"{PACKAGES[1].replace('@', '-')}.tgz"
    refusals[str(file)] = run(monkeypatch, "--out", file, "--archive", archives)
    refusals["No such file"] = run(monkeypatch, "--out", out, "--archive", tmp_path / "none")
    file.write_bytes(file.read_bytes()[:-9])
    refusals["SHA-256"] = run(monkeypatch, "--out", out, "--archive", archives)
    monkeypatch.setenv("PATH", str(tmp_path))
    refusals["npm pack"] = run(monkeypatch, "--out", out)
    for words, message in refusals.items():
        assert words in message and "\n" not in message
    assert not out.exists()
