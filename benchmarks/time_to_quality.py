"""From nothing to pictures that show what was asked: accuracy over seconds, ours and others'.

    python -m benchmarks.time_to_quality --seed 0     # then 1, 2, ...: each joins the others

Every arm starts from nothing and gets the seconds that ours takes for all three stages; imports and
measuring are not counted. Beside minisd stands what one would take from the ecosystem instead, on
the same pictures, with the hyperparameters that it is published with:

- text: diffusers' UNet2DConditionModel on pixels, with our text encoder (whose training counts);
  AdamW at 1e-4 after a warm-up of 500 steps, batches of 16, as in diffusers' train_text_to_image;
  guidance 7.5, as in its pipeline for text, for which one caption in ten is left out;
- classes: its UNet2DModel on pixels, each attribute an embedding of 4 channels beside the colours;
  Adam at 1e-3, batches of 128, squared-cosine noise: unit 2 of the Hugging Face diffusion course.

All three run in one process and in the same precision, and draw in the same number of DDIM steps;
the others once more in 50 steps at the end. The moving average of the weights and guidance's
rescaling are part of our recipe and not of theirs.

Writes time_to_quality.json and .png here, and keeps the seeds that are there. Needs the `test`
extra.
"""

import argparse
import tempfile
import time
from itertools import count
from pathlib import Path

import diffusers
import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from torch import nn

from minisd import StableDiffusion, data, plots
from minisd.checkpoint import read_json, write_json
from minisd.evaluation import Judge, Settings, percent, proportion, to_markdown
from minisd.machine import describe, mixed_precision, pick_device
from minisd.models import UNet
from minisd.training import Run, train_autoencoder, train_clip, train_tokenizer, train_unet
from minisd.training.budget import forward_flops
from minisd.training.loop import generator_for, repeat_bits
from minisd.training.pool import CAPTION_DROPOUT
from minisd.training.stages import SAMPLING

from .cost import muon_flops

HERE = Path(__file__).resolve().parent
GOAL = 0.95
BLOCKS = {"block_out_channels": (32, 64, 64), "norm_num_groups": 16}


class LearningCurve:
    """Accuracy over seconds of training. Its clock stands still while a point is measured.

    A point is measured every so many seconds, or less often if that would take more than a quarter
    of the whole time.
    """

    def __init__(self, judge: Judge, wanted, every: float, limit: float = float("inf")):
        self.judge, self.wanted, self.every, self.limit = judge, wanted, every, limit
        self.began, self.due, self.points = time.monotonic(), every, []

    def seconds(self) -> float:
        return time.monotonic() - self.began

    def joint(self, pictures: torch.Tensor) -> dict:
        """The share of pictures that show everything asked for."""
        return proportion((self.judge(pictures).cpu() == self.wanted).all(dim=1))

    def update(self, spent: dict, draw, last: bool = False) -> bool:
        """Measure a point if one is due: draw() -> pictures in [-1, 1]. True when time is up.

        spent: {"pictures": seen in training so far, "flops": spent on them}.
        """
        now = self.seconds()
        over = last or now >= self.limit
        if now >= self.due or over:
            joint = self.joint(draw())
            self.points.append({"seconds": round(now, 1), **spent, "joint": joint})
            seen = f"{spent['pictures']:8,} pictures"
            print(f"  {now:6.0f} s {seen}  {joint['rate']:.1%}", flush=True)
            took = self.seconds() - now
            self.due = now + max(self.every, 3 * took)
            self.began += took
        return over


def training_flops(model: nn.Module, *inputs) -> int:
    """For one picture: forward, and twice as much back."""
    return 3 * forward_flops(model, *inputs)


