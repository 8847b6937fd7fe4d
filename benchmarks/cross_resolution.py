"""Where a decoder that asks other resolutions looks: a figure, and one number for each level.

    python -m minisd evaluate --suite cross-resolution     # trains the networks, some 20 minutes
    python -m benchmarks.cross_resolution                  # cross_resolution.png, here

Maps are means over heads and steps. *Own place* is the weight of the keys that cover
the same place as the query; keys that all counted alike would have the share beside it.
"""

from pathlib import Path

import torch
from torch import Tensor

from minisd import StableDiffusion, data, plots
from minisd.evaluation import to_text
from minisd.extensions.cross_resolution import load
from minisd.machine import pick_device
from minisd.suites.cross_resolution import FOLDER

HERE = Path(__file__).resolve().parent
SHOWN, PICTURES = 4, 200


def maps_of(pipe, captions: list[str]) -> tuple[Tensor, list[Tensor]]:
    """Pictures (B, 3, H, W), and of each decoder level the maps (B, N, M), means over the steps."""
    kept: list[list[Tensor]] = [[] for _ in pipe.unet.bridges]
    hooks = [
        bridge.attention.attention.softmax.register_forward_hook(
            lambda _, __, maps, mine=mine: mine.append(maps.mean(dim=1))  # over heads
        )
        for bridge, mine in zip(pipe.unet.bridges, kept, strict=True)
    ]
    generator = torch.Generator().manual_seed(0)
    options = {"num_inference_steps": 10, "sampler": "ddim", "guidance_scale": 1.0}
    images = pipe(captions, generator=generator, output_type="pt", **options).images
    for hook in hooks:
        hook.remove()
    return images, [torch.stack(mine).mean(dim=0) for mine in kept]


def side(pixels: int) -> int:
    return round(pixels**0.5)


def own_place(maps: Tensor) -> float:
    """The mean weight of the keys at the query's own place: (B, N, M), two levels only."""
    n, m = side(maps.shape[1]), side(maps.shape[2])
    places = []
    for length in (n, m):
        i = (torch.arange(length) + 0.5) / length
        places.append(torch.stack(torch.meshgrid(i, i, indexing="ij"), dim=-1).flatten(0, 1))
    apart = (places[0][:, None] - places[1][None]).abs().amax(dim=-1)  # (N, M)
    return (maps.cpu() * (apart < 0.5 / min(n, m))).sum(dim=-1).mean().item()


def main() -> None:
    pipe = StableDiffusion.from_pretrained(device=pick_device())
    pipe = load(FOLDER / "cross-resolution-0", pipe)
    wanted = data.cycle(data.all_combinations(), PICTURES, 0)
    captions = [data.say(c) for c in wanted.tolist()]
    images, levels = maps_of(pipe, captions)
    rows = [["level", "asks", "own place, %", "if all counted alike, %"]]
    for maps in levels:
        n, m = side(maps.shape[1]), side(maps.shape[2])
        alike = 100 / min(n, m) ** 2
        rows.append([f"{n} x {n}", f"{m} x {m}", f"{100 * own_place(maps):.1f}", f"{alike:.1f}"])
    print(to_text(rows))

    pictures, titles = [], []
    for i in range(SHOWN):
        pictures.append(2 * images[i] - 1)
        titles.append(captions[i])
        for maps in levels:
            n, m = side(maps.shape[1]), side(maps.shape[2])
            for row, column in ((n // 4, n // 4), (n // 2, n // 2), (n - 1, n - 1)):
                pictures.append(maps[i, row * n + column].unflatten(0, (m, m)))
                titles.append(f"row {row}, column {column} of {n} x {n} looks at {m} x {m}")
    figure = plots.gallery(pictures, titles, 1 + 3 * len(levels))
    plots.save(figure, HERE / "cross_resolution.png")


if __name__ == "__main__":
    main()
