"""Training: the losses, the loop, the three stages."""

from .loop import Recipe, train
from .losses import autoencoder_loss, clip_loss, denoising_loss, random_timesteps
from .stages import RECIPES, train_all, train_autoencoder, train_clip, train_tokenizer, train_unet

__all__ = [
    "RECIPES",
    "Recipe",
    "autoencoder_loss",
    "clip_loss",
    "denoising_loss",
    "random_timesteps",
    "train",
    "train_all",
    "train_autoencoder",
    "train_clip",
    "train_tokenizer",
    "train_unet",
]
