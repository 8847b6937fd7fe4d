"""Sampling: from noise to a picture. Each sampler is an equation and a class; the loop is shared.

Notation: x_t the noisy latents (B, C, H, W); x0 and eps the network's guesses of signal and noise;
a_t and a_s the values of `alphas_cumprod` before and after the step (a_s > a_t; a_s = 1 is clean).
To add a sampler, write its class and give it a name in SAMPLERS.
"""

from collections.abc import Callable, Iterator
from numbers import Real

import torch
from torch import Tensor
from tqdm import tqdm

from ..errors import InputError, check_choice, check_number, quote
from .noise import Generators
from .sampler import Denoiser, Point, Sampler, consecutive
from .schedule import NoiseSchedule, predictions


def ddpm_step(x_t, x0, a_t, a_s, noise):
    """Draw from the posterior q(x_s | x_t, x0). Ho et al. 2020, equations 6 and 7.

    From pure noise (a_t = 0) x_t says nothing, and the draw depends on x0 alone.
    """
    beta = 1 - a_t / a_s
    mean = (a_s.sqrt() * beta * x0 + (a_t / a_s).sqrt() * (1 - a_s) * x_t) / (1 - a_t)
    variance = (1 - a_s) / (1 - a_t) * beta
    return mean + variance.sqrt() * noise


class DDPM(Sampler):
    """Ho et al. 2020, "Denoising diffusion probabilistic models", algorithm 2."""

    def step(self, now):
        return ddpm_step(now.x_t, now.x0, now.a_t, now.a_s, self.noise(now.x_t))


def ddim_step(x0, eps, a_t, a_s, eta=0.0, noise=0.0):
    """Mix x0 and eps again, now for a_s; eta = 0 adds no noise, eta = 1 as much as DDPM.

    With eta = 0 the step may also lead from clean to noisy (inversion).
    Source: Song, Meng and Ermon 2021, "Denoising diffusion implicit models", equations 12 and 16.
    """
    # not computed without eta: in inversion it would be the root of a negative number
    sigma = eta * ((1 - a_s) / (1 - a_t) * (1 - a_t / a_s)).sqrt() if eta else 0.0
    rest = (1 - a_s - sigma**2).clamp(min=0)  # rounding makes it negative at a_t = 0 and eta = 1
    return a_s.sqrt() * x0 + rest.sqrt() * eps + sigma * noise


