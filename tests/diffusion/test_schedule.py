"""The forward process: how much signal is left, and what follows from that."""

import math
from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from minisd.diffusion import NoiseSchedule, ScheduleConfig, make_betas, predictions
from minisd.errors import InputError

PLAIN = ScheduleConfig(rescale_betas_zero_snr=False)
SHAPES = ["linear", "scaled_linear", "cosine"]


def schedule(**options):
    return NoiseSchedule(replace(PLAIN, **options))


def test_linear_betas_are_evenly_spaced():
    betas = make_betas(replace(PLAIN, beta_schedule="linear", num_train_timesteps=3))
    assert_close(betas, torch.tensor([0.00085, (0.00085 + 0.012) / 2, 0.012]))


def test_scaled_linear_betas_are_evenly_spaced_under_the_root():
    betas = make_betas(replace(PLAIN, num_train_timesteps=3))
    middle = ((math.sqrt(0.00085) + math.sqrt(0.012)) / 2) ** 2
    assert_close(betas, torch.tensor([0.00085, middle, 0.012]))


def test_cosine_betas_make_the_signal_a_squared_cosine():
    a = schedule(beta_schedule="cosine").alphas_cumprod
    time = torch.arange(1, 1001, dtype=torch.float64) / 1000
    curve = torch.cos((time + 0.008) / 1.008 * math.pi / 2) ** 2
    curve /= math.cos(0.008 / 1.008 * math.pi / 2) ** 2
    assert_close(a[:-1], curve[:-1].float(), atol=1e-5, rtol=0)  # the last beta is cut to 0.999
    assert_close(a[-1] / a[-2], torch.tensor(0.001), atol=1e-5, rtol=0)


