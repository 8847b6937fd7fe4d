"""Pixels or latents: the U-Net on the pixels themselves, to see what the latents save.

The autoencoder gives way to one that changes nothing, so the latents are the pixels: 3 x 32 x 32
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
from ..training import RECIPES, Run
from ..training.pool import encode_pool
from ..training.stages import train_stage, unet_stage
from . import Wrapper, unwrapped

RECIPE = RECIPES["unet"]


class Pixels(nn.Module):
    """An autoencoder whose latents are the pixels (B, 3, H, W) in [-1, 1]."""

    config = AutoencoderConfig(latent_channels=3, block_out_channels=(3,), scaling_factor=1.0)

    def __init__(self):
        super().__init__()
        self.encoder = nn.Identity()  # whose work several processes share

    def encode(self, images: Tensor) -> DiagonalGaussian:
        """Certain of every pixel: a Gaussian without width."""
        return DiagonalGaussian(torch.cat([images, torch.full_like(images, -30.0)], dim=1))

    def decode(self, latents: Tensor) -> Tensor:
        return latents


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

    def __init__(self, pipe: StableDiffusion, unet: UNet):
        super().__init__(replace(unwrapped(pipe), unet=unet, autoencoder=Pixels()))

    def __call__(self, *arguments, **options):
        return self.pipe(*arguments, **options)

    def save_pretrained(self, folder: str | Path, dtype: torch.dtype | None = None) -> None:
        unet = self.pipe.unet
        save_extension(folder, unet, unet_to_hf(unet.config), fingerprint(self.text_encoder), dtype)


def extend(run: Run, pipe: StableDiffusion) -> PixelDiffusion:
    """Train the U-Net from nothing, on the pictures of the pool as they are."""
    pool = encode_pool(run, Pixels(), pipe.tokenizer, pipe.text_encoder)
    unet = train_stage(run, unet_stage(on_pixels(run, pipe), pool, "pixels_or_latents"))
    return PixelDiffusion(pipe, unet)


def load(folder: str | Path, pipe: StableDiffusion) -> PixelDiffusion:
    build = lambda config: UNet(unet_from_hf(config))  # noqa: E731
    unet = load_extension(folder, "pixels-or-latents", build, fingerprint(pipe.text_encoder))
    return PixelDiffusion(pipe, unet.to(pipe.device, pipe.dtype))
