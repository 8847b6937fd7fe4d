"""What all samplers share: a trajectory's points, and the methods that a sampler may override."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from .noise import draw_noise
from .schedule import NoiseSchedule, predictions

Denoiser = Callable[[Tensor, Tensor], Tensor]  # (x_t (B, C, H, W), t scalar) -> prediction, as x_t


class Point(NamedTuple):
    """One point of a trajectory: everything that the step from t to s depends on."""

    t: float  # a whole number, but for Euler's "linspace"
    s: float  # negative: clean
    x_t: Tensor
    x0: Tensor
    eps: Tensor
    a_t: Tensor
    a_s: Tensor


class Sampler:
    """What all samplers share, and what each may override. One object serves one trajectory.

    Arguments as in `trajectory`. A multistep sampler keeps earlier guesses in attributes.
    """

    takes_eta = False
    pure_noise_a = 0.0  # stands in for a_t = 0

    def __init__(self, denoise, schedule, device="cpu", eta=0.0, generator=None):
        self.denoise, self.schedule, self.eta, self.generator = denoise, schedule, eta, generator
        alphas = schedule.alphas_cumprod.to(device)
        self.alphas_cumprod = alphas.masked_fill(alphas == 0, self.pure_noise_a)

    @staticmethod
    def pairs(schedule: NoiseSchedule, steps: int) -> list[tuple[float, float]]:
        """The steps (t, s), noisiest first: s is the next timestep, and -1 at the end."""
        return consecutive(schedule.timesteps(steps))

    def begin(self, noise: Tensor, t: float) -> Tensor:
        """Pure noise N(0, 1) -> x_t of the first timestep."""
        return noise

    def noised(self, x0: Tensor, noise: Tensor, t: float) -> Tensor:
        """A clean x0 -> x_t, as `NoiseSchedule.add_noise`, but at any t that the sampler visits."""
        return x0 if t < 0 else self.a(t).sqrt() * x0 + (1 - self.a(t)).sqrt() * noise

    def a(self, t: float) -> Tensor:
        """a_t; a negative t is clean."""
        return self.alphas_cumprod[t] if t >= 0 else self.alphas_cumprod.new_ones(())

    def guess(self, x_t: Tensor, t: float) -> tuple[Tensor, Tensor]:
        """Call the network: its (x0, eps), each (B, C, H, W)."""
        output = self.denoise(x_t, torch.tensor(t, device=x_t.device))
        return predictions(self.schedule.config.prediction_type, output, x_t, self.a(t))

    def noise(self, like: Tensor) -> Tensor:
        """Fresh noise; a generator on the CPU serves every device."""
        return draw_noise(like.shape, self.generator, like.device, like.dtype)

    def correct(self, now: Point) -> Point:
        """Improve x_t, the end of the last step, given the network's guess there."""
        return now

    def step(self, now: Point) -> Tensor:
        """From x_t to x_s."""
        raise NotImplementedError


def consecutive(timesteps: list[float]) -> list[tuple[float, float]]:
    """[t1, t2, t3] -> [(t1, t2), (t2, t3), (t3, -1)]."""
    return list(zip(timesteps, [*timesteps[1:], -1], strict=True))
