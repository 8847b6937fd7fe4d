"""Classifier-free guidance: away from the empty prompt, towards the prompt."""

import pytest
import torch
from torch.testing import assert_close

from minisd.diffusion import (
    NoiseSchedule,
    ScheduleConfig,
    classifier_free,
    clip_guided,
    predictions,
)

X, T = torch.randn(2, 4, 3, 3, generator=torch.Generator().manual_seed(0)), torch.tensor(7)
PROMPT, EMPTY = torch.full((2, 5, 8), 3.0), torch.full((2, 5, 8), 1.0)


class Model:
    """Answers x times the mean of its context, and remembers how often it was asked."""

    def __init__(self):
        self.calls = 0

    def __call__(self, x, t, context):
        self.calls += 1
        return x * context.mean(dim=(1, 2))[:, None, None, None] + t


@pytest.mark.parametrize("scale", [0.0, 0.5, 1.0, 3.0, 7.5])
def test_guidance_is_equation_6_of_ho_and_salimans(scale):
    """(1 + w) eps(x, c) - w eps(x), where w = scale - 1."""
    model, w = Model(), scale - 1
    expected = (1 + w) * model(X, T, PROMPT) - w * model(X, T, EMPTY)
    assert_close(classifier_free(model, PROMPT, EMPTY, scale)(X, T), expected)


@pytest.mark.parametrize("rescale", [0.25, 1.0])
def test_rescaled_guidance_is_equations_14_to_16_of_lin_et_al(rescale):
    prompts, negatives = torch.randn(2, 5, 8), torch.randn(2, 5, 8)
    guided = classifier_free(Model(), prompts, negatives, 4.0)(X, T)
    result = classifier_free(Model(), prompts, negatives, 4.0, rescale)(X, T)
    for i in range(2):
        brought_back = guided[i] * Model()(X, T, prompts)[i].std() / guided[i].std()
        assert_close(result[i], rescale * brought_back + (1 - rescale) * guided[i])


