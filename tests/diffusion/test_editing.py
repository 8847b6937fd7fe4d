"""Inpainting, inversion and FlowEdit, on denoisers whose answers are known."""

import pytest
import torch
from torch.testing import assert_close

from minisd.diffusion import NoiseSchedule, Point, ddim_step, flow_edit, inpaint, invert, sample
from minisd.diffusion.editing import ddim_step_back

SCHEDULE = NoiseSchedule()
X0 = torch.randn(2, 4, 3, 3, generator=torch.Generator().manual_seed(0))


def draws(picture):
    """v of a network that knows one picture (C, H, W)."""

    def denoise(x_t, t):
        a = SCHEDULE.alphas_cumprod[t]
        return (a.sqrt() * x_t - picture) / (1 - a).sqrt()

    return denoise


def blends(x_t, t):
    """v of a network whose guesses depend on x_t: it takes the latents for N(0, 1) data."""
    return torch.tanh(x_t) * (0.3 + t / 2000)


def test_outside_the_mask_every_step_ends_in_the_noised_original():
    noise, x_s = torch.randn_like(X0), torch.randn_like(X0)
    mask = torch.zeros(2, 1, 3, 3)
    mask[:, :, 1] = 1
    a_s = torch.tensor(0.3)
    step = inpaint(X0, noise, mask)
    after = step(Point(500, 300, x_s, X0, noise, torch.tensor(0.1), a_s), x_s)
    assert_close(after[:, :, 1], x_s[:, :, 1])
    assert_close(after[:, :, 0], (0.3**0.5 * X0 + 0.7**0.5 * noise)[:, :, 0])
    last = step(Point(100, -1, x_s, X0, noise, torch.tensor(0.9), torch.tensor(1.0)), x_s)
    assert torch.equal(last[:, :, 2], X0[:, :, 2])


def test_a_step_back_undoes_a_step():
    a_t, a_s, eps = torch.tensor(0.2), torch.tensor(0.5), torch.randn_like(X0)
    x_t = a_t.sqrt() * X0 + (1 - a_t).sqrt() * eps
    v = a_t.sqrt() * eps - (1 - a_t).sqrt() * X0
    assert_close(ddim_step_back(ddim_step(X0, eps, a_t, a_s), v, a_t, a_s), x_t)


@pytest.mark.parametrize("start", [0, 10])
def test_ddim_draws_from_the_inversion_what_was_inverted(start):
    x = invert(blends, SCHEDULE, X0, steps=25, start=start)
    back = sample(blends, SCHEDULE, x, 25, start=start)
    assert (back - X0).abs().max() < 2e-2
    once = invert(blends, SCHEDULE, X0, steps=25, start=start, repeats=1)
    rough = sample(blends, SCHEDULE, once, 25, start=start)
    assert (back - X0).abs().max() < (rough - X0).abs().max() / 4


def test_flow_edit_adds_the_difference_of_two_pictures():
    """Whatever picture it starts from: what the two prompts agree on stays."""
    old, new = torch.zeros(4, 3, 3), torch.zeros(4, 3, 3)
    old[0], new[1] = 1.0, 2.0
    for start in (0, 10):
        edited = flow_edit(draws(old), draws(new), SCHEDULE, X0, steps=20, start=start)
        assert_close(edited, X0 + new - old, atol=1e-4, rtol=0)


def test_flow_edit_between_equal_prompts_changes_nothing():
    options = {"steps": 10, "generator": torch.Generator().manual_seed(0)}
    assert_close(flow_edit(blends, blends, SCHEDULE, X0, **options), X0)
