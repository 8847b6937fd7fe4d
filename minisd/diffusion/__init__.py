"""The mathematics of diffusion. No weights; never imports models."""

from .guidance import classifier_free
from .noise import Generators, draw_noise
from .samplers import (
    SAMPLERS,
    Denoiser,
    Point,
    Sampler,
    ddim_step,
    ddpm_step,
    dpm_solver_step,
    sample,
    trajectory,
    unipc_correct,
)
from .schedule import (
    NoiseSchedule,
    ScheduleConfig,
    make_betas,
    predictions,
    rescale_zero_terminal_snr,
)
