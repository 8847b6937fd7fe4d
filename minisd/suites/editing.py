"""A picture in: does the edit show what it should, and does everything else stay?

The captions name colour and digit only, so place, size and handwriting have to come from the
picture. Four ways, at every strength: noise and denoise (SDEdit), invert and draw with the new
caption, the same with the old caption's cross-attention kept (prompt-to-prompt), and following the
difference of both captions' guesses (FlowEdit).
"""

from functools import partial

import torch
from torch import Tensor

from ..data import ONE
from ..edit import exchange, prompt_to_prompt
from ..evaluation import Judge, Table, percent, proportion, psnr
from ..pipeline import StableDiffusion
from . import Asked, batches, say

STEPS, SCALE, KEEP = 25, 3.0, 0.6
BACK = 50  # steps of the inversion that is drawn again
STRENGTHS = (0.4, 0.5, 0.65, 0.8)
SAMPLES = 100
SAME = 0.8  # correlation of two grey pictures above which their strokes count as the same
DIGIT, COLOUR, SIZE, POSITION = range(4)


def sdedit(pipe, image, old, new, strength: float) -> Tensor:
    options = {"num_inference_steps": STEPS, "sampler": "ddim", "output_type": "pt"}
    options |= {"generator": torch.Generator().manual_seed(0), "guidance_scale": SCALE}
    return pipe(new, image=image, strength=strength, **options).images


def flow(pipe, image, old, new, strength: float) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return exchange(pipe, image, old, new, strength=strength, generator=generator, **GUIDED)


GUIDED = {"num_inference_steps": STEPS, "guidance_scale": SCALE}
WAYS = {
    "noise and denoise": sdedit,
    "inversion": partial(prompt_to_prompt, keep=0.0, **GUIDED),
    "prompt-to-prompt": partial(prompt_to_prompt, keep=KEEP, **GUIDED),
    "FlowEdit": flow,
}
EDITS = {"recolour": COLOUR, "exchange": DIGIT, "move": POSITION}
# The best way of each, chosen on seed 1 (100 pictures); measured on other pictures, and more
BEST = {"recolour": ("prompt-to-prompt", 0.5), "exchange": ("FlowEdit", 0.65)}
TIMES = 10  # as many pictures


