"""A picture in: what stays of it, the noise that it came from, and what another prompt changes."""

from collections.abc import Callable

import torch
from torch import Tensor

from .noise import Generators
from .sampler import Denoiser, Point
from .samplers import SAMPLERS
from .schedule import NoiseSchedule


def inpaint(x0: Tensor, noise: Tensor, mask: Tensor) -> Callable[[Point, Tensor], Tensor]:
    """A callback for `trajectory`: outside the mask, every step ends in the noised original.

    x0 and noise (B, C, H, W); mask (B, 1, H, W), 1 where something new is drawn. Source: Lugmayr et
    al. 2022, "RePaint", equation 8, without its resampling.
    """

    def after(now: Point, x_s: Tensor) -> Tensor:
        original = x0 if now.s < 0 else now.a_s.sqrt() * x0 + (1 - now.a_s).sqrt() * noise
        return mask * x_s + (1 - mask) * original

    return after


def ddim_step_back(x_s: Tensor, v: Tensor, a_t: Tensor, a_s: Tensor) -> Tensor:
    """The x_t from which `ddim_step` leads to x_s, if the network's answer there, as v, is known.

    x_t = cos(angle) x0 + sin(angle) eps, with a = cos(angle)^2, and DDIM turns it by the difference
    d of two angles: x_s = cos(d) x_t - sin(d) v. Salimans and Ho 2022, appendix D.
    """
    cos_d = (a_t * a_s).sqrt() + ((1 - a_t) * (1 - a_s)).sqrt()
    sin_d = ((1 - a_t) * a_s).sqrt() - (a_t * (1 - a_s)).sqrt()
    return (x_s + sin_d * v) / cos_d


@torch.no_grad()
def invert(
    denoise: Denoiser,
    schedule: NoiseSchedule,
    x0: Tensor,
    steps: int = 50,
    start: int = 0,
    repeats: int = 3,
) -> Tensor:
    """The latents from which DDIM draws x0: its steps, taken backwards, up to the one at `start`.

    denoise, steps and start as in `trajectory`; x0 and the result (B, C, H, W). A step back to x_t
    needs the network's answer at x_t, which is not known yet. The answer at x_s stands in for it,
    then that at the x_t so found, `repeats` times in all. Sources: Song, Meng and Ermon 2021,
    section 4.3; Pan et al. 2023, "Effective real image editing with accelerated iterative diffusion
    inversion", for the repeats.
    """
    solver = SAMPLERS["ddim"](denoise, schedule, x0.device)
    x = x0
    for t, s in reversed(solver.pairs(schedule, steps)[start:]):
        a_t, a_s, x_s = solver.a(t), solver.a(s), x
        for _ in range(repeats):
            guess, eps = solver.guess(x, t)
            v = a_t.sqrt() * eps - (1 - a_t).sqrt() * guess
            x = ddim_step_back(x_s, v, a_t, a_s)
    return x


@torch.no_grad()
def flow_edit(
    old: Denoiser,
    new: Denoiser,
    schedule: NoiseSchedule,
    x0: Tensor,
    steps: int = 50,
    start: int = 0,
    repeats: int = 2,
    generator: Generators = None,
) -> Tensor:
    """x0 (B, C, H, W), changed by what two denoisers' guesses of it differ in.

    Instead of a picture, DDIM draws the difference of two: at each step both are put under the same
    fresh noise, `repeats` times, and each denoiser guesses its own. steps and start as in
    `trajectory`. Source: Kulikov et al. 2024, "FlowEdit: inversion-free text-based editing using
    pre-trained flow models", algorithm 1, whose noise level is sigma / (alpha + sigma) here.
    """
    before, after = (SAMPLERS["ddim"](d, schedule, x0.device, 0, generator) for d in (old, new))

    def level(t: float) -> tuple[Tensor, Tensor]:
        alpha, sigma = after.a(t).sqrt(), (1 - after.a(t)).sqrt()
        return alpha + sigma, sigma / (alpha + sigma)

    edit = torch.zeros_like(x0)
    for t, s in after.pairs(schedule, steps)[start:]:
        (size, level_t), (_, level_s) = level(t), level(s)
        change = torch.zeros_like(x0)
        for _ in range(repeats):
            x_t = after.noised(x0, after.noise(x0), t)
            change += after.guess(x_t + size * edit, t)[0] - before.guess(x_t, t)[0]
        left = level_s / level_t
        edit = left * edit + (1 - left) * change / repeats  # (B, C, H, W)
    return x0 + edit
