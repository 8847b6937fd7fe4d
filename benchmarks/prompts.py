"""What people type first: 40 pictures for each of three short captions, none chosen.

    python -m benchmarks.prompts

Drawn as by a call without arguments, in one go, from seed 0. Writes prompts.png here.
"""

import argparse
from pathlib import Path

import torch

from minisd import StableDiffusion, plots
from minisd.machine import pick_device
from minisd.pretrained import WEIGHTS

HERE = Path(__file__).resolve().parent
PROMPTS = ("a red seven", "a seven", "at the top left")
EACH, COLUMNS = 40, 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--weights", type=Path, default=WEIGHTS, help="(data/weights)")
    parser.add_argument("--device", default="auto")
    o = parser.parse_args()
    pipe = StableDiffusion.from_pretrained(o.weights, pick_device(o.device))
    generator = torch.Generator().manual_seed(0)
    images = pipe(list(PROMPTS), num_images_per_prompt=EACH, generator=generator).images
    figure = plots.gallery(images, [""] * len(images), columns=COLUMNS)
    figure.set_size_inches(12, 4.2)
    for prompt, axis in zip(PROMPTS, figure.axes[::EACH], strict=True):
        axis.set_title(prompt, loc="left", fontsize=9)
    plots.save(figure, HERE / "prompts.png")
    print(f"wrote {HERE / 'prompts.png'}")


if __name__ == "__main__":
    main()