def minisd(curve: LearningCurve, run: Run, captions: list[str]) -> dict:
    """The three stages of `make train` in one process. Returns what the other arms borrow."""
    recipes, schedule, device = run.recipes, run.schedule, run.device
    tokenizer = train_tokenizer(run)
    clip = train_clip(run, tokenizer)
    text, seconds = clip.text_model, curve.seconds()
    autoencoder = train_autoencoder(run)

    one = run.dataset.batch(1, "train", torch.Generator().manual_seed(0), device)
    ids = tokenizer(one.captions).to(device)
    latents, t = torch.zeros(1, 4, 8, 8, device=device), torch.zeros(1, device=device).long()
    a_step = {}
    for name, network, inputs in (
        ("clip", clip, (one.images, ids)),
        ("autoencoder", autoencoder, (one.images,)),
        ("unet", UNet(run.unet_config).to(device), (latents, t, text(ids))),
    ):
        a_picture = training_flops(network, *inputs)
        a_step[name] = a_picture * recipes[name].batch_size + muon_flops(network)
    encoding = forward_flops(autoencoder.encoder, one.images) + forward_flops(text, ids)
    before = {name: recipes[name].steps for name in ("clip", "autoencoder")}

    def spent(**steps: int) -> dict:
        pictures = sum(count * recipes[name].batch_size for name, count in steps.items())
        flops = sum(count * a_step[name] for name, count in steps.items())
        return {"pictures": pictures, "flops": flops}

    def after_step(step: int, average: nn.Module) -> None:
        total = spent(**before, unet=step)
        total["flops"] += run.dataset.pool_size * encoding

        def draw() -> torch.Tensor:
            parts = (tokenizer, text, average.eval(), autoencoder, schedule)
            pipe = StableDiffusion(*parts, defaults=SAMPLING)
            generator = torch.Generator().manual_seed(0)
            options = {"num_inference_steps": Settings.steps, "output_type": "pt"}
            return 2 * pipe(captions, generator=generator, **options).images - 1

        curve.update(total, draw, last=step == recipes["unet"].steps)

    train_unet(run, tokenizer, text, autoencoder, after_step)
    trained = spent(clip=recipes["clip"].steps)
    return {"tokenizer": tokenizer, "text": text, "seconds": seconds, "spent": trained}


@torch.no_grad()
def ddim(predict, scheduler, conditions: torch.Tensor, steps: int) -> torch.Tensor:
    """Pictures (B, 3, 32, 32) by diffusers' DDIM from pure noise.

    predict(x, t, conditions) -> eps.
    """
    sampler = diffusers.DDIMScheduler.from_config(scheduler.config, timestep_spacing="trailing")
    sampler.set_timesteps(steps)
    generator, pictures = torch.Generator().manual_seed(0), []
    for chunk in conditions.split(50):
        x = torch.randn(len(chunk), 3, 32, 32, generator=generator).to(chunk.device)
        for t in sampler.timesteps:
            x = sampler.step(predict(x, t, chunk), t, x).prev_sample
        pictures.append(x.clamp(-1, 1))
    return torch.cat(pictures)


def train_on_pixels(seed, device, model, optimizer, lr_schedule, scheduler, size, condition):
    """Ho et al.'s loss on eps; condition(batch, generator) -> the model's other inputs.

    Yields the pictures seen after each step; whoever asks decides when to stop.
    """
    model.train()
    for step in count():
        generator = generator_for("others' pictures", step, seed)
        batch = data.draw_batch(size, "train", generator, device)
        t = torch.randint(1000, (size,), generator=generator).to(device)
        eps = torch.randn(batch.images.shape, generator=generator).to(device)
        noised = scheduler.add_noise(batch.images, eps, t)
        with mixed_precision(device):
            predicted = model(noised, t, *condition(batch, generator))
        loss = F.mse_loss(predicted.float(), eps)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        lr_schedule.step()
        yield (step + 1) * size


