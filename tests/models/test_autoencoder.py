"""The autoencoder: shapes, and a Gaussian that is one."""

import pytest
import torch
from torch.distributions import Normal, kl_divergence
from torch.testing import assert_close

from minisd.models import Autoencoder, AutoencoderConfig, DiagonalGaussian

TINY = AutoencoderConfig(block_out_channels=(8, 8, 16), norm_num_groups=4)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def test_kl_is_that_of_torch_distributions():
    posterior = DiagonalGaussian(torch.randn(3, 8, 2, 5))
    q = Normal(posterior.mean, torch.exp(0.5 * posterior.logvar))
    expected = kl_divergence(q, Normal(0.0, 1.0)).sum(dim=(1, 2, 3))
    assert posterior.kl().shape == (3,)
    assert_close(posterior.kl(), expected)


def test_kl_of_the_prior_with_itself_is_nothing():
    assert torch.equal(DiagonalGaussian(torch.zeros(2, 8, 4, 4)).kl(), torch.zeros(2))


def test_the_first_half_of_the_moments_is_the_mean_and_the_second_the_log_variance():
    moments = torch.cat([torch.full((1, 4, 1, 1), 3.0), torch.full((1, 4, 1, 1), 0.5)], dim=1)
    posterior = DiagonalGaussian(moments.expand(1, 8, 100, 100))
    draws = posterior.sample(torch.Generator().manual_seed(0))
    assert draws.shape == (1, 4, 100, 100)
    assert abs(draws.mean() - 3) < 0.05
    assert abs(draws.var() - torch.tensor(0.5).exp()) < 0.05


def test_samples_follow_their_generator():
    posterior = DiagonalGaussian(torch.randn(2, 8, 4, 4))
    one, again, other = (posterior.sample(torch.Generator().manual_seed(i)) for i in (1, 1, 2))
    assert torch.equal(one, again) and not torch.equal(one, other)


def test_gradients_pass_through_a_sample_into_mean_and_variance():
    moments = torch.zeros(1, 8, 2, 2, requires_grad=True)
    noise = DiagonalGaussian(torch.zeros(1, 8, 2, 2)).sample(torch.Generator().manual_seed(0))
    DiagonalGaussian(moments).sample(torch.Generator().manual_seed(0)).sum().backward()
    assert_close(moments.grad, torch.cat([torch.ones(1, 4, 2, 2), 0.5 * noise], dim=1))


def test_a_log_variance_out_of_bounds_does_not_overflow():
    wild = torch.full((1, 8, 1, 1), 1e4)
    assert DiagonalGaussian(wild).sample().isfinite().all() and DiagonalGaussian(wild).kl() < 1e10
    assert DiagonalGaussian(-wild).kl().isfinite()


@pytest.mark.parametrize("size", [(16, 16), (8, 24)])
def test_pictures_shrink_to_latents_and_grow_back(size):
    model, images = Autoencoder(TINY), torch.randn(2, 3, *size)
    assert TINY.downscale == 4
    posterior = model.encode(images)
    assert posterior.mean.shape == (2, 4, size[0] // 4, size[1] // 4)
    assert model.decode(posterior.mean).shape == images.shape


def test_one_pass_is_encode_sample_decode():
    model, images = Autoencoder(TINY), torch.randn(2, 3, 8, 8)
    reconstruction, posterior = model(images, torch.Generator().manual_seed(3))
    latents = model.encode(images).sample(torch.Generator().manual_seed(3))
    assert_close(reconstruction, model.decode(latents))
    assert_close(posterior.mean, model.encode(images).mean)


def test_pictures_of_a_batch_do_not_see_one_another():
    model, images = Autoencoder(TINY), torch.randn(3, 3, 8, 8)
    assert_close(model.moments(images)[1:2], model.moments(images[1:2]), atol=1e-5, rtol=1e-4)
