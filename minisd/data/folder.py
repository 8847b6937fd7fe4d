"""Your own captioned pictures: a folder in the layout of Hugging Face's imagefolder.

One of: a `metadata.jsonl` or `metadata.csv` with `file_name` and `text` beside the pictures, there
or in subfolders; `name.txt` beside `name.png`; a folder for each class, whose name is the caption.
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

from ..errors import InputError, check_choice, quote, shorten
from ..pictures import NOT_A_PICTURE, load_picture
from ..text import file_name, utf8
from .dataset import POOL_BATCH, Batch, Dataset

TEST_EVERY = 10  # one picture in ten is held back for testing
LEAST = 50  # pictures; five of them for testing
NUM_MERGES = 2000  # of the tokenizer: frequent words become one token, rare ones a few
NAMED = 5  # skipped files that are named; the others are counted


class Pictures(Dataset):
    """Captioned pictures in memory.

    name: how to load them again; pixels: n arrays (S, S, 3) uint8; captions: n strings. InputError
    for fewer than LEAST different pictures.
    """

    num_merges = NUM_MERGES

    def __init__(self, name: str, pixels: list[np.ndarray], captions: list[str]):
        digests = [hashlib.sha256(picture.tobytes()).digest() for picture in pixels]
        if len(set(digests)) < LEAST:
            found = f"{name} has {len(set(digests))} different captioned pictures"
            raise InputError(f"{found}; training needs {LEAST} or more")
        self.name, self.captions, self.image_size = name, captions, len(pixels[0])
        self.numbers = torch.from_numpy(np.unique(captions, return_inverse=True)[1])  # (n,)
        self.pixels = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2)  # (n, 3, S, S) uint8
        ordered = sorted(digests)  # equal pictures are on one side of the limit, some on either
        limit = ordered[max(len(ordered) // TEST_EVERY, ordered.count(ordered[0]))]
        held_back = torch.tensor([digest < limit for digest in digests])
        self.indices = {"train": (~held_back).nonzero()[:, 0], "test": held_back.nonzero()[:, 0]}
        self.pool_size = len(self.indices["train"])
        everything = b"".join(digests) + "\0".join(self.captions).encode()
        self.fingerprint = hashlib.sha256(everything).hexdigest()[:16]

    @property
    def about(self) -> dict:
        about = {"name": self.name, "image_size": self.image_size, "pictures": len(self.captions)}
        return {**about, "fingerprint": self.fingerprint}

    def texts(self) -> list[str]:
        return self.captions_of(self.indices["train"])

    def captions_of(self, indices: Tensor) -> list[str]:
        return [self.captions[i] for i in indices.tolist()]

    def take(self, indices: Tensor, device="cpu") -> Batch:
        """The pictures with these indices (B,). What one shows is its caption, as a number."""
        images = self.pixels[indices].to(device).float() / 127.5 - 1  # (B, 3, S, S)
        attributes = self.numbers[indices, None].to(device)  # (B, 1)
        mentioned = torch.ones_like(attributes, dtype=torch.bool)
        return Batch(images, self.captions_of(indices), attributes, mentioned)

    def batch(self, size: int, split="train", generator=None, device="cpu") -> Batch:
        """`size` captioned pictures, drawn at random with replacement."""
        check_choice("split", split, self.indices)
        chosen = torch.randint(len(self.indices[split]), (size,), generator=generator)
        return self.take(self.indices[split][chosen], device)

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
        n = min(count // 2, len(test), len(train) // 3)
        asked, other, another = map(self.take, train[: 3 * n].split(n))
        return {"seen": (asked, other), "held_out": (self.take(test[:n]), another)}

    def gallery(self, count: int, generator: torch.Generator) -> list[str]:
        """Captions of training pictures and, the last quarter, of test pictures."""
        train, test = self.shuffled(generator)
        n = min(count // 4, len(test))
        return self.captions_of(torch.cat([train[: count - n], test[:n]]))

    def describe(self) -> list[str]:
        return [
            f"{self.name}: {len(self.captions):,} pictures of {self.image_size} pixels with "
            f"{len(set(self.captions)):,} different captions",
            f"{len(self.indices['test']):,} of them are held back for testing",
            f"the longest caption: {quote(max(self.captions, key=len), 80)}",
        ]


class Folder(Pictures):
    """The captioned pictures of a folder, cropped to a square and resized to `image_size`.

    InputError for a folder that is missing or has no captions.
    """

    def __init__(self, folder: str | Path, image_size: int = 32):
        folder = Path(file_name(str(folder))).resolve()
        if not folder.is_dir():
            raise InputError(f"{folder} is not a folder of pictures")
        self.skipped: list[str] = []  # a line for each picture that is left out
        pixels, captions = [], []
        pairs = tqdm(read_captions(folder), desc="pictures", unit="file", delay=0.5)
        for path, caption in pairs:
            try:
                if not caption:
                    raise ValueError("it has no caption")
                pixels.append(read_picture(path, image_size))
                captions.append(caption)
            except NOT_A_PICTURE as error:
                reason = shorten(f"{error or type(error).__name__}", 200)
                self.skipped.append(f"skipped {quote(str(path), 200)}: {reason}")
        super().__init__(utf8(str(folder)), pixels, captions)

    def describe(self) -> list[str]:
        more = len(self.skipped) - NAMED
        counted = [f"and {more:,} more were skipped"] if more > 0 else []
        return [*super().describe(), *self.skipped[:NAMED], *counted]


def read_picture(path: Path, size: int) -> np.ndarray:
    """One picture, the middle square of it, on a plain background: (S, S, 3) uint8."""
    return np.asarray(ImageOps.fit(load_picture(path), (size, size)))


def read_captions(folder: Path) -> list[tuple[Path, str]]:
    """(picture, caption) pairs in the order of the file names; "" for a picture without."""
    files = sorted(folder.rglob("*"))
    visible = [f for f in files if "/." not in f"/{f.relative_to(folder).as_posix()}"]
    readable = {end for end, kind in Image.registered_extensions().items() if kind in Image.OPEN}
    pictures = [f for f in visible if f.suffix.lower() in readable and f.is_file()]
    metadata = [f for f in visible if f.name in ("metadata.jsonl", "metadata.csv")]
    pairs = [pair for file in metadata for pair in read_metadata(file)]
    if pairs:
        named = {path.resolve() for path, _ in pairs}
        pairs += [(path, "") for path in pictures if path.resolve() not in named]
    elif any(path.with_suffix(".txt").exists() for path in pictures):
        pairs = [(path, read_text(path.with_suffix(".txt"))) for path in pictures]
    else:  # then the folders are the classes
        names = [Path(utf8(str(path.parent))).name.replace("_", " ") for path in pictures]
        pairs = [(p, "" if p.parent == folder else n) for p, n in zip(pictures, names)]
    pairs = sorted((path, " ".join(text.split())) for path, text in pairs)
    if not any(text for _, text in pairs):
        raise InputError(
            f"{folder} has no captions: it needs a metadata.jsonl or metadata.csv with file_name "
            "and text, a name.txt beside each name.png, or a folder for each class"
        )
    return pairs


def read_text(path: Path) -> str:
    """What a file says, "" if it is missing. InputError if it is not UTF-8."""
    try:
        return path.read_text(encoding="utf-8-sig") if path.exists() else ""
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        found = f"{path} is not UTF-8 (line {line}: {quote(error.object[error.start :], 20)})"
        raise InputError(f"{found}; save it as UTF-8") from error


def read_metadata(path: Path) -> list[tuple[Path, str]]:
    """The rows of a metadata file. InputError with its number for a row that cannot be read."""
    lines = [f"{line}\n" for line in read_text(path).split("\n") if line.strip()]
    try:
        rows = list(csv.DictReader(lines)) if path.suffix == ".csv" else lines
    except csv.Error as error:
        raise InputError(f"{path} is damaged: {error}") from error
    pairs = []
    for number, row in enumerate(rows, start=1):
        try:
            row = json.loads(row) if isinstance(row, str) else row
            name, text = row["file_name"], row["text"]
            if None in row or not isinstance(name, str) or not isinstance(text, str | int | float):
                raise ValueError(f"it needs one file_name and one text, and is {row}")
            name, text = file_name(name), utf8(str(text))
        except (ValueError, KeyError, TypeError) as error:
            reason = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
            found = f"row {number} cannot be read: {shorten(reason, 200)}"
            raise InputError(f"{path}: {found}") from error
        pairs.append((path.parent / name, text))
    return pairs
