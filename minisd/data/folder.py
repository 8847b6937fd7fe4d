"""Your own captioned pictures: a folder in the layout of Hugging Face's imagefolder.

One of: pictures and a `metadata.jsonl` or `metadata.csv` with `file_name` and `text`; each
`name.png` beside a `name.txt`; or a folder for each class, whose name is the caption.
"""

import csv
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from tqdm import tqdm

from ..errors import InputError
from .dataset import POOL_BATCH, Batch, Dataset

TEST_SHARE = 10  # one picture in ten is held back for testing
LEAST = 50  # pictures; five of them for testing
NUM_MERGES = 2000  # of the tokenizer: frequent words become one token, rare ones a few
BACKGROUND = "white"  # behind transparent pixels


class Folder(Dataset):
    """The captioned pictures of a folder, cropped to a square and resized to `image_size`.

    Raises InputError for a folder that is missing, has no captions, or too few pictures.
    """

    num_merges = NUM_MERGES

    def __init__(self, folder: str | Path, image_size: int = 32):
        self.folder, self.image_size = Path(folder), image_size
        self.name = self.folder.name
        if not self.folder.is_dir():
            raise InputError(f"{folder} is not a folder of pictures")
        captions = read_captions(self.folder)
        pixels, self.captions, self.broken = [], [], {}  # broken: file -> what is wrong with it
        for path, caption in tqdm(captions.items(), desc="pictures", unit="file", delay=0.5):
            try:
                pixels.append(read_picture(path, image_size))
                self.captions.append(caption)
            except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
                self.broken[path] = str(error) or type(error).__name__
        if len(pixels) < LEAST:
            found = f"{folder} has {len(pixels)} captioned pictures that can be read"
            raise InputError(f"{found}; training needs {LEAST} or more")
        self.pixels = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2)  # (n, 3, S, S) uint8
        digests = [hashlib.sha256(picture.tobytes()).digest() for picture in pixels]
        order = sorted(range(len(digests)), key=digests.__getitem__)  # equal pictures side by side
        count = len(order) // TEST_SHARE
        self.indices = {"test": torch.tensor(order[:count]), "train": torch.tensor(order[count:])}
        everything = b"".join(digests) + "\0".join(self.captions).encode()
        self.fingerprint = hashlib.sha256(everything).hexdigest()[:16]
        self.pool_size = len(self.indices["train"])

    @property
    def about(self) -> dict:
        """The absolute path, so that `evaluate` finds the pictures again, and what they were."""
        about = {"name": str(self.folder.resolve()), "image_size": self.image_size}
        return {**about, "pictures": len(self.captions), "fingerprint": self.fingerprint}

    def matches(self, about: dict) -> bool:
        """The same pictures and captions at the same size, wherever the folder lies now."""
        return {**about, "name": ""} == {**self.about, "name": ""}

    def texts(self) -> list[str]:
        return self.captions_of(self.indices["train"])

    def captions_of(self, indices: Tensor) -> list[str]:
        return [self.captions[i] for i in indices.tolist()]

    def take(self, indices: Tensor, device="cpu") -> Batch:
        """The pictures with these indices (B,)."""
        images = self.pixels[indices].to(device).float() / 127.5 - 1  # (B, 3, S, S)
        return Batch(images, self.captions_of(indices))

    def batch(self, size: int, split="train", generator=None, device="cpu") -> Batch:
        """`size` captioned pictures, drawn at random with replacement."""
        if split not in self.indices:
            raise InputError(f'split must be "train" or "test", not {split!r}')
        chosen = torch.randint(len(self.indices[split]), (size,), generator=generator)
        return self.take(self.indices[split][chosen], device)

    def fits(self, batch: Batch) -> Tensor:
        """A caption is true of its own picture, and of every other one with the same caption."""
        captions = np.array(batch.captions)  # (B,)
        return torch.from_numpy(captions[:, None] == captions[None]).to(batch.images.device)

    def pool(self, seed: int = 0, device="cpu") -> Iterator[Batch]:
        """Every training picture in a fixed order; the last batch is filled up from the start."""
        train = self.indices["train"]
        for first in range(0, len(train), POOL_BATCH):
            yield self.take(train[torch.arange(first, first + POOL_BATCH) % len(train)], device)

    def shuffled(self, generator: torch.Generator) -> list[Tensor]:
        """The indices of all training pictures and of all test pictures."""
        splits = (self.indices["train"], self.indices["test"])
        return [indices[torch.randperm(len(indices), generator=generator)] for indices in splits]

    def test_groups(self, count: int, seed: int) -> dict[str, tuple[Batch, Batch]]:
        """Captions of training pictures and of test pictures, each at most once."""
        train, test = self.shuffled(torch.Generator().manual_seed(seed))
        n = min(count // 2, len(test))
        asked, other, another = map(self.take, train[: 3 * n].split(n))
        return {"seen": (asked, other), "held_out": (self.take(test[:n]), another)}

    def gallery(self, count: int, generator: torch.Generator) -> list[str]:
        """Captions of training pictures and, the last quarter, of test pictures."""
        train, test = self.shuffled(generator)
        n = min(count // 4, len(test))
        return self.captions_of(torch.cat([train[: count - n], test[:n]]))

    def describe(self) -> list[str]:
        longest = max(self.captions, key=len)
        lines = [
            f"{self.folder}: {len(self.captions):,} pictures with {len(set(self.captions)):,} "
            f"different captions, cropped and resized to {self.image_size} pixels",
            f"{len(self.indices['test']):,} of them are held back for testing",
            f"the longest caption: {longest!r}",
        ]
        return lines + [f"skipped {path}: {why}" for path, why in self.broken.items()]


def read_picture(path: Path, size: int) -> np.ndarray:
    """One picture, the middle square of it, on a plain background: (S, S, 3) uint8."""
    with Image.open(path) as image:
        image = ImageOps.exif_transpose(image).convert("RGBA")
    plain = Image.new("RGBA", image.size, BACKGROUND)
    square = ImageOps.fit(Image.alpha_composite(plain, image), (size, size))
    return np.asarray(square.convert("RGB"))


def read_captions(folder: Path) -> dict[Path, str]:
    """{picture: caption}, in the order of the files' names. InputError if there are no captions."""
    metadata = [folder / "metadata.jsonl", folder / "metadata.csv"]
    if found := [path for path in metadata if path.exists()]:
        captions = read_metadata(found[0])
    else:
        suffixes = Image.registered_extensions()
        files = sorted(f for f in folder.rglob("*") if f.suffix.lower() in suffixes)
        beside = {f: f.with_suffix(".txt") for f in files if f.with_suffix(".txt").exists()}
        captions = {f: text.read_text(encoding="utf-8") for f, text in beside.items()}
        if not captions:  # then the folders are the classes
            captions = {f: f.parent.name.replace("_", " ") for f in files if f.parent != folder}
    captions = {path: " ".join(text.split()) for path, text in captions.items()}
    if not any(captions.values()):
        raise InputError(
            f"{folder} has no captions: it needs a metadata.jsonl or metadata.csv with file_name "
            "and text, a name.txt beside each name.png, or a folder for each class"
        )
    return dict(sorted(captions.items()))


def read_metadata(path: Path) -> dict[Path, str]:
    """The rows of a metadata file. InputError with its line if one lacks file_name or text."""
    with open(path, encoding="utf-8-sig", newline="") as file:
        try:
            rows = list(csv.DictReader(file) if path.suffix == ".csv" else map(json.loads, file))
        except ValueError as error:
            raise InputError(f"{path} is damaged: {error}") from error
    captions = {}
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict) or not {"file_name", "text"} <= row.keys():
            raise InputError(f"{path}: row {number} lacks file_name or text: {row}")
        captions[path.parent / row["file_name"]] = str(row["text"] or "")
    return captions
