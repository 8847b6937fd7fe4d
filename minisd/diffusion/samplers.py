"""Backward: from noise to a picture. Each step is a plain function; the loop is written once.

Notation: x_t the noisy latents (B, C, H, W); x0 and eps the network's guesses of signal and noise;
a_t and a_s the values of `alphas_cumprod` now and after the step (a_s > a_t; a_s = 1 is clean).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from .schedule import NoiseSchedule, predictions

Denoiser = Callable[[Tensor, Tensor], Tensor]  # (x_t (B, C, H, W), t scalar) -> prediction, as x_t


def ddpm_step(x_t, x0, a_t, a_s, noise):
    """Draw from the posterior q(x_s | x_t, x0). Ho et al. 2020, equations 6 and 7.

    From pure noise (a_t = 0) x_t says nothing, and what is drawn depends on x0 alone.
    """
    beta = 1 - a_t / a_s
    mean = (a_s.sqrt() * beta * x0 + (a_t / a_s).sqrt() * (1 - a_s) * x_t) / (1 - a_t)
    variance = (1 - a_s) / (1 - a_t) * beta
    return mean + variance.sqrt() * noise


def ddim_step(x0, eps, a_t, a_s, eta=0.0, noise=0.0):
    """Move along the guess; eta = 0 adds no noise, eta = 1 as much as DDPM.

    Source: Song, Meng and Ermon 2021, "Denoising diffusion implicit models", equations 12 and 16.
    """
    sigma = eta * ((1 - a_s) / (1 - a_t) * (1 - a_t / a_s)).sqrt()
    rest = (1 - a_s - sigma**2).clamp(min=0)  # rounding makes it less when a_t = 0 and eta = 1
    return a_s.sqrt() * x0 + rest.sqrt() * eps + sigma * noise


def dpm_solver_step(x_t, x0, a_t, a_s, x0_before=None, a_before=None):
    """DPM-Solver++(2M): exact for the linear part, the guess of x0 extrapolated in log-SNR.

    The first step and the last one (a_s = 1) are of first order, where it equals DDIM.
    Source: Lu et al. 2022, "DPM-Solver++", algorithm 2.
    """
    guess = x0
    if x0_before is not None and a_s < 1:
        h, h_before = log_snr(a_s) - log_snr(a_t), log_snr(a_t) - log_snr(a_before)
        guess = x0 + h / (2 * h_before) * (x0 - x0_before)
    shrink = ((1 - a_s) / (1 - a_t)).sqrt()
    return shrink * x_t + (a_s.sqrt() - shrink * a_t.sqrt()) * guess


def unipc_correct(x0, a_t, x_before, x0_before, a_before, x0_older=None, a_older=None):
    """UniC: take the last step again, from x_before to a_t, now that x0 at its end is known.

    DPM-Solver's first-order step with a better guess; it costs no call of the network. With
    DPM-Solver++(2M) as predictor this is UniPC of order 2.
    Source: Zhao et al. 2023, "UniPC", algorithms 5 and 7 with B(h) = exp(h) - 1, order 1 or 2.
    """
    slope = (x0 - x0_before) / 2
    if x0_older is not None:  # a parabola through three guesses instead of a line through two
        h = log_snr(a_t) - log_snr(a_before)
        r = (log_snr(a_older) - log_snr(a_before)) / h
        phi_1 = torch.expm1(-h)
        phi_2 = -phi_1 / h - 1
        phi_3 = -phi_2 / h - 1 / 2
        rho_older = (phi_2 - 2 * phi_3) / (phi_1 * (1 - r))
        rho = phi_2 / phi_1 - rho_older
        slope = rho_older / r * (x0_older - x0_before) + rho * (x0 - x0_before)
    return dpm_solver_step(x_before, x0_before + slope, a_before, a_t)


def log_snr(a: Tensor) -> Tensor:
    """lambda = log(sqrt(a) / sqrt(1 - a)), half the logarithm of the signal-to-noise ratio."""
    return 0.5 * torch.logit(a)


class Point(NamedTuple):
    """One point of a trajectory: all that a step may look at."""

    t: int
    x_t: Tensor
    x0: Tensor
    eps: Tensor
    a_t: Tensor
    a_s: Tensor


def next_in_list(schedule: NoiseSchedule, count: int) -> list[tuple[int, int]]:
    """DDPM's pairs (t, s): s is simply the next timestep, and -1 (clean) at the end."""
    chosen = schedule.timesteps(count)
    return list(zip(chosen, [*chosen[1:], -1], strict=True))


