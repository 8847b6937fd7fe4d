"""Classifier-free guidance: away from the empty prompt, towards the prompt."""

import pytest
import torch
from torch.testing import assert_close

from minisd.diffusion import classifier_free

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
