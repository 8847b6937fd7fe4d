"""minisd beside diffusers and transformers: the same networks, weights and precision.

    python -m benchmarks.throughput [--rounds 7] [--threads 2] [--device cpu]

Both run in one process, alternating, so that a noisy machine disturbs both alike; what counts is
the ratio (theirs / ours; above 1, ours is faster): the median over the rounds, with its range.
Needs the `test` extra.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import diffusers
import torch
import transformers

from minisd.checkpoint import save_autoencoder, save_clip, save_unet
from minisd.diffusion import NoiseSchedule, classifier_free, sample
from minisd.machine import mixed_precision, pick_device
from minisd.models import CLIP, Autoencoder, CLIPConfig, TextConfig, UNet, VisionConfig


def build(device):
    """The default networks of ours, and theirs with the same weights."""
    torch.manual_seed(0)
    ours = {
        "unet": UNet(),
        "autoencoder": Autoencoder(),
        "clip": CLIP(CLIPConfig(TextConfig(vocab_size=600, end_id=599), VisionConfig())),
    }
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        save_unet(folder / "unet", ours["unet"])
        save_autoencoder(folder / "vae", ours["autoencoder"], sample_size=32)
        save_clip(folder / "clip", ours["clip"])
        theirs = {
            "unet": diffusers.UNet2DConditionModel.from_pretrained(folder / "unet"),
            "autoencoder": diffusers.AutoencoderKL.from_pretrained(folder / "vae"),
            "clip": transformers.CLIPModel.from_pretrained(folder / "clip"),
        }
    return [
        {name: model.to(device, memory_format=torch.channels_last) for name, model in side.items()}
        for side in (ours, theirs)
    ]


def training_step(model, loss):
    """One step of AdamW on `loss(model)`, in the precision of `make train`, without arguments."""
    optimizer = torch.optim.AdamW(model.train().parameters(), 1e-5, fused=True)
    precision = mixed_precision(next(model.parameters()).device)

    def step():
        with precision:
            value = loss(model)
        value.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def tasks(ours, theirs, device):
    """name -> (pictures a run, ours, theirs); both sides compute the same thing."""
    x = torch.randn(64, 4, 8, 8, device=device)
    t = torch.randint(1000, (64,), device=device)
    context = torch.randn(64, 16, 128, device=device)
    images = torch.randn(32, 3, 32, 32, device=device)
    ids = torch.randint(598, (64, 16), device=device)
    ids[:, -1] = 599
    yield (
        "train U-Net",
        64,
        training_step(ours["unet"], lambda m: m(x, t, context).square().mean()),
        training_step(theirs["unet"], lambda m: m(x, t, context).sample.square().mean()),
    )
    yield (
        "train autoencoder",
        32,
        training_step(
            ours["autoencoder"], lambda m: m.decode(m.encode(images).mean).square().mean()
        ),
        training_step(
            theirs["autoencoder"],
            lambda m: m.decode(m.encode(images).latent_dist.mean).sample.square().mean(),
        ),
    )
    both = images.repeat(2, 1, 1, 1)
    yield (
        "train CLIP",
        64,
        training_step(ours["clip"], lambda m: m(both, ids).square().mean()),
        training_step(
            theirs["clip"],
            lambda m: m(pixel_values=both, input_ids=ids).logits_per_image.square().mean(),
        ),
    )
    schedule = NoiseSchedule()
    scheduler = diffusers.DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        clip_sample=False,
    )
    few, prompt, empty = x[:16], context[:16], context[16:32]

    @torch.no_grad()
    def draw_ours():
        denoise = classifier_free(ours["unet"].eval(), prompt, empty, 3.0)
        return ours["autoencoder"].decode(sample(denoise, schedule, few, steps=20))

    @torch.no_grad()
    def draw_theirs():
        unet, z, pair = theirs["unet"].eval(), few, torch.cat([empty, prompt])
        scheduler.set_timesteps(20)
        for step in scheduler.timesteps:
            low, high = unet(torch.cat([z, z]), step, pair).sample.chunk(2)
            z = scheduler.step(low + 3.0 * (high - low), step, z).prev_sample
        return theirs["autoencoder"].decode(z).sample

    torch.testing.assert_close(draw_ours(), draw_theirs(), atol=1e-3, rtol=1e-3)
    yield "draw, 20 DDIM steps, guidance", 16, draw_ours, draw_theirs


def seconds(run, device) -> float:
    """Wall-clock seconds of one run."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7, help="alternating runs (%(default)s)")
    parser.add_argument(
        "--threads", type=int, default=torch.get_num_threads(), help="(%(default)s)"
    )
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = pick_device(options.device)
    ours, theirs = build(device)
    precision = "bfloat16 training" if mixed_precision(device)._enabled else "float32"
    print(f"torch {torch.__version__}, {device}, {options.threads} threads, {precision}")
    print(f"{'':32}{'minisd':>12}{'diffusers':>12}   theirs / ours [range]")
    for name, pictures, run_ours, run_theirs in tasks(ours, theirs, device):
        run_ours(), run_theirs()  # warm up
        pairs = [
            (seconds(run_ours, device), seconds(run_theirs, device)) for _ in range(options.rounds)
        ]
        mine, other = (statistics.median(column) for column in zip(*pairs, strict=True))
        ratios = sorted(b / a for a, b in pairs)
        print(
            f"{name:32}{pictures / mine:10.1f}/s{pictures / other:10.1f}/s"
            f"   {statistics.median(ratios):.2f} [{ratios[0]:.2f}, {ratios[-1]:.2f}]"
        )


if __name__ == "__main__":
    main()
