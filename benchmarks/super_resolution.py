"""What super-resolution makes of small pictures: a figure to look at.

    python -m minisd evaluate --suite super-resolution     # the numbers
    python -m benchmarks.super_resolution                  # super_resolution.png, here

Each row is a caption: a render of test handwriting enlarged in three ways and the fine render of
the same scene; then a drawn picture, enlarged in the same ways. Nothing is chosen: the captions are
the first of the suite's.
"""

from pathlib import Path

import torch

from minisd import StableDiffusion, data, plots
from minisd.extensions.super_resolution import load, render_both
from minisd.machine import pick_device
from minisd.suites import EXTENSIONS
from minisd.suites.super_resolution import ways

HERE = Path(__file__).resolve().parent
ROWS = 5


@torch.no_grad()
def main() -> None:
    pipe = StableDiffusion.from_pretrained(device=pick_device())
    grow = ways(load(EXTENSIONS / "super-resolution", pipe))
    wanted = data.cycle(data.all_combinations(), ROWS, 0)
    captions = [data.say(c) for c in wanted.tolist()]
    generator = torch.Generator().manual_seed(0)
    coarse, fine = render_both(data.ONE, wanted.to(pipe.device), "test", generator)
    drawn = 2 * pipe(captions, generator=generator, output_type="pt").images - 1
    columns = {f"render, {name}": way(coarse) for name, way in grow.items()}
    columns |= {"fine render": fine}
    columns |= {f"drawn, {name}": way(drawn) for name, way in grow.items()}
    pictures = torch.stack(list(columns.values()), dim=1).flatten(0, 1)  # row after row
    plots.save(
        plots.gallery(pictures, [*columns] * ROWS, len(columns)), HERE / "super_resolution.png"
    )


if __name__ == "__main__":
    main()
