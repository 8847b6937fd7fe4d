"""Make a set of captioned pictures that nobody here drew: 1,873 emoji and their names.

    python -m benchmarks.emoji --out data/emoji      # needs npm; downloads 70 MB

Writes PNGs (64 x 64, on white) and metadata.jsonl, the layout of Hugging Face's imagefolder. Left
out are skin tones and, of pictures equal to the pixel, all but the one with the shortest name.

Pictures: Twemoji 16.0.1, copyright Twitter, Inc and other contributors, CC BY 4.0 (name it), from
npm's emoji-datasource-twitter. Captions: short names of Unicode CLDR, from npm's emojibase-data.
"""

import argparse
import hashlib
import io
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from PIL import Image

from minisd.errors import InputError

SHA256 = {  # of what `npm pack` saves
    "emoji-datasource-twitter@16.0.0": "f64a530c63bca463bd8317fdc4615ce63a53a0c65018e4ce2d848aaba7a28877",  # noqa: E501
    "emojibase-data@17.0.0": "d01d0e2ca4e22cb402679532155342c71e2e871f25c32223c013b8b166ebdf5a",
}
EMOJI, NAMES, PICTURES = "package/emoji.json", "package/en/compact.json", "package/img/twitter/64/"


def download(folder: str) -> None:
    """Have npm save the archives of the packages in `folder`."""
    pack = [shutil.which("npm"), "pack", *SHA256]
    if not pack[0] or subprocess.run(pack, cwd=folder, capture_output=True).returncode:
        raise InputError(f"no npm, or no network: try `npm pack {' '.join(SHA256)}` by hand")


def read(package: str, folder: Path) -> dict[str, bytes]:
    """The files wanted from the archive of a package, by their paths in there."""
    archive = folder / f"{package.replace('@', '-')}.tgz"
    if hashlib.sha256(archive.read_bytes()).hexdigest() != SHA256[package]:
        raise InputError(f"{archive} is damaged, or not {package}: its SHA-256 is another")
    with tarfile.open(archive) as tar:
        files = (m for m in tar if m.name.startswith((EMOJI, NAMES, PICTURES)) and m.isfile())
        return {m.name: tar.extractfile(m).read() for m in files}


def emoji(files: dict[str, bytes]) -> list[tuple[str, str, Image.Image]]:
    """(file name, caption, RGB picture) of every emoji, in Unicode's order."""
    names = {e["hexcode"].replace("-FE0F", ""): e["label"] for e in json.loads(files[NAMES])}
    unique = {}  # by pixels
    for entry in sorted(json.loads(files[EMOJI]), key=lambda entry: entry["sort_order"]):
        name, file = names[entry["unified"].replace("-FE0F", "")], entry["image"]
        # Squares of skin tones; silhouettes that "family: adult, child" and so on describe better.
        if entry["category"] == "Component" or name.startswith(("family: man", "family: woman")):
            continue
        picture = Image.open(io.BytesIO(files[PICTURES + file])).convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
        key, new = picture.tobytes(), (file, name, picture.convert("RGB"))
        unique[key] = min(unique.get(key, new), new, key=lambda found: len(found[1]))
    return list(unique.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="a folder, new or empty")
    parser.add_argument("--archive", type=Path, help="a folder where `npm pack` put both packages")
    o = parser.parse_args()
    try:
        if o.out.exists() and any(o.out.iterdir()):
            raise InputError(f"{o.out} is not empty; choose another folder for --out")
        with tempfile.TemporaryDirectory() as folder:
            if not o.archive:
                download(folder)
            pictures, names = (read(package, o.archive or Path(folder)) for package in SHA256)
        o.out.mkdir(parents=True, exist_ok=True)
        with open(o.out / "metadata.jsonl", "w", encoding="utf-8") as metadata:
            for file, name, picture in emoji(pictures | names):
                picture.save(o.out / file)
                print(json.dumps({"file_name": file, "text": name}), file=metadata)
    except (InputError, OSError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
