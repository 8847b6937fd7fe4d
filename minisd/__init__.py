"""minisd: Stable Diffusion in miniature."""

from . import data
from .pipeline import StableDiffusion
