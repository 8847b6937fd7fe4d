"""The way back, where the truth is known: data x0 ~ N(MEAN, STD^2), whose denoiser is a formula.

For such data x_t ~ N(sqrt(a) MEAN, a STD^2 + 1 - a), and the probability flow, which DDIM and
DPM-Solver++ follow, keeps every point at its own number of standard deviations.
"""

from itertools import pairwise

import pytest
import torch
from torch.testing import assert_close

from minisd.diffusion import (
    SAMPLERS,
    NoiseSchedule,
    Point,
    ScheduleConfig,
    ddim_step,
    ddpm_step,
    dpm_solver_step,
    sample,
    trajectory,
)
from minisd.diffusion.samplers import log_snr
from minisd.errors import InputError

MEAN, STD = 0.7, 2.0
SCHEDULE = NoiseSchedule()  # zero SNR at the end, so that x_T is N(0, 1) exactly


def denoiser(schedule):
    """The expected v or eps, given x_t."""

    def denoise(x, t):
        a = schedule.alphas_cumprod[t]
        gain = STD**2 * a.sqrt() / (a * STD**2 + 1 - a)
        x0 = MEAN + gain * (x - a.sqrt() * MEAN)
        eps = (x - a.sqrt() * x0) / (1 - a).sqrt()
        return schedule.target(x0[None], eps[None], t[None])[0]

    return denoise


def start(count=4096, seed=0):
    return torch.randn(count, 1, 1, 1, generator=torch.Generator().manual_seed(seed))


def error(sampler, steps):
    """Root mean square distance from where the exact flow ends."""
    x_T = start()
    exact = MEAN + STD * x_T
    ends = sample(denoiser(SCHEDULE), SCHEDULE, x_T, steps=steps, sampler=sampler)
    return (ends - exact).square().mean().sqrt().item()


