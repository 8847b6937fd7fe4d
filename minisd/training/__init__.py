"""Training: the losses, the loop, the three stages, and the run that holds their settings."""

from .loop import Recipe, generator_for, train
from .losses import autoencoder_loss, clip_loss, denoising_loss, random_timesteps
from .optimizers import Muon, optimizers_for
from .run import NETWORKS, RECIPES, Run, override, recipes_for, run_on
from .stages import train_all, train_autoencoder, train_clip, train_tokenizer, train_unet
