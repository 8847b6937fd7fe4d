"""What stands on the pipeline, a row for each system. Nothing is chosen: every row has seed 0.

    python -m benchmarks.systems                  # data/systems.png

What has no shipped weights, pixels in place of latents and attention between resolutions, has a
figure of its own here.
"""

import argparse
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from minisd import StableDiffusion, data, plots
from minisd.edit import exchange, prompt_to_prompt
from minisd.extensions import audio_prompt, clip_guidance, image_prompt, super_resolution
from minisd.film import watch
from minisd.machine import pick_device
from minisd.suites import EXTENSIONS
from minisd.suites import clip_guidance as suite

OUT = Path(__file__).resolve().parents[1] / "data" / "systems.png"
COLUMNS = 8
PICTURE = "a large red two at the bottom left"
FULL = "a large green five at the top right"
Row = list[tuple[Tensor, str]]


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def draw(pipe, *arguments, **options) -> Tensor:
    """Pictures (B, 3, H, W) in [-1, 1], as all of plots takes them."""
    return 2 * pipe(*arguments, generator=seeded(), output_type="pt", **options).images - 1


def picture() -> Tensor:
    """A render of test handwriting, (1, 3, 32, 32) in [0, 1]: PICTURE."""
    shown = next(c for c in data.ONE.all_combinations() if data.say(c.tolist()) == PICTURE)
    return data.ONE.batch(1, "test", seeded(), attributes=shown[None]).images / 2 + 0.5


def a_picture_in(pipe: StableDiffusion) -> Row:
    image, old, new = picture(), "a red two", "a blue two"
    row = [(2 * image[0] - 1, "the picture in")]
    for strength in (0.4, 0.7):
        edited = draw(pipe, new, image=image, strength=strength)
        row.append((edited[0], f"{new}, strength {strength}"))
    edited = prompt_to_prompt(pipe, image, [old], [new], 25, 0.5, keep=0.6)
    row.append((2 * edited[0] - 1, f"{new}, its strokes kept"))
    edited = exchange(pipe, image, [old], ["a red six"], 25, 0.65, generator=seeded())
    row.append((2 * edited[0] - 1, "a red six, its place kept"))
    mask = F.pad(torch.ones(1, 1, 22, 22), (0, 10, 10, 0))
    row.append((torch.maximum(2 * image[0] - 1, mask[0] - 0.5), "a hole"))
    filled = draw(pipe, PICTURE.replace("red two", "yellow nine"), image=image, mask_image=mask)
    return [*row, (filled[0], "a yellow nine in the hole")]


def combined(pipe: StableDiffusion) -> Row:
    parts = ["a red digit", "a seven", "at the top left"]
    row = [(draw(pipe, part)[0], part) for part in parts]
    options = {"combine": [(part, 1.0) for part in parts[1:]], "num_images_per_prompt": 5}
    return row + [(image, "all three") for image in draw(pipe, parts[0], **options)]


def guided_by_clip(pipe: StableDiffusion) -> Row:
    """Without a caption for the U-Net: all that it is told comes from CLIP."""
    guided = clip_guidance.load(EXTENSIONS / "clip-guidance", pipe).pipe
    captions = data.ONE.gallery(COLUMNS, seeded())
    how = 0.0, suite.THROUGH, clip_guidance.SCALE, seeded()
    return list(zip(suite.draw(guided, captions, *how), captions))


def from_pictures(pipe: StableDiffusion) -> Row:
    prompted, image = image_prompt.load(EXTENSIONS / "image-prompt", pipe), picture()
    row = [(2 * image[0] - 1, "the picture")]
    drawn = draw(prompted, image_prompt=image, num_images_per_prompt=3)
    row += [(one, "as the picture") for one in drawn]
    for words in ("blue, at the top right", "green", "small", "in the center"):
        drawn = draw(prompted, words, image_prompt=image, image_prompt_scale=0.5)
        row.append((drawn[0], f"and: {words}"))
    return row


def spoken(pipe: StableDiffusion) -> Row:
    """Voices that training never heard."""
    hears, speech = audio_prompt.load(EXTENSIONS / "audio-prompt", pipe), audio_prompt.Speech()
    captions = data.ONE.gallery(COLUMNS // 2, seeded())
    said = speech.say(captions, speech.groups["unheard"], seeded())
    sound = audio_prompt.join(said, seeded())[0]  # (B, T)
    context, spectra = hears.listen(sound), audio_prompt.log_mel(sound)  # spectra (B, MELS, N)
    drawn, row = draw(pipe, prompt_embeds=context), []
    for spectrum, image, heard in zip(spectra, drawn, hears.understood(context)):
        row += [(spectrum.flip(0), "said"), (image, f"heard: {heard}")]
    return row


def upscaled(pipe: StableDiffusion) -> Row:
    fine = super_resolution.load(EXTENSIONS / "super-resolution", pipe)
    captions, row = data.ONE.gallery(COLUMNS // 2, seeded()), []
    for small in draw(pipe, captions):
        row += [(small, "32 pixels"), (2 * fine.upscale(small[None] / 2 + 0.5)[0] - 1, "128")]
    return row


def step_by_step(pipe: StableDiffusion) -> Row:
    """What --animate shows."""
    with watch(pipe) as (frames, options):
        draw(pipe, FULL, sampler="ddim", num_inference_steps=COLUMNS // 2, **options)
    row = [(frame.noisy[0], f"noisy, t = {frame.t:g}") for frame in frames]
    return row + [(frame.guess[0], f"guess, t = {frame.t:g}") for frame in frames]


ROWS = {
    "A picture in: edited, or with a hole that is filled": a_picture_in,
    "Combined prompts": combined,
    "CLIP guidance, without a caption for the U-Net": guided_by_clip,
    "Image prompts": from_pictures,
    "Spoken prompts": spoken,
    "Super-resolution": upscaled,
    f"Step by step: {FULL}": step_by_step,
}


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=OUT, help="(data/systems.png)")
    o = parser.parse_args()
    plots.check_name(o.out)
    pipe = StableDiffusion.from_pretrained(device=pick_device())
    plots.save(plots.sheet({name: row(pipe) for name, row in ROWS.items()}), o.out)
    print(f"wrote {o.out}")


if __name__ == "__main__":
    main()
