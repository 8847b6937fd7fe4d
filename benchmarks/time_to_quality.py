"""From nothing to pictures that show what was asked: accuracy over seconds, ours and others'.

    python -m benchmarks.time_to_quality --seed 0     # then 1, 2, ...: each joins the others

Every arm starts cold and gets the seconds that ours takes for all three stages; looking at it is
not counted. Beside minisd stands what one would take from the ecosystem instead, on the same
pictures, with the hyperparameters that it is published with:

- text: diffusers' UNet2DConditionModel on pixels, with our text encoder (whose training counts);
  AdamW at 1e-4 after a warm-up of 500 steps, batches of 16, as in diffusers' train_text_to_image;
- classes: its UNet2DModel on pixels, each attribute an embedding of 4 channels beside the colours;
  Adam at 1e-3, batches of 128, squared-cosine noise: unit 2 of the Hugging Face diffusion course.

All three run in one process and in the same precision. The moving average of the weights and
guidance's rescaling are part of our recipe and not of theirs.

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
from torch.utils.flop_counter import FlopCounterMode

from minisd import StableDiffusion, data, plots
from minisd.checkpoint import read_json, write_json
from minisd.diffusion import NoiseSchedule
from minisd.evaluation import Judge, Settings
from minisd.evaluation.evaluate import cycle, rate
from minisd.machine import describe, mixed_precision, pick_device
from minisd.models import UNet
from minisd.training import stages
from minisd.training.loop import generator_for, repeat_bits

HERE = Path(__file__).resolve().parent
GOAL = 0.95
BLOCKS = {"block_out_channels": (32, 64, 64), "norm_num_groups": 16}


class Watch:
    """Seconds of training and a point of the curve now and then; looking stops the clock.

    It looks every so many seconds, but no longer than a quarter of the whole time.
    """

    def __init__(self, judge: Judge, wanted, every: float, limit: float = float("inf")):
        self.judge, self.wanted, self.every, self.limit = judge, wanted, every, limit
        self.began, self.next, self.points = time.monotonic(), every, []

    def seconds(self) -> float:
        return time.monotonic() - self.began

    def look(self, pictures: int, draw, flops: float, last: bool = False) -> bool:
        """draw() -> pictures in [-1, 1], asked for if it is time. True when the time is over."""
        now = self.seconds()
        over = last or now >= self.limit
        if now >= self.next or over:
            right = (self.judge(draw()).cpu() == self.wanted).all(dim=1)
            point = {"seconds": round(now, 1), "pictures": pictures, "flops": flops}
            self.points.append(point | {"joint": rate(right)})
            print(f"  {now:6.0f} s {pictures:8,} pictures  {right.float().mean():.1%}", flush=True)
            took = self.seconds() - now
            self.next = now + max(self.every, 3 * took)
            self.began += took  # the clock stood still
        return over


def training_flops(model: nn.Module, *inputs) -> int:
    """For one picture: forward, and twice as much back."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(*inputs)
    return 3 * counter.get_total_flops()


def minisd(watch: Watch, seed: int, device, folder: Path, captions: list[str]) -> dict:
    """The three stages of `make train` in one process. Returns what the other arms borrow."""
    recipes, schedule = stages.RECIPES, NoiseSchedule()
    tokenizer = stages.train_tokenizer()
    clip = stages.train_clip(folder, seed, device, recipes["clip"], tokenizer)
    borrowed = {"tokenizer": tokenizer, "text": clip.text_model, "seconds": watch.seconds()}
    autoencoder = stages.train_autoencoder(folder, seed, device, recipes["autoencoder"])

    one = data.draw_batch(1, "train", torch.Generator().manual_seed(0), device)
    ids = tokenizer(one.captions).to(device)
    unet = UNet().to(device)
    x, t, context = torch.zeros(1, 4, 8, 8), torch.zeros(1).long(), torch.zeros(1, 16, 128)
    a_picture = {
        "clip": training_flops(clip, one.images, ids),
        "autoencoder": training_flops(autoencoder, one.images),
        "unet": training_flops(unet, x.to(device), t.to(device), context.to(device)),
    }
    batch = {name: recipe.batch_size for name, recipe in recipes.items()}
    total = {name: a_picture[name] * recipes[name].steps * batch[name] for name in recipes}
    borrowed["flops"] = total["clip"]

    def look(step: int, average: nn.Module) -> None:
        flops = total["clip"] + total["autoencoder"] + a_picture["unet"] * step * batch["unet"]

        def draw() -> torch.Tensor:
            parts = (tokenizer, clip.text_model, average.eval(), autoencoder, schedule)
            noise = torch.Generator().manual_seed(0)
            drawn = StableDiffusion(*parts)(captions, generator=noise, output_type="pt")
            return drawn.images * 2 - 1

        watch.look(step * batch["unet"], draw, flops, last=step == recipes["unet"].steps)

    recipe, text = recipes["unet"], clip.text_model
    stages.train_unet(
        folder, seed, device, recipe, tokenizer, text, autoencoder, schedule, watch=look
    )
    return borrowed


@torch.no_grad()
def ddim(predict, scheduler, conditions: torch.Tensor) -> torch.Tensor:
    """Pictures (B, 3, 32, 32) by diffusers' DDIM from pure noise, in as many steps as ours.

    predict(x, t, conditions) -> eps.
    """
    sampler = diffusers.DDIMScheduler.from_config(scheduler.config, timestep_spacing="trailing")
    sampler.set_timesteps(Settings.steps)
    generator, pictures = torch.Generator().manual_seed(0), []
    for part in conditions.split(50):
        x = torch.randn(len(part), 3, 32, 32, generator=generator).to(part.device)
        for t in sampler.timesteps:
            x = sampler.step(predict(x, t, part), t, x).prev_sample
        pictures.append(x.clamp(-1, 1))
    return torch.cat(pictures)