class WithText(nn.Module):
    """diffusers' text-conditioned U-Net on pixels: (x, t, context) -> eps."""

    def __init__(self):
        super().__init__()
        self.unet = diffusers.UNet2DConditionModel(
            sample_size=32,
            in_channels=3,
            out_channels=3,
            layers_per_block=2,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            cross_attention_dim=128,
            attention_head_dim=4,
            **BLOCKS,
        )

    def forward(self, x, t, context):
        return self.unet(x, t, context).sample


class WithClasses(nn.Module):
    """diffusers' U-Net on pixels, attributes as channels: (x, t, attributes (B, 4)) -> eps."""

    def __init__(self):
        super().__init__()
        self.embeddings = nn.ModuleList([nn.Embedding(len(v), 4) for v in data.VALUES])
        self.unet = diffusers.UNet2DModel(
            sample_size=32,
            in_channels=3 + 4 * len(data.VALUES),
            out_channels=3,
            layers_per_block=2,
            down_block_types=("DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"),
            up_block_types=("AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
            **BLOCKS,
        )

    def forward(self, x, t, attributes):
        embedded = [layer(a) for layer, a in zip(self.embeddings, attributes.T, strict=True)]
        channels = torch.cat(embedded, dim=1)[:, :, None, None].expand(-1, -1, *x.shape[2:])
        return self.unet(torch.cat([x, channels], dim=1), t).sample


def text(curve: LearningCurve, seed: int, device, captions: list[str], borrowed: dict) -> dict:
    """Returns the accuracy of pictures drawn in 50 steps."""
    curve.began -= borrowed["seconds"]  # the text encoder had to be trained, too
    tokenizer, encoder = borrowed["tokenizer"], borrowed["text"]
    model, scheduler = WithText().to(device), diffusers.DDPMScheduler(1000)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-4, weight_decay=1e-2)
    lr_schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1, step / 500))

    @torch.no_grad()
    def encode(prompts: list[str]) -> torch.Tensor:
        return encoder(tokenizer(prompts).to(device))

    def condition(batch, generator):
        dropped = torch.rand(len(batch.captions), generator=generator) < CAPTION_DROPOUT
        pairs = zip(batch.captions, dropped, strict=True)
        return (encode(["" if drop else caption for caption, drop in pairs]),)

    nothing = encode([""])  # (1, L, D)

    def guided(x, t, context):
        both = torch.cat([nothing.expand_as(context), context])
        empty, prompt = model(torch.cat([x, x]), t, both).chunk(2)
        return empty + 7.5 * (prompt - empty)

    def draw(steps: int = Settings.steps) -> torch.Tensor:
        return ddim(guided, scheduler, encode(captions), steps)

    x, context = torch.zeros(1, 3, 32, 32, device=device), torch.zeros(1, 16, 128, device=device)
    one = training_flops(model, x, torch.zeros(1, device=device), context)
    one += forward_flops(encoder, tokenizer(captions[:1]).to(device))
    arguments, before = (model, optimizer, lr_schedule, scheduler, 16, condition), borrowed["spent"]
    for pictures in train_on_pixels(seed, device, *arguments):
        flops = before["flops"] + one * pictures
        if curve.update({"pictures": before["pictures"] + pictures, "flops": flops}, draw):
            return curve.joint(draw(50))


def classes(curve: LearningCurve, seed: int, device, wanted: torch.Tensor) -> dict:
    """Returns the accuracy of pictures drawn in 50 steps."""
    model = WithClasses().to(device)
    scheduler = diffusers.DDPMScheduler(1000, beta_schedule="squaredcos_cap_v2")
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    lr_schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)

    def draw(steps: int = Settings.steps) -> torch.Tensor:
        return ddim(model, scheduler, wanted.to(device), steps)

    x = torch.zeros(1, 3, 32, 32, device=device)
    one = training_flops(model, x, torch.zeros(1, device=device), wanted[:1].to(device))
    condition = lambda batch, _: (batch.attributes,)  # noqa: E731
    arguments = (model, optimizer, lr_schedule, scheduler, 128, condition)
    for pictures in train_on_pixels(seed, device, *arguments):
        if curve.update({"pictures": pictures, "flops": one * pictures}, draw):
            return curve.joint(draw(50))