@pytest.mark.parametrize("zero_snr", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_signal_only_ever_falls(shape, zero_snr):
    a = schedule(beta_schedule=shape, rescale_betas_zero_snr=zero_snr).alphas_cumprod
    assert a[0] < 1 and (a.diff() < 0).all() and a[-1] >= 0


@pytest.mark.parametrize("shape", SHAPES)
def test_zero_terminal_snr_leaves_nothing_at_the_end_and_the_beginning_alone(shape):
    before = schedule(beta_schedule=shape).alphas_cumprod
    after = schedule(beta_schedule=shape, rescale_betas_zero_snr=True).alphas_cumprod
    assert after[-1] == 0 < before[-1]
    assert_close(after[0], before[0])
    steps = before.sqrt().diff() / after.sqrt().diff()  # shifted and scaled, nothing else
    assert_close(steps, steps[:1].expand(999), atol=0, rtol=2e-3)


def test_noise_keeps_the_variance_and_snr_says_how_much_is_signal():
    t = torch.tensor([0, 300, 999])
    ours = schedule()
    g = torch.Generator().manual_seed(0)
    x0, eps = torch.randn(2, 3, 200_000, generator=g)
    assert_close(ours.add_noise(x0, eps, t).var(dim=1), torch.ones(3), atol=0.02, rtol=0)
    signal, noise = ours.add_noise(x0, 0 * eps, t), ours.add_noise(0 * x0, eps, t)
    assert_close(signal.var(dim=1) / noise.var(dim=1), ours.snr(t), atol=0, rtol=0.02)


def test_one_noising_is_many_small_ones():
    """q(x_t | x_0) is what comes of t + 1 steps x <- sqrt(1 - beta) x + sqrt(beta) eps."""
    betas, t = make_betas(PLAIN), 30
    mean, variance = 1.0, 0.0
    for beta in betas[: t + 1].tolist():
        mean, variance = math.sqrt(1 - beta) * mean, (1 - beta) * variance + beta
    one = torch.ones(1)
    ours = schedule()
    assert_close(ours.add_noise(one, 0 * one, torch.tensor([t])).item(), mean, atol=1e-5, rtol=0)
    noise = ours.add_noise(0 * one, one, torch.tensor([t])).item()
    assert_close(noise**2, variance, atol=1e-5, rtol=0)


def test_every_row_of_a_batch_has_its_own_timestep():
    ours = schedule()
    x0, eps, t = torch.randn(3, 4, 2, 2), torch.randn(3, 4, 2, 2), torch.tensor([5, 500, 999])
    rows = [ours.add_noise(x0[i : i + 1], eps[i : i + 1], t[i : i + 1]) for i in range(3)]
    assert_close(ours.add_noise(x0, eps, t), torch.cat(rows))


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_the_perfect_prediction_gives_back_signal_and_noise(kind):
    ours = schedule(prediction_type=kind)
    x0, eps, t = torch.randn(4, 3, 2, 2), torch.randn(4, 3, 2, 2), torch.tensor([0, 10, 500, 800])
    x_t, a = ours.add_noise(x0, eps, t), ours.a(t, like=x0)
    guessed_x0, guessed_eps = predictions(kind, ours.target(x0, eps, t), x_t, a)
    assert_close(guessed_x0, x0, atol=1e-4, rtol=0)
    assert_close(guessed_eps, eps, atol=1e-4, rtol=0)


def test_v_is_minus_the_picture_at_pure_noise():
    ours = schedule(rescale_betas_zero_snr=True)
    x0, eps, last = torch.randn(1, 3), torch.randn(1, 3), torch.tensor([999])
    assert torch.equal(ours.add_noise(x0, eps, last), eps)
    assert torch.equal(ours.target(x0, eps, last), -x0)


@pytest.mark.parametrize(
    ("spacing", "expected"),
    [
        ("leading", [801, 601, 401, 201, 1]),
        ("linspace", [999, 749, 500, 250, 0]),
        ("trailing", [999, 799, 599, 399, 199]),
    ],
)
def test_timesteps_are_spaced_as_in_table_2_of_lin(spacing, expected):
    assert schedule(timestep_spacing=spacing, steps_offset=1).timesteps(5) == expected


@pytest.mark.parametrize("spacing", ["leading", "linspace", "trailing"])
def test_there_are_as_many_timesteps_as_asked_for_and_no_two_alike(spacing):
    ours = schedule(timestep_spacing=spacing, steps_offset=0)
    for count in (1, 2, 3, 61, 103, 333, 999, 1000):
        chosen = ours.timesteps(count)
        assert len(chosen) == count and 0 <= chosen[-1] <= chosen[0] <= 999
        assert chosen == sorted(set(chosen), reverse=True)


@pytest.mark.parametrize("count", [-1, 0, 1001])
def test_a_number_of_steps_out_of_range_is_refused(count):
    with pytest.raises(ValueError, match=f"from 1 to 1000, not {count}"):
        schedule().timesteps(count)


def test_an_offset_beyond_the_last_timestep_is_refused():
    with pytest.raises(ValueError, match="1000 steps with an offset of 1 pass 1000"):
        schedule(timestep_spacing="leading", steps_offset=1).timesteps(1000)


@pytest.mark.parametrize("option", ["beta_schedule", "prediction_type", "timestep_spacing"])
def test_an_unknown_option_is_refused_by_name(option):
    with pytest.raises(ValueError, match=f"{option} must be .*, not 'nonsense'"):
        schedule(**{option: "nonsense"}).timesteps(5)


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("num_train_timesteps", "1000", "a whole number from 2 to 1000000, not '1000'"),
        ("num_train_timesteps", None, "not None"),
        ("num_train_timesteps", True, "not True"),
        ("num_train_timesteps", 1000.0, "not 1000.0"),
        ("num_train_timesteps", 0, "not 0"),
        ("num_train_timesteps", -1, "not -1"),
        ("num_train_timesteps", 10**100, "not 100000000000000.* ... .*000$"),
        ("num_train_timesteps", math.nan, "not nan"),
        ("steps_offset", -1, "a whole number from 0 to 999999, not -1"),
        ("rescale_betas_zero_snr", 1, "one of False, True, not 1"),
        ("set_alpha_to_one", None, "one of False, True, not None"),
        (
            "timestep_spacing",
            ["leading"],
            "one of leading, .*, trailing, not \\['leading'\\]",
        ),
    ],
)
def test_a_wrong_type_or_size_is_refused_by_name(option, value, message):
    with pytest.raises(InputError, match=f"^{option} must be .*{message}") as told:
        schedule(**{option: value})
    assert len(str(told.value)) < 150


@pytest.mark.parametrize(
    "betas",
    [(0.0, 0.02), (0.02, 0.01), (0.1, 1.0), (math.nan, 0.1), ("0.1", 0.2), (0.1, None), (True, 1)],
)
def test_betas_that_are_no_rising_shares_are_refused(betas):
    with pytest.raises(InputError) as told:
        schedule(beta_start=betas[0], beta_end=betas[1])
    given = f"beta_start {betas[0]!r} and beta_end {betas[1]!r}"
    assert str(told.value) == f"0 < beta_start <= beta_end < 1 must hold; here are {given}"


@pytest.mark.parametrize("betas", [(0.4, 0.5), (0.1, 0.2), (1e-9, 1e-9)])
def test_betas_that_leave_no_signal_or_add_no_noise_are_refused(betas):
    with pytest.raises(
        InputError, match="beta_end and num_train_timesteps leave no signal, or add no noise"
    ):
        schedule(beta_start=betas[0], beta_end=betas[1])