def next_by_stride(schedule: NoiseSchedule, count: int) -> list[tuple[int, int]]:
    """DDIM's pairs (t, s) as in diffusers: s lies one stride below t, in the list or not."""
    return [(t, t - len(schedule) // count) for t in schedule.timesteps(count)]


def one_more(schedule: NoiseSchedule, count: int) -> list[tuple[int, int]]:
    """DPM-Solver's pairs as in diffusers: one timestep more, the cleanest not evaluated."""
    if schedule.config.timestep_spacing == "trailing":
        return next_in_list(schedule, count)
    if not 1 <= count < len(schedule):
        most = len(schedule) - 1
        raise ValueError(f"the number of steps must be from 1 to {most}, not {count}")
    chosen = schedule.timesteps(count + 1)[:-1]
    return list(zip(chosen, [*chosen[1:], -1], strict=True))


def guesses(points: list[Point]) -> list[Tensor]:
    """x0 and a_t of each point, as the multistep rules take them."""
    return [field for point in points for field in (point.x0, point.a_t)]


def multistep(now: Point, before: list[Point], eta: float, noise: Tensor) -> Tensor:
    """DPM-Solver++ with the guess before this one, if there is one."""
    return dpm_solver_step(now.x_t, now.x0, now.a_t, now.a_s, *guesses(before[:1]))


def corrected(now: Point, before: list[Point]) -> Point:
    """UniPC: first put right where we are, with the guess from there."""
    if not before:
        return now
    x_t = unipc_correct(now.x0, now.a_t, before[0].x_t, *guesses(before))
    return now._replace(x_t=x_t)


@dataclass(frozen=True)
class Sampler:
    """How a step is taken and where the steps lie. `before`: the points so far, the last first."""

    step: Callable[[Point, list[Point], float, Tensor], Tensor]  # now, before, eta, noise -> x_s
    pairs: Callable[[NoiseSchedule, int], list[tuple[int, int]]]
    noisy: bool = False  # needs fresh noise at every step
    least_a: float = 0.0  # stands in for a = 0, which log_snr does not know
    correct: Callable[[Point, list[Point]], Point] = lambda now, before: now


SAMPLERS = {
    "ddpm": Sampler(
        lambda now, before, eta, noise: ddpm_step(now.x_t, now.x0, now.a_t, now.a_s, noise),
        next_in_list,
        noisy=True,
    ),
    "ddim": Sampler(
        lambda now, before, eta, noise: ddim_step(now.x0, now.eps, now.a_t, now.a_s, eta, noise),
        next_by_stride,
    ),
    "dpm++": Sampler(multistep, one_more, least_a=2.0**-24),
    "unipc": Sampler(multistep, one_more, least_a=2.0**-24, correct=corrected),
}


@torch.no_grad()
def trajectory(
    denoise: Denoiser,
    schedule: NoiseSchedule,
    x_T: Tensor,
    steps: int = 20,
    sampler: str = "ddim",
    eta: float = 0.0,
    generator: torch.Generator | None = None,
) -> Iterator[tuple[Point, Tensor]]:
    """The one sampling loop: yields (point, x_s) after every step; the last x_s is the sample.

    denoise(x_t, t) gives the network's prediction; x_T (B, C, H, W) is the starting noise.
    Raises ValueError, at the first point, for an unknown sampler, steps out of range, or eta where
    it means nothing.
    """
    if sampler not in SAMPLERS:
        raise ValueError(f"sampler must be one of {', '.join(SAMPLERS)}, not {sampler!r}")
    if not 0 <= eta <= 1 or (eta and sampler != "ddim"):
        raise ValueError(f"eta must be from 0 to 1, and 0 unless the sampler is ddim, not {eta}")
    rule, x, before = SAMPLERS[sampler], x_T, []
    alphas = schedule.alphas_cumprod.to(x.device)
    alphas = alphas.masked_fill(alphas == 0, rule.least_a)
    clean = (
        alphas.new_ones(()) if sampler != "ddim" or schedule.config.set_alpha_to_one else alphas[0]
    )
    for t, s in rule.pairs(schedule, steps):
        a_t, a_s = alphas[t], alphas[s] if s >= 0 else clean
        output = denoise(x, torch.tensor(t, device=x.device))
        x0, eps = predictions(schedule.config.prediction_type, output, x, a_t)
        noise = torch.zeros(())
        if rule.noisy or eta > 0:
            where = generator.device if generator else x.device  # a CPU seed serves every device
            noise = torch.randn(x.shape, generator=generator, device=where, dtype=x.dtype)
            noise = noise.to(x.device)
        now = rule.correct(Point(t, x, x0, eps, a_t, a_s), before)
        x = rule.step(now, before, eta, noise)
        before = [now, *before[:1]]
        yield now, x


def sample(
    denoise: Denoiser,
    schedule: NoiseSchedule,
    x_T: Tensor,
    steps: int = 20,
    progress: bool = False,
    **options,
) -> Tensor:
    """Run the loop to its end: noise (B, C, H, W) -> sample (B, C, H, W). Options: `trajectory`."""
    walk = trajectory(denoise, schedule, x_T, steps, **options)
    if progress:  # it waits a moment, so that no bar stands above a wrong argument's message
        walk = tqdm(walk, total=steps, delay=0.1)
    x = x_T
    for _, x_s in walk:
        x = x_s
    return x
