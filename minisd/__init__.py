"""minisd: Stable Diffusion in miniature."""

import os

# Before torch is loaded: its threads shall not spin while they wait for one another, or beside
# another busy process a picture takes minutes in place of seconds.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from . import data
from .pipeline import StableDiffusion
