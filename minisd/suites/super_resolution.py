"""Super-resolution: how near to the fine render, how sharp, and does the picture still show it?

A fine render comes from the same 28 x 28 handwriting as the small one. In a small picture a large
digit has 0.86 pixels for each of the handwriting's, a small digit 0.58: that is all the detail
there is to win back, so small and large digits are told apart.
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from .. import data
from ..data import ONE
from ..errors import InputError
from ..evaluation import Judge, Settings, Table, draw, percent, proportion, psnr
from ..extensions.super_resolution import FACTOR, Upscaled, enlarge, load, render_both
from ..pipeline import StableDiffusion
from . import Asked

SAMPLES = 2000  # renders; half as many pictures are drawn
BATCH = 100
SIZE = 2  # the column of attributes that says small or large


def nearest(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=FACTOR, mode="nearest")


def ways(upscaled: Upscaled) -> dict:
    """How to enlarge pictures (B, 3, H, W) in [-1, 1]."""
    ours = lambda x: 2 * upscaled.upscale(x / 2 + 0.5) - 1  # noqa: E731
    return {"nearest": nearest, "bicubic": enlarge, "super-resolution": ours}


def edges(images: Tensor) -> Tensor:
    """The mean square of the gradient: (B, 3, H, W) -> (B,). The wider an edge, the less."""
    vertical, horizontal = (images.diff(dim=d).square().mean(dim=(1, 2, 3)) for d in (2, 3))
    return vertical + horizontal


def renders(pipe: StableDiffusion, upscaled: Upscaled, samples: int, seed: int) -> dict:
    """{small pictures: {way: {PSNR in dB, of small and large digits, edges}}}"""
    generator, wanted = torch.Generator().manual_seed(seed), data.all_combinations()
    rows: dict = {}
    for part in tqdm(torch.randint(len(wanted), (samples,), generator=generator).split(BATCH)):
        attributes = wanted[part].to(pipe.device)
        coarse, fine = render_both(ONE, attributes, "test", generator)
        decoded = 2 * pipe.decode(pipe.encode(coarse / 2 + 0.5)) - 1
        for kind, small in {"renders": coarse, "decoded": decoded}.items():
            for way, grow in ways(upscaled).items():
                large = grow(small).clamp(-1, 1)
                each = [psnr(large[i, None], fine[i, None]) for i in range(len(fine))]
                columns = [attributes[:, SIZE].cpu(), torch.tensor(each)]
                columns += [edges(large).cpu(), edges(fine).cpu()]
                rows.setdefault(kind, {}).setdefault(way, []).append(torch.stack(columns))
    return {
        kind: {way: summary(torch.cat(cells, dim=1)) for way, cells in row.items()}
        for kind, row in rows.items()
    }


def summary(columns: Tensor) -> dict:
    """The means over pictures. columns (4, n): size, PSNR, edges, edges of the truth."""
    size, decibels, found, true = columns
    means = {"all": mean(decibels), "small": mean(decibels[size == 0])}
    return means | {"large": mean(decibels[size == 1]), "edges": (found.sum() / true.sum()).item()}


def mean(x: Tensor) -> dict:
    """With its 95% interval. InputError if there is none."""
    if len(x) < 2:
        raise InputError("too few samples: two small and two large digits are the least")
    half = 1.96 * x.std().item() / len(x) ** 0.5
    return {"mean": x.mean().item(), "low": x.mean().item() - half, "high": x.mean().item() + half}


def drawn(pipe: StableDiffusion, upscaled: Upscaled, judge: Judge, samples: int, seed: int) -> dict:
    """What the judge reads in drawn pictures, and in the same enlarged and averaged down again."""
    wanted = data.cycle(data.all_combinations(), samples, seed)
    captions = [ONE.say(c) for c in wanted.tolist()]
    settings = Settings(seed=seed).resolved(pipe)
    small = draw(pipe, captions, seed, settings, "drawing")
    grow = ways(upscaled)["super-resolution"]
    again = torch.cat([F.avg_pool2d(grow(x), FACTOR) for x in small.split(BATCH)])
    right = [(judge(x).cpu() == wanted).all(dim=1) for x in (small, again)]
    before, after = right
    results = {"before": before, "after": after}
    results |= {"only before": before & ~after, "only after": after & ~before}
    return {name: proportion(column) for name, column in results.items()}


@torch.no_grad()
def measure(pipe: StableDiffusion, judge: Judge, asked: Asked) -> dict:
    upscaled = load(asked.extensions / "super-resolution", pipe)
    return {
        "renders": renders(pipe, upscaled, asked.samples, asked.seed),
        "drawn": drawn(pipe, upscaled, judge, asked.samples // 2, asked.seed),
    }


def decibels(cell: dict) -> str:
    return f"{cell['mean']:.2f} [{cell['low']:.2f}, {cell['high']:.2f}]"


def tables(results: dict) -> dict[str, Table]:
    rows = [["PSNR against fine renders, dB", "all", "small", "large", "edges, of the truth's"]]
    for kind, row in results["renders"].items():
        for way, cell in row.items():
            columns = [decibels(cell[name]) for name in ("all", "small", "large")]
            rows.append([f"{kind}, {way}", *columns, f"{100 * cell['edges']:.0f}%"])
    read = [["drawn pictures, read as asked", "%"]]
    read += [[name, percent(cell)] for name, cell in results["drawn"].items()]
    return {"renders of test handwriting": rows, "drawn": read}


def headlines(results: dict) -> dict[str, str]:
    found = {}
    for kind, row in results["renders"].items():
        gain = row["super-resolution"]["all"]["mean"] - row["bicubic"]["all"]["mean"]
        found[f"over bicubic, {kind}, dB"] = f"+{gain:.1f}"
    return found