def train_on_pixels(seed, device, model, optimizer, rates, scheduler, size, condition):
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
        rates.step()
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


def text(watch: Watch, seed: int, device, captions: list[str], borrowed: dict) -> None:
    watch.began -= borrowed["seconds"]  # the text encoder had to be trained, too
    tokenizer, encoder = borrowed["tokenizer"], borrowed["text"]
    model, scheduler = WithText().to(device), diffusers.DDPMScheduler(1000)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-4, weight_decay=1e-2)
    rates = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1, step / 500))

    @torch.no_grad()
    def encode(prompts: list[str]) -> torch.Tensor:
        return encoder(tokenizer(prompts).to(device))

    def condition(batch, generator):
        dropped = torch.rand(len(batch.captions), generator=generator) < stages.CAPTION_DROPOUT
        pairs = zip(batch.captions, dropped, strict=True)
        return (encode(["" if drop else caption for caption, drop in pairs]),)

    nothing = encode([""])  # (1, L, D)

    def guided(x, t, context):
        both = torch.cat([nothing.expand_as(context), context])
        empty, prompt = model(torch.cat([x, x]), t, both).chunk(2)
        return empty + 4 * (prompt - empty)

    def draw() -> torch.Tensor:
        return ddim(guided, scheduler, encode(captions))

    x, context = torch.zeros(1, 3, 32, 32, device=device), torch.zeros(1, 16, 128, device=device)
    one = training_flops(model, x, torch.zeros(1, device=device), context)
    arguments = (model, optimizer, rates, scheduler, 16, condition)
    for pictures in train_on_pixels(seed, device, *arguments):
        if watch.look(pictures, draw, borrowed["flops"] + one * pictures):
            return


def classes(watch: Watch, seed: int, device, wanted: torch.Tensor) -> None:
    model = WithClasses().to(device)
    scheduler = diffusers.DDPMScheduler(1000, beta_schedule="squaredcos_cap_v2")
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    rates = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)

    def draw() -> torch.Tensor:
        return ddim(model, scheduler, wanted.to(device))

    x = torch.zeros(1, 3, 32, 32, device=device)
    one = training_flops(model, x, torch.zeros(1, device=device), wanted[:1].to(device))
    condition = lambda batch, _: (batch.attributes,)  # noqa: E731
    arguments = (model, optimizer, rates, scheduler, 128, condition)
    for pictures in train_on_pixels(seed, device, *arguments):
        if watch.look(pictures, draw, one * pictures):
            return


def first(points: list[dict]) -> dict | None:
    """Where the goal was reached first."""
    return next((point for point in points if point["joint"]["rate"] >= GOAL), None)


def figure(seeds: dict[str, dict]):
    figure, axis = plt.subplots(figsize=(7, 4), layout="constrained")
    for i, run in enumerate(seeds.values()):
        for j, (name, points) in enumerate(run["curves"].items()):
            minutes = [point["seconds"] / 60 for point in points]
            joint = [100 * point["joint"]["rate"] for point in points]
            axis.plot(minutes, joint, color=f"C{j}", marker="o", ms=3, label="" if i else name)
    axis.axhline(100 * GOAL, color="gray", lw=0.8, ls="--")
    axis.set(xlabel="minutes from nothing", ylabel="all four right, %", ylim=(0, 100))
    axis.legend()
    axis.grid(alpha=0.3)
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seed", type=int, default=0, help="of all three arms (%(default)s)")
    parser.add_argument("--every", type=float, default=60, help="seconds (%(default)s)")
    parser.add_argument("--samples", type=int, default=200, help="pictures a look (%(default)s)")
    parser.add_argument("--device", default="auto")
    o = parser.parse_args()
    device, judge = pick_device(o.device), Judge.load()
    repeat_bits()
    wanted = cycle(data.all_combinations(), o.samples, 0)
    captions = [data.say(combination) for combination in wanted.tolist()]

    path = HERE / "time_to_quality.json"
    seeds = read_json(path)["seeds"] if path.exists() else {}
    about = {"machine": describe(device), "samples": o.samples}
    run = seeds[str(o.seed)] = {**about, "reached": {}, "curves": {}}

    def keep(name: str, points: list[dict]) -> None:
        run["curves"][name], run["reached"][name] = points, first(points)
        write_json(path, {"goal": GOAL, "seeds": dict(sorted(seeds.items()))})
        plots.save(figure(seeds), HERE / "time_to_quality.png")

    print(f"minisd, seed {o.seed}")
    watch = Watch(judge, wanted, o.every)
    with tempfile.TemporaryDirectory() as folder:
        borrowed = minisd(watch, o.seed, device, Path(folder), captions)
    keep("minisd", watch.points)
    limit = watch.points[-1]["seconds"]
    for name, arm, condition in (
        ("diffusers, text", text, (captions, borrowed)),
        ("diffusers, classes", classes, (wanted,)),
    ):
        print(f"{name}, seed {o.seed}")
        torch.manual_seed(o.seed)
        watch = Watch(judge, wanted, o.every, limit)
        arm(watch, o.seed, device, *condition)
        keep(name, watch.points)


if __name__ == "__main__":
    main()
