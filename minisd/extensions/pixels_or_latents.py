"""Pixels or latents: the U-Net on the pixels themselves, to see what the latents save.

The autoencoder gives way to one that only scales, so the latents are the pixels: 3 x 32 x 32
numbers in place of 4 x 8 x 8. The U-Net gets the autoencoder's upper levels on top of its own,
without attention, to come from 32 pixels down to the 4 x 4 places of the usual one.

Sources: Ho et al. 2020, "Denoising diffusion probabilistic models", whose U-Net works on pixels;
Rombach et al. 2022, section 4.1, for the comparison.
"""

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from ..checkpoint import fingerprint, load_extension, save_extension, unet_from_hf, unet_to_hf
from ..models import AutoencoderConfig, DiagonalGaussian, UNet, UNetConfig
from ..pipeline import StableDiffusion
from ..training import RECIPES, Run, generator_for
from ..training.pool import encode_pool
from ..training.stages import train_stage, unet_stage
from . import Wrapper, unwrapped

RECIPE = RECIPES["unet"]


class Pixels(nn.Module):
    """An autoencoder whose latents are the pixels (B, 3, H, W), of mean 0 and unit variance."""

    config = AutoencoderConfig(latent_channels=3, block_out_channels=(3,), scaling_factor=1.0)

    def __init__(self):
        super().__init__()
        self.encoder = nn.Identity()  # whose work several processes share
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("deviation", torch.ones(()))

    def fit(self, images: Tensor) -> "Pixels":
        """Measure mean and deviation, as `train_autoencoder` measures the scaling factor."""
        self.mean, self.deviation = images.mean(), images.std()
        return self

    def encode(self, images: Tensor) -> DiagonalGaussian:
        """Certain of every pixel: a Gaussian without width."""
        latents = (images - self.mean) / self.deviation
        return DiagonalGaussian(torch.cat([latents, torch.full_like(latents, -30.0)], dim=1))

    def decode(self, latents: Tensor) -> Tensor:
        return latents * self.deviation + self.mean


def pixels_of(run: Run) -> Pixels:
    """Of the dataset, by 2,048 pictures."""
    generator = generator_for("pixels to measure", 0, run.seed)
    return Pixels().fit(run.dataset.batch(2048, "train", generator, run.device).images)


def levels_for_pixels(latents: AutoencoderConfig, unet: UNetConfig) -> UNetConfig:
    """The U-Net's levels under those that the autoencoder halves, which have no attention."""
    upper = latents.block_out_channels[:-1]
    widths = (*upper, *unet.block_out_channels)  # (16, 32, 32, 64)
    attends = (*(False for _ in upper), *unet.cross_attention)
    return replace(unet, block_out_channels=widths, cross_attention=attends)


def on_pixels(run: Run, pipe: StableDiffusion) -> Run:
    """The run, with a U-Net that reads pixels."""
    unet = levels_for_pixels(pipe.autoencoder.config, pipe.unet.config)
    return replace(run, networks={**run.networks, "autoencoder": Pixels.config, "unet": unet})


class PixelDiffusion(Wrapper):
    """The pipeline with a U-Net that draws pixels, and nothing to decode."""

    def __init__(self, pipe: StableDiffusion, unet: UNet, pixels: Pixels):
        super().__init__(replace(unwrapped(pipe), unet=unet, autoencoder=pixels))

    def save_pretrained(self, folder: str | Path, dtype: torch.dtype | None = None) -> None:
        both, config = nn.ModuleList([self.unet, self.autoencoder]), unet_to_hf(self.unet.config)
        save_extension(folder, both, config, fingerprint(self.text_encoder), dtype)


def extend(run: Run, pipe: StableDiffusion) -> PixelDiffusion:
    """Train the U-Net from nothing, on the pictures of the pool as they are."""
    pixels = pixels_of(run)
    pool = encode_pool(run, pixels, pipe.tokenizer, pipe.text_encoder)
    unet = train_stage(run, unet_stage(on_pixels(run, pipe), pool, "pixels_or_latents"))
    return PixelDiffusion(pipe, unet, pixels)


def load(folder: str | Path, pipe: StableDiffusion) -> PixelDiffusion:
    build = lambda config: nn.ModuleList([UNet(unet_from_hf(config)), Pixels()])  # noqa: E731
    both = load_extension(folder, "pixels-or-latents", build, fingerprint(pipe.text_encoder))
    return PixelDiffusion(pipe, *both.to(pipe.device, pipe.dtype))
