"""The mathematics of diffusion. No weights; never imports models."""

from .editing import flow_edit, inpaint, invert
from .guidance import classifier_free, clip_guided
from .noise import Generators, draw_noise
from .sampler import Denoiser, Point, Sampler
from .samplers import (
    SAMPLERS,
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