class DDIM(Sampler):
    """Song, Meng and Ermon 2021, equation 12."""

    takes_eta = True

    @staticmethod
    def pairs(schedule, steps):
        """As in diffusers: s lies a stride of T // steps below t, whether or not it is visited.

        In "linspace" it is not: the timesteps lie (T - 1) / (steps - 1) apart, and each step but
        the last removes a little too little noise. Euler goes from each to the next.
        """
        return [(t, t - len(schedule) // steps) for t in schedule.timesteps(steps)]

    def a(self, t):
        """Stable Diffusion 1.x ends at a_0, not at 1: its set_alpha_to_one is False."""
        return super().a(t if self.schedule.config.set_alpha_to_one else max(t, 0))

    def step(self, now):
        noise = self.noise(now.x_t) if self.eta else 0.0
        return ddim_step(now.x0, now.eps, now.a_t, now.a_s, self.eta, noise)


def log_snr(a: Tensor) -> Tensor:
    """lambda = log(sqrt(a) / sqrt(1 - a)), half the logarithm of the signal-to-noise ratio."""
    return 0.5 * torch.logit(a)


def dpm_solver_step(x_t, x0, a_t, a_s, x0_before=None, a_before=None):
    """DPM-Solver++(2M): exact in the linear part, with x0 extrapolated linearly in log-SNR.

    The first step and the last one (a_s = 1) are of first order, where it equals DDIM.
    Source: Lu et al. 2022, "DPM-Solver++", algorithm 2.
    """
    guess = x0
    if x0_before is not None and a_s < 1:
        h, h_before = log_snr(a_s) - log_snr(a_t), log_snr(a_t) - log_snr(a_before)
        guess = x0 + h / (2 * h_before) * (x0 - x0_before)
    shrink = ((1 - a_s) / (1 - a_t)).sqrt()
    return shrink * x_t + (a_s.sqrt() - shrink * a_t.sqrt()) * guess


class DPMSolver2M(Sampler):
    """Lu et al. 2022, algorithm 2: second order from one call of the network a step."""

    pure_noise_a = 2.0**-24  # log_snr(0) is minus infinity
    last: Point | None = None  # where the last step began

    @staticmethod
    def pairs(schedule, steps):
        """As in diffusers: one timestep more is chosen, and the cleanest left out."""
        if schedule.config.timestep_spacing == "trailing":
            return Sampler.pairs(schedule, steps)
        check_number("the number of steps", steps, 1, len(schedule) - 1, whole=True)
        return consecutive(schedule.timesteps(steps + 1)[:-1])

    def step(self, now):
        before = (self.last.x0, self.last.a_t) if self.last else ()
        self.last = now
        return dpm_solver_step(now.x_t, now.x0, now.a_t, now.a_s, *before)


def unipc_correct(x0, a_t, x_before, x0_before, a_before, x0_older=None, a_older=None):
    """UniC: take the last step again, from x_before to a_t, now that x0 at its end is known.

    DPM-Solver's first-order step with a better guess; it costs no call of the network.
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


class UniPC(DPMSolver2M):
    """Zhao et al. 2023: predict as DPM-Solver++(2M), then correct; of order 2."""

    older = x_s = None  # where the step before the last one began, and where the last one ended

    def correct(self, now):
        if now.x_t is not self.x_s:  # the first point, or a callback put other latents there
            return now
        last, older = self.last, (self.older.x0, self.older.a_t) if self.older else ()
        x_t = unipc_correct(now.x0, now.a_t, last.x_t, last.x0, last.a_t, *older)
        return now._replace(x_t=x_t)

    def step(self, now):
        self.older = self.last
        self.x_s = super().step(now)
        return self.x_s


class Euler(Sampler):
    """Karras et al. 2022, "Elucidating the design space", algorithm 1 without its second half.

    In x / sqrt(a) the signal keeps its size, and the noise has the deviation sigma =
    sqrt((1 - a) / a). There the probability flow is dx/dsigma = eps, and Euler's step along it,
    x + (sigma_s - sigma_t) eps = x0 + sigma_s eps, is that of DDIM with eta = 0. What differs is
    as in diffusers: where the steps lead, and the size of the noise at the start.
    """

    pure_noise_a = 2.0**-24  # sigma would be infinite

    @staticmethod
    def pairs(schedule, steps):
        """From each timestep to the next; those of "linspace" are not rounded."""
        return consecutive(schedule.timesteps(steps, whole=False))

    def begin(self, noise, t):
        """As large as the noise in x_t; in "leading" as large as all of x_t."""
        leading = self.schedule.config.timestep_spacing == "leading"
        return noise if leading else (1 - self.a(t)).sqrt() * noise

    def a(self, t):
        """Between two timesteps sigma is interpolated."""
        if t < 0 or t == int(t):
            return super().a(int(t))
        a = self.alphas_cumprod[int(t) : int(t) + 2]
        sigma = torch.lerp(*((1 - a) / a).sqrt(), t - int(t))
        return 1 / (1 + sigma**2)

    def step(self, now):
        return ddim_step(now.x0, now.eps, now.a_t, now.a_s)


class EulerAncestral(Euler):
    """Euler's step to less noise than there is at s, and fresh noise for the rest.

    k-diffusion's split of sigma_s into sigma_down and sigma_up is DDIM's with eta = 1, or DDPM's.
    Source: Song et al. 2021, "Score-based generative modeling", appendix F.
    """

    def step(self, now):
        return ddim_step(now.x0, now.eps, now.a_t, now.a_s, 1.0, self.noise(now.x_t))


class Heun(Euler):
    """Karras et al. 2022, algorithm 1: of second order, from two calls of the network a step."""

    pure_noise_a = 0.0  # sigma is infinite, and the step from there is Euler's

    def step(self, now):
        x_s = super().step(now)
        if now.a_t == 0 or now.a_s == 1:  # at sigma_s = 0 the slope is 0 / 0
            return x_s
        _, eps_s = self.guess(x_s, now.s)
        slope = (now.eps + eps_s) / 2
        x0, _ = predictions("epsilon", slope, now.x_t, now.a_t)
        return ddim_step(x0, slope, now.a_t, now.a_s)


class LCM(Sampler):
    """For a model that jumps to the end: guess x0, add fresh noise, guess again.

    Song et al. 2023, "Consistency models", algorithm 1, from a few of the 50 timesteps that such a
    model learns (Luo et al. 2023, "Latent consistency models"), whatever the schedule's spacing.
    """

    @staticmethod
    def pairs(schedule, steps):
        check_number("the number of steps", steps, 1, 50, whole=True)
        check_number("num_train_timesteps", len(schedule), 50, whole=True)
        known = [len(schedule) // 50 * i - 1 for i in range(50, 0, -1)]  # noisiest first
        return consecutive([known[i * 50 // steps] for i in range(steps)])

    def step(self, now):
        return now.a_s.sqrt() * now.x0 + (1 - now.a_s).sqrt() * self.noise(now.x_t)


SAMPLERS = {
    "ddpm": DDPM,
    "ddim": DDIM,
    "dpm++": DPMSolver2M,
    "unipc": UniPC,
    "euler": Euler,
    "euler_ancestral": EulerAncestral,
    "heun": Heun,
    "lcm": LCM,
}


@torch.no_grad()
def trajectory(
    denoise: Denoiser,
    schedule: NoiseSchedule,
    x_T: Tensor,
    steps: int = 20,
    sampler: str = "ddim",
    eta: float = 0.0,
    generator: Generators = None,
    start: int = 0,
    x0: Tensor | None = None,
    callback: Callable[[Point, Tensor], Tensor | None] | None = None,
) -> Iterator[tuple[Point, Tensor]]:
    """The one sampling loop: yields (point, x_s) after every step; the last x_s is the sample.

    denoise(x_t, t) -> the network's prediction; x_T (B, C, H, W): the starting noise. eta, from 0
    to 1: how much noise DDIM adds. start: the index of the first step taken. x0 (B, C, H, W): what
    lies under the noise there (SDEdit: Meng et al. 2022); without it, x_T is noise at step 0, and
    later what it is to start from, noised already. callback(point, x_s): called after every step;
    latents that it returns replace x_s. Raises InputError, at the first point, for an unknown
    sampler, steps or start out of range, or a sampler that takes no eta.
    """
    check_choice("sampler", sampler, SAMPLERS)
    if not isinstance(eta, Real) or not 0 <= eta <= (1 if SAMPLERS[sampler].takes_eta else 0):
        names = " or ".join(name for name, kind in SAMPLERS.items() if kind.takes_eta)
        found = f"and 0 unless the sampler is {names}, not {quote(eta)}"
        raise InputError(f"eta must be from 0 to 1, {found}")
    pairs = SAMPLERS[sampler].pairs(schedule, steps)
    check_number("start", start, 0, steps, whole=True)
    solver = SAMPLERS[sampler](denoise, schedule, x_T.device, eta, generator)
    t = pairs[start][0] if start < steps else -1
    if x0 is not None:
        x = solver.noised(x0, x_T, t)
    else:
        x = x_T if start else solver.begin(x_T, t)
    for t, s in pairs[start:]:
        guesses = solver.guess(x, t)
        now = solver.correct(Point(t, s, x, *guesses, solver.a(t), solver.a(s)))
        x = solver.step(now)
        replaced = callback(now, x) if callback else None
        x = x if replaced is None else replaced
        yield now, x


def sample(denoise, schedule, x_T, steps=20, progress=False, start=0, **options) -> Tensor:
    """Run `trajectory` with these arguments to its end: the sample (B, C, H, W)."""
    walk = trajectory(denoise, schedule, x_T, steps, start=start, **options)
    if progress:  # the delay keeps the bar from appearing above an error message
        walk = tqdm(walk, total=steps - start, delay=0.1)
    x = x_T if options.get("x0") is None else options["x0"]  # if no step is taken
    for _, x_s in walk:
        x = x_s
    return x
