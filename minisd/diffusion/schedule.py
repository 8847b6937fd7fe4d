"""Forward noising: how much signal is left at timestep t, and how to convert between predictions.

x_t = sqrt(a_t) x0 + sqrt(1 - a_t) eps, where a_t is `alphas_cumprod[t]`; t = 0 is nearly clean,
t = T - 1 nearly (or entirely) noise. Source: Ho et al. 2020, "Denoising diffusion probabilistic
models", equation 4; option names as in diffusers' schedulers.
"""

import math
from dataclasses import dataclass
from numbers import Real

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError, check_choice, check_number, quote

ALLOWED = {
    "num_train_timesteps": range(2, 1_000_001),
    "beta_schedule": ("linear", "scaled_linear", "cosine"),
    "prediction_type": ("epsilon", "v_prediction"),
    "rescale_betas_zero_snr": (False, True),
    "timestep_spacing": ("leading", "linspace", "trailing"),
    "steps_offset": range(1_000_000),
    "set_alpha_to_one": (False, True),
}


@dataclass(frozen=True)
class ScheduleConfig:
    """Defaults are minisd's: Stable Diffusion's betas, rescaled to end in pure noise."""

    num_train_timesteps: int = 1000
    beta_start: float = 0.00085
    beta_end: float = 0.012
    beta_schedule: str = "scaled_linear"
    prediction_type: str = "v_prediction"
    rescale_betas_zero_snr: bool = True
    timestep_spacing: str = "trailing"
    steps_offset: int = 1  # added to "leading" timesteps; diffusers' pipeline insists on 1
    set_alpha_to_one: bool = True  # DDIM's last step goes to a = 1, not to a_0

    def __post_init__(self):
        """InputError for a value of a wrong type or out of range."""
        for name, allowed in ALLOWED.items():
            if isinstance(allowed, range):
                check_number(name, getattr(self, name), allowed[0], allowed[-1], whole=True)
            else:
                check_choice(name, getattr(self, name), allowed)
        start, end = self.beta_start, self.beta_end
        if not (isinstance(start, Real) and isinstance(end, Real) and 0 < start <= end < 1):
            given = f"beta_start {quote(start)} and beta_end {quote(end)}"
            raise InputError(f"0 < beta_start <= beta_end < 1 must hold; here are {given}")


def make_betas(config: ScheduleConfig) -> Tensor:
    """The noise added at each step: (T,).

    linear: Ho et al. 2020, section 4. scaled_linear: linear in the square root, as in the code of
    Rombach et al. 2022. cosine: Nichol and Dhariwal 2021, equation 17, with beta at most 0.999.
    """
    name, steps = config.beta_schedule, config.num_train_timesteps
    start, end = config.beta_start, config.beta_end
    if name == "linear":
        return torch.linspace(start, end, steps)
    if name == "scaled_linear":
        return torch.linspace(start**0.5, end**0.5, steps) ** 2
    time = torch.arange(steps + 1, dtype=torch.float64) / steps
    a = torch.cos((time + 0.008) / 1.008 * math.pi / 2) ** 2
    return (1 - a[1:] / a[:-1]).clamp(max=0.999).float()


def rescale_zero_terminal_snr(alphas_cumprod: Tensor) -> Tensor:
    """Shift and scale sqrt(a) so that a_0 stays and a_{T-1} becomes 0: (T,) -> (T,).

    Source: Lin et al. 2024, "Common diffusion noise schedules and sample steps are flawed",
    algorithm 1.
    """
    root = alphas_cumprod.sqrt()
    return ((root - root[-1]) * root[0] / (root[0] - root[-1])) ** 2


class NoiseSchedule:
    """The numbers a_t and everything that follows from them. x0, eps and x_t are (B, ...)."""

    def __init__(self, config: ScheduleConfig | None = None):
        self.config = config = config or ScheduleConfig()
        if config.prediction_type == "epsilon" and config.rescale_betas_zero_snr:
            raise InputError(
                "rescale_betas_zero_snr needs v_prediction: in pure noise eps says nothing about x0"
            )
        self.alphas_cumprod = a = torch.cumprod(1 - make_betas(config), dim=0)  # (T,)
        if not 0 < a[-1] < a[0] < 1:
            raise InputError(
                "beta_start, beta_end and num_train_timesteps leave no signal, or add no noise"
            )
        if config.rescale_betas_zero_snr:
            self.alphas_cumprod = rescale_zero_terminal_snr(self.alphas_cumprod)

    def __len__(self) -> int:
        return self.config.num_train_timesteps

    def a(self, t: Tensor, like: Tensor) -> Tensor:
        """a_t for each of the timesteps (B,), shaped to multiply `like` (B, ...)."""
        a = self.alphas_cumprod.to(like.device)[t]
        return a.reshape(-1, *[1] * (like.dim() - 1))

    def add_noise(self, x0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """x_t ~ q(x_t | x0) for the given noise. Ho et al. 2020, equation 4."""
        a = self.a(t, like=x0)
        return a.sqrt() * x0 + (1 - a).sqrt() * eps

    def target(self, x0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """What the network learns to predict: eps, or v = sqrt(a) eps - sqrt(1 - a) x0.

        Source of v: Salimans and Ho 2022, "Progressive distillation", appendix D.
        """
        if self.config.prediction_type == "epsilon":
            return eps
        a = self.a(t, like=x0)
        return a.sqrt() * eps - (1 - a).sqrt() * x0

    def snr(self, t: Tensor) -> Tensor:
        """Signal-to-noise ratio a / (1 - a) at the timesteps (B,)."""
        a = self.alphas_cumprod.to(t.device)[t]
        return a / (1 - a)

    def timesteps(self, count: int, whole: bool = True) -> list[float]:
        """`count` timesteps from noisy to clean. Lin et al. 2024, table 2.

        whole=False leaves those of "linspace" between whole numbers. Raises InputError unless
        1 <= count <= T and every timestep is below T.
        """
        total, spacing, offset = len(self), self.config.timestep_spacing, self.config.steps_offset
        check_number("the number of steps", count, 1, total, whole=True)
        if spacing == "linspace":
            chosen = np.linspace(0, total - 1, count)[::-1]
            if not whole:
                return chosen.tolist()
            chosen = chosen.round()
        elif spacing == "leading":
            chosen = np.arange(count)[::-1] * (total // count) + offset
        else:  # "trailing"; [:count]: rounding may add one more
            chosen = np.arange(total, 0, -total / count)[:count].round() - 1
        chosen = chosen.astype(int).tolist()
        if chosen[0] >= total:
            raise InputError(f"{count} steps with an offset of {offset} pass {total}")
        return chosen


def predictions(prediction_type: str, output: Tensor, x_t: Tensor, a: Tensor):
    """The output as a guess of both (x0, eps). `a` broadcasts. Salimans and Ho 2022, appendix D."""
    if prediction_type == "epsilon":
        return (x_t - (1 - a).sqrt() * output) / a.sqrt(), output
    return a.sqrt() * x_t - (1 - a).sqrt() * output, a.sqrt() * output + (1 - a).sqrt() * x_t
