"""Every sampler walks as diffusers' scheduler does: the same timesteps, the same x after each."""

from dataclasses import asdict
from itertools import product

import diffusers
import pytest
import torch
from torch.testing import assert_close

from minisd.diffusion import SAMPLERS, NoiseSchedule, ScheduleConfig, trajectory

diffusers.utils.logging.set_verbosity_error()
pytestmark = pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")  # diffusers, numpy

CLASSES = {
    "ddpm": diffusers.DDPMScheduler,
    "ddim": diffusers.DDIMScheduler,
    "dpm++": diffusers.DPMSolverMultistepScheduler,
    "unipc": diffusers.UniPCMultistepScheduler,
    "euler": diffusers.EulerDiscreteScheduler,
    "euler_ancestral": diffusers.EulerAncestralDiscreteScheduler,
    "heun": diffusers.HeunDiscreteScheduler,
    "lcm": diffusers.LCMScheduler,
}
# name of a rule: (sampler, eta)
RULES = {
    "ddpm": ("ddpm", 0.0),
    "ddim": ("ddim", 0.0),
    "ddim, eta 0.5": ("ddim", 0.5),
    "ddim, eta 1": ("ddim", 1.0),
    "dpm++": ("dpm++", 0.0),
    "unipc": ("unipc", 0.0),
    "euler": ("euler", 0.0),
    "euler_ancestral": ("euler_ancestral", 0.0),
    "heun": ("heun", 0.0),
    "lcm": ("lcm", 0.0),
}
# what the network predicts, and whether the last step is pure noise
PREDICTIONS = {
    "epsilon": {"prediction_type": "epsilon", "rescale_betas_zero_snr": False},
    "v": {"prediction_type": "v_prediction", "rescale_betas_zero_snr": False},
    "v, zero SNR": {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True},
}
PAIRS = [pair for pair in product(RULES, PREDICTIONS) if pair != ("heun", "v, zero SNR")]
SPACINGS = ["leading", "linspace", "trailing"]
BETAS = ["linear", "scaled_linear", "cosine"]


def both(sampler, **options):
    """Our schedule, and diffusers' scheduler with the same options."""
    schedule = NoiseSchedule(ScheduleConfig(**options))
    options = asdict(schedule.config) | {"clip_sample": False}
    if options["beta_schedule"] == "cosine":
        options["beta_schedule"] = "squaredcos_cap_v2"
    return schedule, CLASSES[sampler].from_config(options)


def denoise(x, t):
    """Not a network, but as unlinear and as different from one timestep to the next."""
    return torch.sin(1.5 * x + 0.003 * t) - 0.3 * x.roll(1, dims=-1)


SIGMA_SPACE = ("euler", "euler_ancestral", "heun")  # diffusers' x is there ours / sqrt(a)


def unit(scheduler, x):
    """Latents of such a scheduler, in our scaling."""
    return x / (scheduler.sigmas[scheduler.step_index] ** 2 + 1) ** 0.5


def compare(rule, steps, tolerance=5e-5, **options):
    """Walk beside diffusers from the same noise, with the same noise at every step."""
    sampler, eta = RULES[rule]
    schedule, scheduler = both(sampler, **options)
    scheduler.set_timesteps(steps)
    ours, theirs = (torch.Generator().manual_seed(1) for _ in range(2))
    noise = torch.randn(2, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    walk = trajectory(denoise, schedule, noise, steps, sampler, eta, ours)
    extra = {"eta": eta} if sampler == "ddim" else {}
    if sampler in ("ddpm", "ddim", "euler_ancestral", "lcm"):
        extra["generator"] = theirs
    if sampler in SIGMA_SPACE:  # diffusers' float32 rounds x / sqrt(a), which is as large as sigma
        tolerance += 1e-6 * scheduler.sigmas.max().item()
    expected, times = noise * scheduler.init_noise_sigma, iter(scheduler.timesteps)
    for now, x in walk:
        t = next(times)
        assert now.t == pytest.approx(t.item(), rel=1e-6)
        output = denoise(scheduler.scale_model_input(expected, t), t)
        expected = scheduler.step(output, t, expected, **extra).prev_sample
        if sampler == "heun" and now.s >= 0:  # its second half
            t = next(times)
            output = denoise(scheduler.scale_model_input(expected, t), t)
            expected = scheduler.step(output, t, expected).prev_sample
        if eta == 1 and now.a_t < 1e-6:  # the root of a tiny negative number is NaN in diffusers
            expected = torch.where(expected.isnan(), x, expected)
        reached = unit(scheduler, expected) if sampler in SIGMA_SPACE else expected
        size = reached.abs().max().clamp(min=1)  # the guess of x0 is huge where a_t is tiny
        assert_close(x / size, reached / size, atol=tolerance, rtol=0)
    assert next(times, None) is None


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize(("rule", "prediction"), PAIRS)
def test_every_step_equals_that_of_diffusers(rule, prediction, spacing):
    options = PREDICTIONS[prediction] | {"timestep_spacing": spacing}
    for betas in BETAS:
        for steps in (1, 2, 7, 20):
            compare(rule, steps, beta_schedule=betas, **options)
    compare(rule, 50, beta_schedule="scaled_linear", **options)


@pytest.mark.parametrize("steps", [2, 7, 50])
@pytest.mark.parametrize("rule", RULES)
def test_steps_offset_moves_the_timesteps_as_in_diffusers(rule, steps):
    options = PREDICTIONS["v" if rule == "heun" else "v, zero SNR"]
    compare(rule, steps, steps_offset=1, timestep_spacing="leading", **options)


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("eta", ["ddim", "ddim, eta 1"])
def test_ddim_may_end_at_the_first_alpha_as_in_diffusers(eta, prediction, spacing):
    options = PREDICTIONS[prediction] | {"timestep_spacing": spacing, "set_alpha_to_one": False}
    for betas in BETAS:
        for offset in (0, 1) if spacing == "leading" else (0,):
            compare(eta, 7, beta_schedule=betas, steps_offset=offset, **options)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_all_thousand_steps_of_ddpm_equal_those_of_diffusers(prediction):
    compare("ddpm", 1000, **PREDICTIONS[prediction])


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("sampler", CLASSES)
def test_timesteps_are_those_of_diffusers_whatever_their_number(sampler, spacing):
    schedule, scheduler = both(sampler, timestep_spacing=spacing, steps_offset=0)
    for steps in range(1, 51 if sampler == "lcm" else 1000):
        scheduler.set_timesteps(steps)
        theirs = scheduler.timesteps
        if sampler == "heun":  # each but the first twice
            theirs = torch.cat([theirs[:1], theirs[1::2]])
        theirs = theirs[:steps]  # rounding makes diffusers add -1 for 61, 103, 121 ...
        ours = torch.tensor([t for t, _ in SAMPLERS[sampler].pairs(schedule, steps)])
        assert torch.equal(ours, theirs.to(ours.dtype)), f"{steps} steps"


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("betas", BETAS)
def test_noise_and_velocity_are_those_of_diffusers(betas, prediction):
    schedule, scheduler = both("ddpm", beta_schedule=betas, **PREDICTIONS[prediction])
    t = torch.arange(1000)
    x0, eps = torch.randn(2, 1000, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    assert_close(schedule.add_noise(x0, eps, t), scheduler.add_noise(x0, eps, t), atol=5e-5, rtol=0)
    velocity = scheduler.get_velocity(x0, eps, t)
    target = eps if prediction == "epsilon" else velocity
    assert_close(schedule.target(x0, eps, t), target, atol=5e-5, rtol=0)
