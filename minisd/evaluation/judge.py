"""What is in this picture? Answered without any of the models under test.

Colour, size and position are measured from the pixels. The digit is read by a small convolutional
network, trained on renders of the training handwriting; it never saw a generated picture.
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from .. import data
from ..data.one import CENTRE, OFFSET
from ..data.scenes import SIZE
from ..errors import InputError
from ..files import SHIPPED, open_atomically

PATH = SHIPPED / "judge.safetensors"
SIZE_LIMIT = 14.0  # pixels: a digit taller or wider than this is large
BRIGHT = 0.25  # a pixel belongs to the digit if it has this share of the picture's brightest
BLANK = 0.2  # a picture whose brightest pixel is darker than this shows nothing
PURE = 0.75  # the share of the light that must agree on the colour
MAX_DISTANCE = 3.0  # pixels from the nearest of the five positions; beyond it a digit is at none


class Reader(nn.Module):
    """Pictures (B, 3, 32, 32) -> features (B, 128) -> logits for each attribute.

    It is trained on all four attributes so that its features, in which the Frechet distance is
    measured, hold colour and position too. Of its answers only the digit is used.
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
        features = self.body(images)  # (B, 128)
        return [head(features) for head in self.heads]  # (B, 10), (B, 8), (B, 2), (B, 5)


def measure(images: Tensor) -> Tensor:
    """Colour, size and position, measured from pixels (B, 3, 32, 32) in [-1, 1] -> (B, 3) long.

    Colour: each bright pixel votes for the palette's nearest colour by direction, and most of the
    light must agree. Size: the longer side of the box around the bright pixels. Position: the
    nearest of the five to the centre of mass. -1 for what is unclear, and everywhere for a picture
    that shows nothing.
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

    height, width = ((ink.amax(dim=d) > 0).sum(dim=-1) for d in (2, 1))  # (B,) pixels
    size = (torch.maximum(height, width) > SIZE_LIMIT).long()

    pixels = torch.arange(SIZE, device=images.device) - (SIZE - 1) / 2  # from the picture's centre
    y = (ink.sum(dim=2) * pixels).sum(dim=1, keepdim=True) / mass
    x = (ink.sum(dim=1) * pixels).sum(dim=1, keepdim=True) / mass
    offset = torch.tensor(OFFSET, device=images.device)[size, None, None]
    centres = torch.tensor(CENTRE, device=images.device) * offset  # (B, 5, 2)
    distances = (torch.cat([x, y], dim=1)[:, None] - centres).norm(dim=-1)  # (B, 5)
    distance, position = distances.min(dim=-1)  # (B,)
    position = torch.where(distance < MAX_DISTANCE, position, -1)

    answers = torch.stack([colour, size, position], dim=-1)
    return torch.where((peak > BLANK)[:, None], answers, -1)


class Judge:
    """Reads all four attributes of a picture, and gives the features for the Frechet distance.

    It names the likeliest digit even of a scrawl; the Frechet distance measures how well formed the
    digits are.
    """

    def __init__(self, reader: Reader):
        self.reader = reader.eval()

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        """Pictures (B, 3, 32, 32) in [-1, 1] -> (B, 128)."""
        device = next(self.reader.parameters()).device
        return torch.cat([self.reader.body(chunk.to(device)) for chunk in images.split(250)])

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Pictures (B, 3, 32, 32) in [-1, 1] -> attributes (B, 4); -1 for what is unclear."""
        digit = self.reader.heads[0](self.features(images)).argmax(dim=-1)[:, None]
        measured = measure(images).to(digit.device)
        return torch.cat([torch.where(measured[:, :1] < 0, -1, digit), measured], dim=-1)

    def save(self, path: Path = PATH) -> None:
        """Write the reader's weights, as 16-bit floats."""
        state = {k: v.contiguous() for k, v in self.reader.state_dict().items()}
        state = {k: v.half() if v.is_floating_point() else v for k, v in state.items()}
        with open_atomically(path) as file:
            file.write(save(state))

    @classmethod
    def load(cls, path: Path = PATH, device: str | torch.device = "cpu") -> "Judge":
        """The judge that ships with minisd. InputError if its weights are missing or damaged."""
        reader = Reader()
        try:
            reader.load_state_dict(load_file(path))
        except (OSError, SafetensorError, RuntimeError) as error:
            what = f"the judge's weights {path} are missing or damaged"
            raise InputError(f"{what}; make them with: make judge") from error
        return cls(reader.to(device))