def first(points: list[dict]) -> dict | None:
    """The first point that reaches the goal."""
    return next((point for point in points if point["joint"]["rate"] >= GOAL), None)


def markdown(seeds: dict[str, dict]) -> str:
    """The end of each curve, and where it met the goal."""

    def spent(point: dict) -> str:
        tera = point["flops"] / 1e12
        return f"{point['seconds']:,.0f} s, {point['pictures']:,} pictures, {tera:.1f} TFLOP"

    rows = []
    for name in dict.fromkeys(name for measured in seeds.values() for name in measured["curves"]):
        for seed, measured in seeds.items():
            if points := measured["curves"].get(name):
                end, met = points[-1], measured["reached"][name]
                cells = [percent(end["joint"]), spent(end), spent(met) if met else "not reached"]
                rows.append([f"{name}, seed {seed}", *cells])
    return to_markdown([["", "at the end", "after", f"{GOAL:.0%} after"], *rows])


def figure(seeds: dict[str, dict]):
    figure, axis = plt.subplots(figsize=(7, 4), layout="constrained")
    for i, measured in enumerate(seeds.values()):
        for j, (name, points) in enumerate(measured["curves"].items()):
            minutes = [point["seconds"] / 60 for point in points]
            joint = [100 * point["joint"]["rate"] for point in points]
            axis.plot(minutes, joint, color=f"C{j}", marker="o", ms=3, label="" if i else name)
    axis.axhline(100 * GOAL, color="gray", lw=0.8, ls="--")
    axis.set(
        xlabel="minutes from nothing", ylabel="all four right, %", xlim=(0, None), ylim=(-3, 103)
    )
    axis.legend()
    axis.grid(alpha=0.3)
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seed", type=int, default=0, help="of all three arms (%(default)s)")
    parser.add_argument("--every", type=float, default=60, help="seconds (%(default)s)")
    parser.add_argument("--samples", type=int, default=200, help="pictures a point (%(default)s)")
    parser.add_argument("--device", default="auto")
    o = parser.parse_args()
    device = pick_device(o.device)
    judge = Judge.load(device=device)
    repeat_bits()
    wanted = data.cycle(data.all_combinations(), o.samples, 0)
    captions = [data.say(combination) for combination in wanted.tolist()]

    path = HERE / "time_to_quality.json"
    about = {"machine": describe(device), "samples": o.samples}
    measured = {**about, "reached": {}, "curves": {}, "in 50 steps": {}}

    def keep(name: str, points: list[dict]) -> None:
        measured["curves"][name], measured["reached"][name] = points, first(points)
        seeds = read_json(path)["seeds"] if path.exists() else {}  # others may be at work, too
        seeds[str(o.seed)] = measured
        write_json(path, {"goal": GOAL, "seeds": dict(sorted(seeds.items()))})
        plots.save(figure(seeds), HERE / "time_to_quality.png")

    print(f"minisd, seed {o.seed}")
    curve = LearningCurve(judge, wanted, o.every)
    with tempfile.TemporaryDirectory() as folder:
        borrowed = minisd(curve, Run(Path(folder), data.ONE, o.seed, device), captions)
    keep("minisd", curve.points)
    limit = curve.points[-1]["seconds"]
    for name, arm, condition in (
        ("diffusers, text", text, (captions, borrowed)),
        ("diffusers, classes", classes, (wanted,)),
    ):
        print(f"{name}, seed {o.seed}")
        torch.manual_seed(o.seed)
        curve = LearningCurve(judge, wanted, o.every, limit)
        measured["in 50 steps"][name] = arm(curve, o.seed, device, *condition)
        keep(name, curve.points)
    print("\n" + markdown(read_json(path)["seeds"]))


if __name__ == "__main__":
    main()
