"""What is in this picture? Answered without any model that is judged.

Colour, size and position are measured from the pixels; the digit is read by a small convolutional
network that was trained on renders of the training handwriting and never saw a generated picture.
"""

from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from tqdm import tqdm

from .. import data
from ..data.scenes import CENTRE, OFFSET, SIZE
from ..machine import channels_last, mixed_precision

PATH = Path(__file__).resolve().parents[2] / "data" / "judge.safetensors"
SIZE_LIMIT = 14.0  # pixels: a digit taller or wider than this is large
BRIGHT = 0.25  # a pixel belongs to the digit if it has this share of the picture's brightest
BLANK = 0.2  # a picture whose brightest pixel is darker than this shows nothing
PURE = 0.75  # this share of the light must have the colour that is named
NEAR = 3.0  # pixels: a digit farther from all five places than this is at none of them


class Reader(nn.Module):
    """Pictures (B, 3, 32, 32) -> features (B, 128) -> one group of logits for each attribute.

    It learns all four attributes, so that its features, which the Frechet distance compares, see
    colour and place too; of its answers only the digit is used.
    """

    def __init__(self):
        super().__init__()
        layers = []
        for a, b in ((3, 16), (16, 32), (32, 64)):
            layers += [nn.Conv2d(a, b, 3, padding=1, bias=False), nn.BatchNorm2d(b), nn.ReLU()]
            layers += [nn.Conv2d(b, b, 3, padding=1, bias=False), nn.BatchNorm2d(b), nn.ReLU()]
            layers += [nn.MaxPool2d(2)]
        self.body = nn.Sequential(*layers, nn.Flatten(), nn.Linear(64 * 4 * 4, 128), nn.ReLU())
        self.heads = nn.ModuleList([nn.Linear(128, len(values)) for values in data.VALUES])

    def forward(self, images: Tensor) -> list[Tensor]:
        features = self.body(images)
        return [head(features) for head in self.heads]


def spread(ink: Tensor) -> Tensor:
    """The variance of where the light lies along a line: (B, N) -> (B,) in pixels^2."""
    place = torch.arange(ink.shape[1], device=ink.device, dtype=ink.dtype)
    share = ink / ink.sum(dim=1, keepdim=True).clamp(min=1e-6)
    mean = (share * place).sum(dim=1, keepdim=True)
    return (share * (place - mean).square()).sum(dim=1)


def measure(images: Tensor) -> Tensor:
    """Colour, size and position, read from pixels (B, 3, 32, 32) in [-1, 1] -> (B, 3) long.

    Colour: each bright pixel votes for the nearest in direction of the palette, and most of the
    light must agree. Size: the longer side of the box around the bright pixels. Position: which of
    the five places the centre of mass is near. -1 for what cannot be said, and everywhere for a
    picture that shows nothing.
    """
    light = (images.float().clamp(-1, 1) + 1) / 2  # (B, 3, H, W) in [0, 1]
    grey = light.amax(dim=1)  # (B, H, W)
    peak = grey.amax(dim=(1, 2))  # (B,)
    ink = grey * (grey > BRIGHT * peak[:, None, None])  # (B, H, W)
    mass = ink.sum(dim=(1, 2)).clamp(min=1e-6)[:, None]  # (B, 1)

    palette = F.normalize(torch.tensor(data.RGB, device=images.device), dim=-1)  # (8, 3)
    nearest = torch.einsum("bchw,kc->bkhw", light, palette).argmax(dim=1)  # (B, H, W)
    votes = (F.one_hot(nearest, len(palette)) * ink[..., None]).sum(dim=(1, 2)) / mass  # (B, 8)
    share, colour = votes.max(dim=-1)  # (B,)
    colour = torch.where(share > PURE, colour, -1)

    tall, wide = ((ink.amax(dim=d) > 0).sum(dim=-1) for d in (2, 1))  # (B,) pixels
    size = (torch.maximum(tall, wide) > SIZE_LIMIT).long()

    place = torch.arange(SIZE, device=images.device) - (SIZE - 1) / 2  # pixels from the centre
    y = (ink.sum(dim=2) * place).sum(dim=1, keepdim=True) / mass
    x = (ink.sum(dim=1) * place).sum(dim=1, keepdim=True) / mass
    offset = torch.tensor(OFFSET, device=images.device)[size, None, None]
    places = torch.tensor(CENTRE, device=images.device) * offset  # (B, 5, 2)
    distances = (torch.cat([x, y], dim=1)[:, None] - places).norm(dim=-1)  # (B, 5)
    distance, position = distances.min(dim=-1)  # (B,)
    position = torch.where(distance < NEAR, position, -1)

    answers = torch.stack([colour, size, position], dim=-1)
    return torch.where((peak > BLANK)[:, None], answers, -1)


