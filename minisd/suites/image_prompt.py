"""Image prompts: what a drawing takes from the picture, and what from the words beside it.

From test pictures, which training never showed: first the picture alone, then with words that name
another colour and another place. The words should have those; the rest should be the picture's.
"""

import torch
from torch import Tensor

from ..data import ONE
from ..evaluation import Judge, Table, percent, proportion
from ..extensions.image_prompt import NAME, ImagePrompted, load
from ..pipeline import StableDiffusion
from . import Asked, batches, say
from .editing import COLOUR, POSITION, SAME, correlation, other, scenes

SAMPLES = 400
SCALES = (0.0, 0.2, 0.4, 0.5, 0.6, 0.8, 1.0)
NAMED, REST = [COLOUR, POSITION], [i for i in range(4) if i not in (COLOUR, POSITION)]


def draw(
    pipe: ImagePrompted, captions: list[str], images: Tensor, scale: float, generator
) -> Tensor:
    """One for each picture (n, 3, S, S), with the default settings."""
    parts, options = [], {"image_prompt_scale": scale, "generator": generator, "output_type": "pt"}
    for part in batches(len(images), f"scale {scale}"):
        parts.append(pipe(captions[part], image_prompt=images[part], **options).images.cpu())
    return torch.cat(parts)


def rates(judge: Judge, drawn: Tensor, attributes: Tensor, images: Tensor) -> dict:
    """Of pictures that should show what `images` do, but in another hand."""
    right = (judge(2 * drawn - 1) == attributes).cpu()  # (n, 4)
    columns = {"all four": right.all(dim=1), **dict(zip(ONE.attributes, right.unbind(dim=1)))}
    columns["same strokes"] = correlation(drawn, images) > SAME
    return {name: proportion(column) for name, column in columns.items()}


def measure(pipe: StableDiffusion, judge: Judge, asked: Asked) -> dict:
    prompted = load(asked.extensions / NAME, pipe)
    images, attributes, generator = scenes(asked.samples, asked.seed)
    another = ONE.batch(asked.samples, "test", generator, attributes=attributes).images / 2 + 0.5
    drawn = draw(prompted, [""] * asked.samples, images, 1.0, generator)
    alone = {
        "drawn from the picture": rates(judge, drawn, attributes, images),
        "another real one": rates(judge, another, attributes, images),
    }

    wanted = attributes.clone()
    for column in NAMED:
        wanted[:, column] = other(wanted[:, column], len(ONE.values[column]), generator)
    captions = say(wanted, *NAMED)  # "a blue digit at the top left"
    both = {}
    for scale in SCALES:
        right = judge(2 * draw(prompted, captions, images, scale, generator) - 1).cpu() == wanted
        columns = {"words": right[:, NAMED], "picture": right[:, REST], "both": right}
        both[str(scale)] = {name: proportion(x.all(dim=1)) for name, x in columns.items()}
    return {"alone": alone, "with words": both}


def tables(results: dict) -> dict[str, Table]:
    def table(rows: dict, first: str) -> Table:
        names = list(next(iter(rows.values())))
        cells = [[name, *(percent(row[n]) for n in names)] for name, row in rows.items()]
        return [[first, *(f"{n}, %" for n in names)], *cells]

    return {
        "the picture alone": table(results["alone"], ""),
        "the picture, and words for another colour and place": table(
            results["with words"], "scale"
        ),
    }


def headlines(results: dict) -> dict[str, str]:
    both = max((row["both"] for row in results["with words"].values()), key=lambda c: c["rate"])
    return {
        "all four attributes as in the picture, %": percent(
            results["alone"]["drawn from the picture"]["all four"]
        ),
        "beside words, both obeyed, %": percent(both),
    }