def test_the_order_of_rounding_stays_so_that_the_shipped_weights_draw_the_same_bits():
    x = torch.randn(64, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    prompts, negatives = torch.full((64, 5, 8), 0.3), torch.full((64, 5, 8), -0.7)
    guided = classifier_free(Model(), prompts, negatives, 3.0)(x, T)
    own, size = (y.std(dim=(1, 2, 3), keepdim=True) for y in (Model()(x, T, prompts), guided))
    result = classifier_free(Model(), prompts, negatives, 3.0, 0.9)(x, T)
    assert torch.equal(result, guided * (1 - 0.9 + 0.9 * own / size))


def test_without_rescaling_a_single_number_is_guided_too():
    """It has no spread to be brought back to."""
    number = torch.ones(1, 1)
    model = lambda x, t, context: x * context  # noqa: E731
    assert classifier_free(model, 3 * number, number, 4.0)(number, T) == 1 + 4 * (3 - 1)


@pytest.mark.parametrize("scale", [1, 1.0, 3.0])
def test_one_call_of_the_model_serves_both_halves(scale):
    model = Model()
    classifier_free(model, PROMPT, EMPTY, scale)(X, T)
    assert model.calls == 1


def test_scale_1_is_the_bare_model_bit_for_bit():
    model = Model()
    assert torch.equal(classifier_free(model, PROMPT, EMPTY, 1)(X, T), model(X, T, PROMPT))


def test_each_picture_is_guided_by_its_own_prompts():
    prompts, negatives = torch.randn(3, 5, 8), torch.randn(3, 5, 8)
    x = torch.randn(3, 4, 2, 2)
    together = classifier_free(Model(), prompts, negatives, 4.0)(x, T)
    for i in range(3):
        row = slice(i, i + 1)
        alone = classifier_free(Model(), prompts[row], negatives[row], 4.0)(x[row], T)
        assert_close(together[row], alone)


@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_combined_prompts_each_add_their_guidance(scale):
    """empty + scale * sum of w (prompt - empty); NOT has a negative weight."""
    model, others = Model(), [(torch.randn(2, 5, 8), w) for w in (1.0, -0.5)]
    empty = model(X, T, EMPTY)
    pairs = [(PROMPT, 1.0), *others]
    expected = empty + scale * sum(w * (model(X, T, c) - empty) for c, w in pairs)
    model.calls = 0
    assert_close(classifier_free(model, PROMPT, EMPTY, scale, combined=others)(X, T), expected)
    assert model.calls == 1


def test_a_prompt_of_weight_0_changes_nothing():
    combined = [(torch.randn(2, 5, 8), 0.0)]
    one, two = (classifier_free(Model(), PROMPT, EMPTY, 3.0, 0.9, c)(X, T) for c in ((), combined))
    assert torch.equal(one, two)


SCHEDULES = {
    "eps": NoiseSchedule(ScheduleConfig(prediction_type="epsilon", rescale_betas_zero_snr=False)),
    "v": NoiseSchedule(),
}
MEAN, FOUND, SURE = 0.7, -0.4, 2.0  # of the prior N(MEAN, 1), and of a likelihood N(FOUND, 1/SURE)


def expect(schedule, mean, precision):
    """The perfect denoiser of pictures whose pixels are N(mean, 1 / precision)."""

    def denoise(x_t, t):
        a = schedule.alphas_cumprod[t]
        x0 = mean + a.sqrt() / (a + (1 - a) * precision) * (x_t - a.sqrt() * mean)
        eps = (x_t - a.sqrt() * x0) / (1 - a).sqrt()
        return eps if schedule.config.prediction_type == "epsilon" else schedule_v(a, x0, eps)

    return denoise


def schedule_v(a, x0, eps):
    return a.sqrt() * eps - (1 - a).sqrt() * x0


@pytest.mark.parametrize("kind", SCHEDULES)
@pytest.mark.parametrize("t", [100, 500, 950])
def test_clip_guidance_is_bayes_rule(kind, t):
    """Where everything is Gaussian: prior and likelihood together are the posterior."""
    schedule, t = SCHEDULES[kind], torch.tensor(t)
    a = schedule.alphas_cumprod[t]
    open_variance = (1 - a) / (a + 1 - a)  # of x0, given x_t

    def score(x0):  # log p(found | x_t), if x0 is what x_t lets expect
        spread = open_variance + 1 / SURE
        return -((x0 - FOUND) ** 2 / spread / 2).sum(dim=(1, 2, 3))

    guided = clip_guided(expect(schedule, MEAN, 1.0), schedule, score, 1.0)(X, t)
    both = (MEAN + SURE * FOUND) / (1 + SURE)
    assert_close(guided, expect(schedule, both, 1 + SURE)(X, t), atol=1e-4, rtol=1e-4)


def test_in_pure_noise_there_is_nothing_to_follow():
    schedule, t = SCHEDULES["v"], torch.tensor(999)
    denoise = expect(schedule, MEAN, 1.0)
    guided = clip_guided(denoise, schedule, lambda x0: x0.sum(dim=(1, 2, 3)), 5.0)
    assert torch.equal(guided(X, t), denoise(X, t))


@pytest.mark.parametrize("kind", SCHEDULES)
def test_no_push_is_larger_than_the_most(kind):
    """The guess of x0 moves by 0.5, root mean square, however much the score asks for."""
    schedule, t = SCHEDULES[kind], torch.tensor(700)
    a, denoise = schedule.alphas_cumprod[t], expect(SCHEDULES[kind], MEAN, 1.0)
    guesses = []
    for scale in (0.0, 1e3, 1e4):
        guided = clip_guided(denoise, schedule, lambda x0: x0.sum(dim=(1, 2, 3)), scale, 0.5)
        guesses.append(predictions(schedule.config.prediction_type, guided(X, t), X, a)[0])
    for guess in guesses[1:]:
        assert_close(guess - guesses[0], torch.full_like(X, 0.5), atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_each_picture_follows_its_own_score():
    schedule, t = SCHEDULES["v"], torch.tensor(400)
    denoise, weights = expect(schedule, MEAN, 1.0), torch.tensor([1.0, 0.0])
    guided = clip_guided(denoise, schedule, lambda x0: weights * x0.sum(dim=(1, 2, 3)), 5.0)(X, t)
    assert not guided.requires_grad
    plain = denoise(X, t)
    assert torch.equal(guided[1], plain[1]) and (guided[0] < plain[0]).all()  # v falls as x0 rises