class Judge:
    """Reads all four attributes of pictures, and the features for the Frechet distance.

    It names the likeliest digit even of a scrawl: how well formed the digits are, the Frechet
    distance tells.
    """

    def __init__(self, reader: Reader):
        self.reader = reader.eval()

    @property
    def device(self) -> torch.device:
        return next(self.reader.parameters()).device

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        """Pictures (B, 3, 32, 32) in [-1, 1] -> (B, 128)."""
        return torch.cat([self.reader.body(part.to(self.device)) for part in images.split(250)])

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Pictures (B, 3, 32, 32) in [-1, 1] -> attributes (B, 4); -1 for what it cannot say."""
        digit = self.reader.heads[0](self.features(images)).argmax(dim=-1)[:, None]
        measured = measure(images).to(digit.device)
        return torch.cat([torch.where(measured[:, :1] < 0, -1, digit), measured], dim=-1)

    def read_two(self, images: Tensor) -> Tensor:
        """Pictures of two digits -> (digit, colour, relation, digit, colour): (B, 5) long.

        Read from left to right or from above: the relation is `left of` (0) or `above` (2), or -1
        where one half shows nothing. Each half is moved to the middle of a black picture and read
        like a picture of one digit.
        """
        ink = (images.float().clamp(-1, 1) + 1).amax(dim=1)  # (B, H, W)
        across, down = (spread(ink.sum(dim=d)) for d in (1, 2))  # (B,)
        upright = torch.where((down > across)[:, None, None, None], images.mT, images)
        answers, shown = [], []
        for half in upright.split(SIZE // 2, dim=-1):  # left and right, or what was above and below
            half = F.pad(half, (SIZE // 4, SIZE // 4), value=-1.0)
            half = torch.where((down > across)[:, None, None, None], half.mT, half)
            answers.append(self(half)[:, :2])
            shown.append((half.amax(dim=(1, 2, 3)) + 1) / 2 > BLANK)
        relation = torch.where(shown[0] & shown[1], torch.where(down > across, 2, 0), -1)
        relation = relation[:, None].to(answers[0].device)
        return torch.cat([answers[0], relation, answers[1]], dim=1)

    def save(self, path: Path = PATH) -> None:
        """Write the reader's weights, as 16-bit floats."""
        state = self.reader.state_dict()
        save_file({k: v.half() if v.is_floating_point() else v for k, v in state.items()}, path)

    @classmethod
    def load(cls, path: Path = PATH, device: str | torch.device = "cpu") -> "Judge":
        """Read the judge that ships with minisd; ValueError with one line if it is damaged."""
        reader = Reader()
        try:
            reader.load_state_dict(load_file(path))
        except Exception as error:
            raise ValueError(
                f"the judge's weights {path} are missing or damaged; make them with: make judge"
            ) from error
        return cls(reader.to(device))


def train_reader(
    batch_of_step: Callable[[], tuple[Tensor, Tensor]], seed: int, steps: int, device="cpu"
) -> Judge:
    """Train a reader anew on batches of pictures (B, 3, 32, 32) and their attributes (B, 4)."""
    torch.manual_seed(seed)
    reader = channels_last(Reader().to(device)).train()
    optimizer = torch.optim.AdamW(reader.parameters(), 2e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    for _ in tqdm(range(steps), desc="reader", unit="step"):
        images, attributes = batch_of_step()
        with mixed_precision(device):
            answers = reader(images)
        pairs = zip(answers, attributes.unbind(dim=1), strict=True)
        loss = sum(F.cross_entropy(logits.float(), truth) for logits, truth in pairs)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return Judge(reader)


def train_judge(seed: int = 1234, steps: int = 2000, batch_size: int = 128, device="cpu") -> Judge:
    """Train the reader on renders of training digits in every combination, held-out ones too.

    It must know what it judges, so nothing is held out from it but the test handwriting.
    """
    generator = torch.Generator().manual_seed(seed)
    every = data.all_combinations()

    def render() -> tuple[Tensor, Tensor]:
        attributes = every[torch.randint(len(every), (batch_size,), generator=generator)]
        batch = data.draw_batch(batch_size, "train", generator, device, attributes)
        return batch.images, batch.attributes

    return train_reader(render, seed, steps, device)
