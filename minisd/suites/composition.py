"""Combined prompts: AND and NOT, by adding guidance.

AND: `a red digit`, `a seven` and `a digit at the top left`, each a prompt, beside one caption that
says it all. NOT: how often what must not appear appears, with and without it. In the world of two
digits a picture has room for what is asked and for what must not be.
"""

import torch
from torch import Tensor

from ..data import ONE, TWO
from ..evaluation import Judge, Table, percent, proportion
from ..pipeline import StableDiffusion
from . import Asked, batches, say

SAMPLES = 400
SCALES = (1.0, 1.5, 2.0, 3.0)
PARTS = {"digit": 0, "colour": 1, "position": 3}


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
    found = {"AND": conjunction(pipe, judge, wanted, asked.seed), "NOT": []}
    for scale in SCALES:
        for way, combine in {"alone": [], "NOT": [(say(wanted, 0), -1.0)]}.items():
            images = draw(pipe, say(wanted, 1), combine, scale, asked.seed, f"{way}, {scale:g}")
            right = judge(images).cpu() == wanted  # (B, 4)
            rates = {"`a seven` appears": right[:, 0], "`a red digit` does": right[:, 1]}
            rates = {name: proportion(column) for name, column in rates.items()}
            found["NOT"].append({"way": way, "scale": scale, "rates": rates})
    return found


def two_digits(pipe, judge: Judge, asked: Asked) -> dict:
    """`a red three` AND NOT `a blue one`; also NOT `a blue digit`, as blue ones are rare."""
    found: dict = {"NOT, two digits": []}
    prompts = ["a red three"] * asked.samples
    for forbidden in ("a blue one", "a blue digit"):
        for scale in SCALES:
            for way, weight in {"alone": 0.0, "NOT": -1.0}.items():
                combine = [([forbidden] * asked.samples, weight)] if weight else []
                label = f"{way} {forbidden}, {scale:g}"
                answers = TWO.read(judge, draw(pipe, prompts, combine, scale, asked.seed, label))
                digits, colours = answers[:, [0, 3]].cpu(), answers[:, [1, 4]].cpu()  # (B, 2)
                rates = {
                    "a blue one appears": ((digits == 1) & (colours == 6)).any(dim=1),
                    "blue appears": (colours == 6).any(dim=1),
                    "a one appears": (digits == 1).any(dim=1),
                    "a red three appears": ((digits == 3) & (colours == 0)).any(dim=1),
                }
                rates = {name: proportion(column) for name, column in rates.items()}
                row = {"way": f"{way} {forbidden}", "scale": scale, "rates": rates}
                found["NOT, two digits"].append(row)
    return found


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