def other(values: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Another of `count` values for each (B,)."""
    return (values + torch.randint(1, count, values.shape, generator=generator)) % count


def correlation(a: Tensor, b: Tensor) -> Tensor:
    """Of the grey pictures, the brightest channel of each pixel: (B, 3, H, W) twice -> (B,)."""
    grey = (x.amax(dim=1).flatten(1) for x in (a, b))
    x, y = (g - g.mean(dim=1, keepdim=True) for g in grey)
    return (x * y).sum(dim=1) / (x.square().sum(dim=1) * y.square().sum(dim=1)).sqrt()


def scenes(samples: int, seed: int):
    """Test pictures (n, 3, S, S) in [0, 1], their attributes (n, 4), and a generator for edits."""
    generator = torch.Generator().manual_seed(seed)
    batch = ONE.batch(samples, "test", generator, complete=1.0)
    return batch.images / 2 + 0.5, batch.attributes, generator


def rates(judge: Judge, images: Tensor, wanted: Tensor, changed: int, before: Tensor) -> dict:
    """Of edited pictures: what the judge reads, and whether the strokes are the same."""
    right = judge(2 * images - 1) == wanted  # (n, 4)
    kept = [i for i in range(4) if i != changed]
    columns = {"all": right.all(dim=1), "changed": right[:, changed]}
    columns["kept"] = right[:, kept].all(dim=1)
    if changed == COLOUR:
        columns["same strokes"] = correlation(images, before) > SAME
    return {name: proportion(column) for name, column in columns.items()}


def one_edit(pipe, judge: Judge, name: str, way: str, strength: float, scenes: tuple) -> dict:
    images, attributes, wanted = scenes
    column = EDITS[name]
    named = [DIGIT, COLOUR, *([POSITION] if column == POSITION else [])]
    old, new = (say(a, *named) for a in (attributes, wanted))
    edited = run(WAYS[way], pipe, images, old, new, strength)
    return rates(judge, edited, wanted, column, images)


def changed(name: str, samples: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Pictures, what they show, and what they shall show."""
    images, attributes, generator = scenes(samples, seed)
    wanted, column = attributes.clone(), EDITS[name]
    wanted[:, column] = other(wanted[:, column], len(ONE.values[column]), generator)
    return images, attributes, wanted


def edits(pipe: StableDiffusion, judge: Judge, samples: int, seed: int) -> dict:
    """{edit: {way: {strength: rates}}}"""
    results: dict = {}
    for name in EDITS:
        some = changed(name, samples, seed)
        results[name] = {
            way: {str(s): one_edit(pipe, judge, name, way, s, some) for s in STRENGTHS}
            for way in WAYS
        }
    return results


def best(pipe: StableDiffusion, judge: Judge, samples: int, seed: int) -> dict:
    """{edit: rates} by the best way."""
    return {
        name: one_edit(pipe, judge, name, *how, changed(name, TIMES * samples, seed + 1000))
        for name, how in BEST.items()
    }


def run(edit, pipe, images: Tensor, old: list[str], new: list[str], strength: float) -> Tensor:
    parts = []
    for part in batches(len(images), f"strength {strength}"):
        parts.append(edit(pipe, images[part], old[part], new[part], strength=strength).cpu())
    return torch.cat(parts)


def there_and_back(pipe: StableDiffusion, samples: int, seed: int) -> float:
    """PSNR, in dB, of pictures inverted to noise and drawn again, against what decoding gives."""
    images, attributes, _ = scenes(samples, seed)
    captions = say(attributes, DIGIT, COLOUR)
    latents = pipe.invert(images, captions, BACK)
    options = {"num_inference_steps": BACK, "sampler": "ddim", "guidance_scale": 1.0}
    drawn = pipe(captions, latents=latents, output_type="pt", **options).images
    return psnr(2 * drawn - 1, 2 * pipe.decode(pipe.encode(images)) - 1)


def holes(pipe: StableDiffusion, judge: Judge, samples: int, seed: int) -> dict:
    """A hole where the digit was, and a caption that puts another one into it."""
    images, attributes, generator = scenes(samples, seed)
    wanted = attributes.clone()
    for column in (DIGIT, COLOUR):
        wanted[:, column] = other(wanted[:, column], len(ONE.values[column]), generator)
    mask = around(attributes)
    captions = [ONE.say(c) for c in wanted.tolist()]
    parts = []
    for part in batches(samples, "inpainting"):
        options = {"image": images[part], "mask_image": mask[part], "generator": generator}
        parts.append(pipe(captions[part], output_type="pt", **options).images.cpu())
    drawn = torch.cat(parts)
    untouched = (drawn == images) | (mask > 0)
    return {
        "filled as asked": proportion((judge(2 * drawn - 1) == wanted).all(dim=1)),
        "all other pixels as they were": proportion(untouched.flatten(1).all(dim=1)),
    }


def around(attributes: Tensor, reach: float = 12.0) -> Tensor:
    """A square mask (n, 1, S, S) around each digit of one, 1 inside."""
    ((_, _, _, centre),) = ONE.layout(attributes)  # (n, 2), from the middle, in pixels
    pixels = torch.arange(ONE.image_size) - (ONE.image_size - 1) / 2  # (S,)
    x, y = ((pixels - centre[:, i, None]).abs() <= reach for i in (0, 1))  # (n, S)
    return (y[:, None, :, None] & x[:, None, None, :]).float()


def measure(pipe: StableDiffusion, judge: Judge, asked: Asked) -> dict:
    some = asked.samples, asked.seed
    return {
        "edits": edits(pipe, judge, *some),
        "best": best(pipe, judge, *some),
        "inversion and back, dB": there_and_back(pipe, *some),
        "inpainting": holes(pipe, judge, *some),
    }


def tables(results: dict) -> dict[str, Table]:
    """For each edit the ways side by side, over all strengths."""
    found = {}
    for edit, ways in results["edits"].items():
        columns = list(next(iter(next(iter(ways.values())).values())))
        rows = [
            [way, strength, *(percent(cells[name]) for name in columns)]
            for way, row in ways.items()
            for strength, cells in row.items()
        ]
        found[edit] = [["way", "strength", *(f"{name}, %" for name in columns)], *rows]
    head = ["by the best way", "strength", "pictures", "all", "changed", "kept", "same strokes"]
    rows = []
    for edit, cells in results["best"].items():
        way, strength = BEST[edit]
        shares = [percent(cells[name]) if name in cells else "" for name in head[3:]]
        rows.append([f"{edit}: {way}", str(strength), str(cells["all"]["of"]), *shares])
    found["best"] = [head, *rows]
    rows = [[name, percent(cell)] for name, cell in results["inpainting"].items()]
    found["inpainting"] = [["", "%"], *rows]
    back = results["inversion and back, dB"]
    found["inversion and back"] = [["", "PSNR"], [f"{BACK} steps", f"{back:.1f} dB"]]
    return found


def headlines(results: dict) -> dict[str, str]:
    best, hole = results["best"], results["inpainting"]
    return {
        "recoloured, all else kept, %": percent(best["recolour"]["all"]),
        "another digit, all else kept, %": percent(best["exchange"]["all"]),
        "a hole filled as asked, %": percent(hole["filled as asked"]),
    }