@pytest.mark.parametrize("sampler", ["ddim", "dpm++", "unipc", "euler"])
def test_more_steps_come_closer_to_the_exact_flow(sampler):
    errors = [error(sampler, steps) for steps in (5, 10, 20, 40, 100, 250)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.02


def test_ddim_is_of_first_order():
    assert 1.7 < error("ddim", 20) / error("ddim", 40) < 2.3  # twice the steps, half the error


def test_dpm_solver_at_ten_steps_is_better_than_ddim_at_twenty():
    assert error("dpm++", 10) < 0.3 * error("ddim", 10)
    assert error("dpm++", 10) < error("ddim", 20)


def test_unipc_corrects_what_dpm_solver_predicts():
    for steps in (8, 16, 32):
        assert error("unipc", steps) < 0.8 * error("dpm++", steps)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
@pytest.mark.parametrize(
    ("sampler", "eta", "steps"),
    [
        ("ddpm", 0.0, 250),
        ("ddim", 0.0, 100),
        ("ddim", 1.0, 250),
        ("dpm++", 0.0, 50),
        ("unipc", 0.0, 50),
        ("euler", 0.0, 100),
        ("euler_ancestral", 0.0, 250),
        ("heun", 0.0, 50),
    ],
)
def test_samples_have_the_mean_and_the_spread_of_the_data(sampler, eta, steps, kind):
    schedule = NoiseSchedule(
        ScheduleConfig(prediction_type=kind, rescale_betas_zero_snr=kind == "v_prediction")
    )
    g = torch.Generator().manual_seed(1)
    options = {"sampler": sampler, "eta": eta, "steps": steps, "generator": g}
    x = sample(denoiser(schedule), schedule, start(), **options)
    assert abs(x.mean() - MEAN) < 0.15  # without zero SNR, x_T should not quite be N(0, 1)
    assert abs(x.std() - STD) < 0.15


# What the steps say of one another


def numbers(*values):
    return [torch.tensor(value) for value in values]


def test_a_ddpm_step_draws_from_the_product_of_two_gaussians():
    """Bayes: q(x_s | x_t, x0) is proportional to q(x_t | x_s) q(x_s | x0)."""
    a_t, a_s, x0, x_t = numbers(0.5, 0.8, 0.3, -1.2)
    keep = a_t / a_s  # x_t = sqrt(keep) x_s + sqrt(1 - keep) noise
    precision = keep / (1 - keep) + 1 / (1 - a_s)
    mean = (keep.sqrt() * x_t / (1 - keep) + a_s.sqrt() * x0 / (1 - a_s)) / precision
    assert_close(ddpm_step(x_t, x0, a_t, a_s, torch.tensor(0.0)), mean)
    noisy = ddpm_step(x_t, x0, a_t, a_s, torch.tensor(1.0))
    assert_close(noisy - mean, precision**-0.5)


def test_one_ddim_step_with_eta_1_is_one_ddpm_step():
    a_t, a_s, x0, eps, noise = numbers(0.4, 0.7, 0.3, -1.2, 0.8)
    x_t = a_t.sqrt() * x0 + (1 - a_t).sqrt() * eps
    assert_close(ddim_step(x0, eps, a_t, a_s, 1.0, noise), ddpm_step(x_t, x0, a_t, a_s, noise))


@pytest.mark.parametrize("zero_snr", [False, True])
@pytest.mark.parametrize("steps", [50, 10])
def test_ddim_with_eta_1_is_ddpm_all_the_way(steps, zero_snr):
    schedule = NoiseSchedule(
        ScheduleConfig(num_train_timesteps=50, rescale_betas_zero_snr=zero_snr)
    )

    def walk(sampler, eta):
        g = torch.Generator().manual_seed(1)
        steps_taken = trajectory(denoise, schedule, start(64), steps, sampler, eta, g)
        return torch.stack([x for _, x in steps_taken])

    def denoise(x, t):
        return torch.sin(2 * x + 0.1 * t)

    assert_close(walk("ddim", 1.0), walk("ddpm", 0.0), atol=1e-3, rtol=0)


def test_ddim_with_eta_1_starts_from_pure_noise_whatever_the_rounding():
    """1 - a_s - sigma^2 is 0 there, but for float32 it was a tiny minus, and its root no number."""
    x0, eps, noise = torch.randn(3, 8)
    for a_s in SCHEDULE.alphas_cumprod[:-1]:
        x = ddim_step(x0, eps, SCHEDULE.alphas_cumprod[-1], a_s, 1.0, noise)
        expected = a_s.sqrt() * x0 + (1 - a_s).sqrt() * noise
        assert_close(x, expected, atol=2e-3, rtol=0)


# Karras et al. write x / sqrt(a), whose noise has the deviation sigma = sqrt((1 - a) / a)


def one_step(sampler, denoise, t, s):
    """(x, x after the step, sigma_t, sigma_s, noise drawn), x in their scaling, in float64."""
    schedule = NoiseSchedule(ScheduleConfig(rescale_betas_zero_snr=False))
    schedule.alphas_cumprod = schedule.alphas_cumprod.double()
    g, again = (torch.Generator().manual_seed(3) for _ in range(2))
    solver = SAMPLERS[sampler](denoise, schedule, generator=g)
    x_t, noise = torch.randn(8).double(), torch.randn(8, generator=again, dtype=torch.float64)
    x0, eps = solver.guess(x_t, t)
    x_s = solver.step(Point(t, s, x_t, x0, eps, solver.a(t), solver.a(s)))
    a_t, a_s = schedule.alphas_cumprod[[t, s]]
    sigmas = ((1 - a_t) / a_t).sqrt(), ((1 - a_s) / a_s).sqrt()
    return x_t / a_t.sqrt(), x_s / a_s.sqrt(), *sigmas, noise


def v_for(D):
    """A network's v whose guess of x0 is D(x, sigma), x in Karras et al.'s scaling."""

    def denoise(x_t, t):
        a = NoiseSchedule(ScheduleConfig(rescale_betas_zero_snr=False)).alphas_cumprod[t].double()
        x0 = D(x_t / a.sqrt(), ((1 - a) / a).sqrt())
        return (a.sqrt() * x_t - x0) / (1 - a).sqrt()

    return denoise


def D(x, sigma):
    return torch.sin(x) / (1 + sigma)


def test_euler_and_heun_step_as_in_algorithm_1_of_karras():
    x, euler, sigma_t, sigma_s, _ = one_step("euler", v_for(D), 700, 300)
    d = (x - D(x, sigma_t)) / sigma_t
    assert_close(euler, x + (sigma_s - sigma_t) * d)
    x, heun, sigma_t, sigma_s, _ = one_step("heun", v_for(D), 700, 300)
    d = (x - D(x, sigma_t)) / sigma_t
    trial = x + (sigma_s - sigma_t) * d
    d_s = (trial - D(trial, sigma_s)) / sigma_s
    assert_close(heun, x + (sigma_s - sigma_t) * (d + d_s) / 2)


def test_euler_ancestral_steps_down_and_adds_noise_as_in_k_diffusion():
    x, reached, sigma_t, sigma_s, noise = one_step("euler_ancestral", v_for(D), 700, 300)
    up = (sigma_s**2 * (sigma_t**2 - sigma_s**2) / sigma_t**2).sqrt()
    down = (sigma_s**2 - up**2).sqrt()
    d = (x - D(x, sigma_t)) / sigma_t
    assert_close(reached, x + (down - sigma_t) * d + up * noise)


@pytest.mark.parametrize("sampler", ["euler", "euler_ancestral", "heun"])
def test_euler_begins_with_the_noise_that_is_in_x_t(sampler):
    """As in diffusers; in "leading" it is as large as all of x_t. A late start has its x_t."""
    x = start(2)
    for spacing in ("linspace", "leading"):
        plain = ScheduleConfig(rescale_betas_zero_snr=False, timestep_spacing=spacing)
        schedule = NoiseSchedule(plain)
        options = {"steps": 4, "sampler": sampler}
        (first, _), *_ = trajectory(lambda x, t: 0 * x, schedule, x, **options)
        share = (1 - first.a_t).sqrt() if spacing == "linspace" else 1.0
        assert torch.equal(first.x_t, share * x) and first.a_t > 1e-3
        (late, _), *_ = trajectory(lambda x, t: 0 * x, schedule, x, start=2, **options)
        assert torch.equal(late.x_t, x)


def test_between_two_timesteps_sigma_is_interpolated():
    solver = SAMPLERS["euler"](None, SCHEDULE)
    a = SCHEDULE.alphas_cumprod
    assert solver.a(200) == a[200] and solver.a(200.0) == a[200] and solver.a(-1) == 1
    sigma = ((1 - a) / a).sqrt()
    between = solver.a(200.25)
    assert_close(((1 - between) / between).sqrt(), 0.75 * sigma[200] + 0.25 * sigma[201])


def test_log_snr_is_the_logarithm_of_signal_over_noise():
    a = torch.tensor([0.1, 0.5, 0.99])
    assert_close(log_snr(a), torch.log(a.sqrt() / (1 - a).sqrt()))


def test_the_first_step_of_dpm_solver_is_that_of_ddim():
    a_t, a_s, x0, eps = numbers(0.4, 0.7, 0.3, -1.2)
    x_t = a_t.sqrt() * x0 + (1 - a_t).sqrt() * eps
    assert_close(dpm_solver_step(x_t, x0, a_t, a_s), ddim_step(x0, eps, a_t, a_s))


def test_the_last_step_of_every_sampler_ends_at_its_guess():
    a_t, one, x0, eps, noise = numbers(0.9, 1.0, 0.3, -1.2, 0.8)
    x_t = a_t.sqrt() * x0 + (1 - a_t).sqrt() * eps
    assert_close(ddpm_step(x_t, x0, a_t, one, noise), x0)
    assert_close(ddim_step(x0, eps, a_t, one), x0)
    assert_close(dpm_solver_step(x_t, x0, a_t, one, 0.5 * x0, 0.5 * a_t), x0)


@pytest.mark.parametrize("a_s", [0.0, 0.3, 0.9999])
def test_ddim_steps_backward_too_from_clean_to_noisy(a_s):
    """As inversion does: eta is 0, and x_t may be clean."""
    x0, eps = torch.randn(2, 8, generator=torch.Generator().manual_seed(0))
    a_s, one = numbers(a_s, 1.0)
    expected = a_s.sqrt() * x0 + (1 - a_s).sqrt() * eps
    assert torch.equal(ddim_step(x0, eps, one, a_s), expected)
    assert torch.equal(ddim_step(x0, eps, torch.tensor(1 - 1e-5), a_s), expected)


def test_lcm_visits_every_nth_of_the_fifty_timesteps_that_its_model_knows():
    pairs = SAMPLERS["lcm"].pairs
    assert pairs(SCHEDULE, 1) == [(999, -1)]
    assert pairs(SCHEDULE, 4) == [(999, 759), (759, 499), (499, 259), (259, -1)]
    assert [t for t, _ in pairs(SCHEDULE, 50)] == list(range(999, 0, -20))
    short = NoiseSchedule(ScheduleConfig(num_train_timesteps=49))
    for schedule, steps, named in ((SCHEDULE, 51, "steps"), (short, 1, "num_train_timesteps")):
        with pytest.raises(InputError, match=named):
            pairs(schedule, steps)


# The loop


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_loop_goes_from_noise_to_clean_and_each_step_starts_where_the_last_ended(sampler):
    """But for UniPC, which first corrects where the last step ended."""
    x = start(2)
    walk = list(trajectory(denoiser(SCHEDULE), SCHEDULE, x, steps=8, sampler=sampler))
    assert len(walk) == 8
    assert all(now.a_t < now.a_s for now, _ in walk)
    assert walk[0][0].t == 999 and walk[-1][0].a_s == 1
    assert torch.equal(walk[0][0].x_t, x)
    for (_, reached), (now, _) in pairwise(walk):
        assert torch.equal(now.x_t, reached) == (sampler != "unipc")


@pytest.mark.parametrize(
    ("sampler", "eta"), [("ddpm", 0.0), ("ddim", 0.5), ("euler_ancestral", 0.0), ("lcm", 0.0)]
)
def test_a_noisy_sampler_is_repeated_by_its_seed_and_by_no_other(sampler, eta):
    def run(seed):
        g = torch.Generator().manual_seed(seed)
        options = {"sampler": sampler, "eta": eta, "steps": 5, "generator": g}
        return sample(denoiser(SCHEDULE), SCHEDULE, start(8), **options)

    assert torch.equal(run(1), run(1))
    assert not torch.equal(run(1), run(2))


@pytest.mark.parametrize("sampler", ["ddim", "dpm++", "unipc", "euler", "heun"])
def test_the_other_samplers_draw_no_noise(sampler):
    g = torch.Generator().manual_seed(0)
    before = g.get_state()
    sample(denoiser(SCHEDULE), SCHEDULE, start(8), steps=3, sampler=sampler, generator=g)
    assert torch.equal(g.get_state(), before)


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("begin", [1, 4, 7])
def test_a_walk_can_start_late(sampler, begin):
    """At the timestep that `pairs` names; the first step of a multistep sampler is of order 1."""
    options = {"steps": 8, "sampler": sampler}
    x = start(4)
    late = list(trajectory(denoiser(SCHEDULE), SCHEDULE, x, start=begin, **options))
    assert [(now.t, now.s) for now, _ in late] == SAMPLERS[sampler].pairs(SCHEDULE, 8)[begin:]
    assert torch.equal(late[0][0].x_t, x) and len(late) == 8 - begin


def test_ddim_from_half_way_goes_on_as_from_the_beginning():
    walk = [x for _, x in trajectory(denoiser(SCHEDULE), SCHEDULE, start(4), steps=8)]
    assert torch.equal(sample(denoiser(SCHEDULE), SCHEDULE, walk[4], steps=8, start=5), walk[-1])


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_callback_hears_of_every_step_and_may_replace_the_latents(sampler):
    heard, options = [], {"steps": 6, "sampler": sampler}

    def listen(now, x_s):
        heard.append((now, x_s))

    walk = list(trajectory(denoiser(SCHEDULE), SCHEDULE, start(2), callback=listen, **options))
    assert all(a[0] is b[0] and a[1] is b[1] for a, b in zip(walk, heard, strict=True))

    def replace(now, x_s):
        return torch.zeros_like(x_s)

    walk = list(trajectory(denoiser(SCHEDULE), SCHEDULE, start(2), callback=replace, **options))
    assert all(not now.x_t.any() for now, _ in walk[1:]) and not walk[-1][1].any()


def test_heun_calls_the_network_twice_and_is_of_second_order():
    calls = []
    perfect = denoiser(SCHEDULE)
    sample(lambda x, t: calls.append(t) or perfect(x, t), SCHEDULE, start(2), 5, sampler="heun")
    assert len(calls) == 5 + 3  # at the first and the last step once
    assert error("heun", 40) < 0.2 * error("ddim", 40)


def test_sampling_keeps_no_gradients():
    weight = torch.ones((), requires_grad=True)
    x = sample(lambda x, t: weight * x, SCHEDULE, start(2), steps=2)
    assert not x.requires_grad and torch.is_grad_enabled()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"sampler": "nonsense"},
            "sampler must be one of ddpm, ddim, dpm\\+\\+, unipc, "
            "euler, euler_ancestral, heun, lcm, not 'nonsense'",
        ),
        ({"steps": 0}, "from 1 to 1000, not 0"),
        ({"steps": 1001}, "from 1 to 1000, not 1001"),
        ({"sampler": "ddpm", "eta": 0.5}, "eta"),
        ({"eta": 1.5}, "eta must be from 0 to 1"),
        ({"eta": -0.1}, "eta must be from 0 to 1"),
        ({"sampler": "dpm++", "eta": 0.5}, "eta must be from 0 to 1, and 0 unless .* is ddim"),
        ({"start": 21}, "start must be a whole number from 0 to 20, not 21"),
        ({"start": -1}, "start must be a whole number from 0 to 20, not -1"),
    ],
    ids=str,
)
def test_bad_options_are_refused_in_one_line(options, message):
    with pytest.raises(InputError, match=message):
        sample(denoiser(SCHEDULE), SCHEDULE, start(1), **options)


@pytest.mark.parametrize("steps", [0, 1000])
def test_dpm_solver_takes_one_step_less_where_it_asks_for_one_timestep_more(steps):
    schedule = NoiseSchedule(ScheduleConfig(timestep_spacing="linspace"))
    with pytest.raises(ValueError, match=f"from 1 to 999, not {steps}"):
        sample(denoiser(schedule), schedule, start(1), steps=steps, sampler="dpm++")
