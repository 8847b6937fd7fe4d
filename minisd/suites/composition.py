"""Combined prompts: AND and NOT, by adding guidance.

AND: three prompts beside one caption that says it all. NOT: how often what must not appear appears,
at several weights, 0 being without it. In the world of two digits a picture has room for what is
asked and for what must not be.
"""

from itertools import product

import torch
from torch import Tensor

from ..data import ONE, TWO
from ..data.scenes import COLOURS
from ..data.two import RELATIONS
from ..evaluation import Judge, Table, percent, proportion
from ..pipeline import StableDiffusion
from . import Asked, batches, say

SAMPLES = 400
SCALES = (1.0, 1.5, 2.0, 3.0)
NOT = (0.25, 0.5, 1.0)  # weights of what must not appear
RED, BLUE = (tuple(COLOURS).index(name) for name in ("red", "blue"))
AND_ALL = "`a red digit` AND `a seven` AND `a digit at the top left`, and others alike"
NOT_SEVEN = "`a red digit` AND NOT `a seven`, and others alike"
PARTS = {"digit": 0, "colour": 1, "position": 3}

NOT_BLUE_ONE = "`a red three` AND NOT `a blue one`"


def draw(pipe, prompts: list[str], combine, scale: float, seed: int, label: str) -> Tensor:
    """Pictures (B, 3, S, S) in [-1, 1]; combine: [(as many other prompts, weight)]."""
    generator, parts = torch.Generator().manual_seed(seed), []
    for some in batches(len(prompts), label):
        also = [(texts[some], weight) for texts, weight in combine]
        options = {"combine": also, "guidance_scale": scale, "output_type": "pt"}
        parts.append(pipe(prompts[some], generator=generator, **options).images.cpu())
    return 2 * torch.cat(parts) - 1


def conjunction(pipe, judge: Judge, wanted: Tensor, seed: int) -> list[dict]:
    colour, digit, place = (say(wanted, i) for i in (1, 0, 3))
    ways = {
        "one caption": (say(wanted, *PARTS.values()), []),
        "AND of three": (colour, [(digit, 1.0), (place, 1.0)]),
    }
    rows = []
    for scale in SCALES:
        for way, (prompts, combine) in ways.items():
            images = draw(pipe, prompts, combine, scale, seed, f"{way}, scale {scale:g}")
            right = (judge(images).cpu() == wanted)[:, list(PARTS.values())]  # (B, 3)
            columns = {"all": right.all(dim=1), **dict(zip(PARTS, right.T))}
            rates = {name: proportion(column) for name, column in columns.items()}
            rows.append({"way": way, "scale": scale, "rates": rates})
    return rows


def one_digit(pipe, judge: Judge, asked: Asked) -> dict:
    generator = torch.Generator().manual_seed(asked.seed + 1000)  # not that of the noise
    wanted = ONE.batch(asked.samples, "test", generator).attributes
    found = {AND_ALL: conjunction(pipe, judge, wanted, asked.seed), NOT_SEVEN: []}
    for scale in SCALES:
        for weight in (0.0, *NOT):
            combine = [(say(wanted, 0), -weight)] if weight else []
            images = draw(pipe, say(wanted, 1), combine, scale, asked.seed, f"NOT {weight:g}")
            right = judge(images).cpu() == wanted  # (B, 4)
            rates = {"a red digit": right[:, 1], "a seven": right[:, 0]}
            rates = {name: proportion(column) for name, column in rates.items()}
            way = f"weight of NOT {weight:g}"
            found[NOT_SEVEN].append({"way": way, "scale": scale, "rates": rates})
    return found


def two_digits(pipe, judge: Judge, asked: Asked) -> dict:
    """A one, but not a blue one. Training's captions name both digits; short prompts are new."""
    relations = [list(RELATIONS)[i % len(RELATIONS)] for i in range(asked.samples)]
    cases = {
        "in training's words": ("a red three {} a one", "a three {} a blue one"),
        "in short": ("a red three", "a blue one"),
    }
    rows = []
    for case, texts in cases.items():
        prompts, forbidden = ([text.format(r) for r in relations] for text in texts)
        for weight, scale in product((0.0, *NOT), SCALES):
            combine = [(forbidden, -weight)] if weight else []
            images = draw(pipe, prompts, combine, scale, asked.seed, f"{case}, NOT {weight:g}")
            answers = TWO.read(judge, images)
            digits, colours = answers[:, [0, 3]].cpu(), answers[:, [1, 4]].cpu()  # (B, 2)
            rates = {
                "a red three": ((digits == 3) & (colours == RED)).any(dim=1),
                "a one": (digits == 1).any(dim=1),
                "a blue one": ((digits == 1) & (colours == BLUE)).any(dim=1),
            }
            rates = {name: proportion(column) for name, column in rates.items()}
            way = f"{case}, weight of NOT {weight:g}"
            rows.append({"way": way, "scale": scale, "rates": rates})
    return {NOT_BLUE_ONE: rows}


def measure(pipe: StableDiffusion, judge: Judge, asked: Asked) -> dict:
    two = pipe.data and pipe.data["name"] == TWO.name
    return (two_digits if two else one_digit)(pipe, judge, asked)


def tables(results: dict) -> dict[str, Table]:
    found = {}
    for heading, rows in results.items():
        names = rows[0]["rates"]
        body = [[r["way"], f"{r['scale']:g}", *map(percent, r["rates"].values())] for r in rows]
        found[heading] = [["", "guidance", *(f"{name}, %" for name in names)], *body]
    return found


def headlines(results: dict) -> dict[str, str]:
    """At the best guidance of each way. NOT has no number that is the best: see the tables."""
    found: dict[str, list[dict]] = {}
    for row in results.get(AND_ALL, []):
        found.setdefault(row["way"], []).append(row["rates"]["all"])
    best = {way: max(cells, key=lambda cell: cell["rate"]) for way, cells in found.items()}
    return {f"all parts, {way}, %": percent(cell) for way, cell in best.items()}
