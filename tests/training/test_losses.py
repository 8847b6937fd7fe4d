"""Each loss, against loops written by hand."""

import math

import pytest
import torch

from minisd.diffusion import NoiseSchedule, ScheduleConfig
from minisd.models import (
    CLIP,
    Autoencoder,
    CLIPConfig,
    DiagonalGaussian,
    TextConfig,
    UNet,
    VisionConfig,
)
from minisd.training import autoencoder_loss, clip_loss, denoising_loss
from minisd.training.losses import (
    CHROMA_WEIGHT,
    KL_WEIGHT,
    TIMESTEP_MEAN,
    TIMESTEP_STD,
    posterior_mean,
    random_timesteps,
)


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_autoencoder_loss_is_squared_error_with_more_for_colour_plus_a_little_kl():
    images, answer = random(2, 3, 4, 4).tanh(), random(2, 3, 4, 4, seed=1)
    moments = random(2, 8, 2, 2, seed=2)
    loss = autoencoder_loss(lambda x, g: (answer, DiagonalGaussian(moments)), images, None)

    total = 0.0
    for i in range(2):
        for pixel in (answer - images)[i].flatten(1).T.tolist():
            grey = sum(pixel) / 3
            total += sum(e**2 + CHROMA_WEIGHT * (e - grey) ** 2 for e in pixel)
        mean, logvar = (half.flatten().tolist() for half in moments[i].chunk(2))
        for m, v in zip(mean, logvar, strict=True):
            total += KL_WEIGHT * (m**2 + math.exp(v) - 1 - v) / 2
    assert loss.item() == pytest.approx(total / 2, rel=1e-5)


def test_autoencoder_loss_draws_its_noise_from_the_generator_it_is_given():
    generator, seen = torch.Generator(), []
    model = lambda x, g: (seen.append(g) or x, DiagonalGaussian(random(1, 8, 2, 2)))  # noqa: E731
    autoencoder_loss(model, random(1, 3, 4, 4), generator)
    assert seen == [generator]


def clip_by_hand(logits, fits):
    """Cross-entropy of each row and each column over its pair and what does not fit."""
    n, total = len(logits), 0.0
    for table, true in ((logits, fits), (logits.T, fits.T)):
        for i in range(n):
            rivals = [j for j in range(n) if j == i or not true[i, j]]
            total += math.log(sum(math.exp(table[i, j]) for j in rivals)) - table[i, i].item()
    return total / (2 * n)


def test_clip_loss_is_the_loop_written_by_hand():
    logits = 2 * random(6, 6)
    fits = (random(6, 6, seed=1) > 0.5) | torch.eye(6, dtype=torch.bool)
    loss = clip_loss(lambda *_: logits, logits, None, fits)
    assert loss.item() == pytest.approx(clip_by_hand(logits, fits), rel=1e-5)
    alone = torch.eye(6, dtype=torch.bool)  # only the pairs fit: the loss of the paper
    loss = clip_loss(lambda *_: logits, logits, None, alone)
    assert loss.item() == pytest.approx(clip_by_hand(logits, alone), rel=1e-5)


def test_captions_that_fit_are_no_negatives():
    """Where caption 1 is true of picture 0, their similarity is neither punished nor rewarded."""
    logits = random(4, 4).requires_grad_()
    fits = torch.eye(4, dtype=torch.bool)
    fits[0, 1] = True
    clip_loss(lambda *_: logits, logits, None, fits).backward()
    assert logits.grad[0, 1] == 0
    assert (logits.grad[~torch.eye(4, dtype=torch.bool) & ~fits] > 0).all()
    assert (logits.grad.diag() < 0).all()


def test_a_batch_of_one_and_the_same_caption_teaches_nothing():
    logits = random(3, 3).requires_grad_()
    loss = clip_loss(lambda *_: logits, logits, None, torch.ones(3, 3, dtype=torch.bool))
    loss.backward()
    assert loss == 0 and not logits.grad.any()


@pytest.mark.parametrize("prediction", ["v_prediction", "epsilon"])
def test_a_perfect_denoiser_has_no_loss_and_a_silent_one_has_about_1(prediction):
    schedule = NoiseSchedule(
        ScheduleConfig(prediction_type=prediction, rescale_betas_zero_snr=prediction != "epsilon")
    )
    x0, context, asked = random(64, 4, 8, 8).double(), random(64, 2, 3), []

    def perfect(x_t, t, c):
        assert c is context
        asked.append(t)
        a = schedule.alphas_cumprod.double()[t][:, None, None, None]
        eps = (x_t - a.sqrt() * x0) / (1 - a).sqrt()
        return eps if prediction == "epsilon" else a.sqrt() * eps - (1 - a).sqrt() * x0

    def loss(model):
        return denoising_loss(model, schedule, x0, context, torch.Generator().manual_seed(0)).item()

    assert loss(perfect) == pytest.approx(0, abs=1e-6)
    assert loss(lambda x_t, t, c: torch.zeros_like(x_t)) == pytest.approx(1, abs=0.05)
    t = torch.cat(asked)
    assert t.min() < 50 and 950 < t.max() < 1000 and len(t.unique()) > 32  # all over the schedule


def test_training_times_are_most_often_those_of_a_little_more_noise_than_signal():
    schedule, generator = NoiseSchedule(), torch.Generator().manual_seed(0)
    t = random_timesteps(schedule, 400_000, generator)
    weights = [0.1]  # of pure noise, where sampling begins; from there towards the picture
    for a in schedule.alphas_cumprod.flip(0)[1:].tolist():
        log_ratio = math.log(math.sqrt(a / (1 - a)))
        off = (log_ratio - TIMESTEP_MEAN) / TIMESTEP_STD
        weights.append(0.1 + math.exp(-(off**2) / 2))
    expected = torch.tensor(weights).flip(0).unflatten(0, (20, 50)).sum(dim=1)
    found = t.bincount(minlength=1000).float().unflatten(0, (20, 50)).sum(dim=1)
    torch.testing.assert_close(found / 400_000, expected / sum(weights), rtol=0.05, atol=0)
    assert not torch.equal(t, random_timesteps(schedule, 400_000, generator))


@pytest.mark.parametrize("guidance", [0.0, 0.4, 0.5])
def test_model_guidance_ends_at_classifier_free_guidance_of_scale_1_over_1_minus_w(guidance):
    schedule, point = NoiseSchedule(), random(1, 4, 2, 2)
    x0, context, empty = point.expand(64, -1, -1, -1), torch.ones(64, 2, 3), torch.zeros(1, 2, 3)

    def model(scale):
        """The right answer for the only picture, further from the empty prompt's than it should."""

        def predict(x_t, t, context):
            a = schedule.a(t, x_t)
            prompt, plain = (a.sqrt() * x_t - point) / (1 - a).sqrt(), x_t.sin()
            return plain + scale * (prompt - plain) if context.any() else plain

        return predict

    def loss(scale):
        generator = torch.Generator().manual_seed(0)
        given = (x0, context, generator, None, empty, guidance)
        return denoising_loss(model(scale), schedule, *given).item()

    assert loss(1 / (1 - guidance)) == pytest.approx(0, abs=1e-9)
    assert loss(1.2 / (1 - guidance)) > 1e-3 < loss(0.8 / (1 - guidance))


def test_the_posterior_mean_is_the_loop_written_by_hand():
    latents, noised = random(5, 2, 2, 2), random(3, 2, 2, 2, seed=1)
    fit = torch.tensor([[1, 1, 1, 1, 1], [0, 1, 0, 1, 0], [0, 0, 1, 0, 0]]).bool()
    for share in (0.0, 0.3, 0.9):
        found = posterior_mean(noised, torch.full((3, 1, 1, 1), share), latents, fit)
        for i, x in enumerate(noised):
            total, weights = torch.zeros(2, 2, 2), 0.0
            for j, x0 in enumerate(latents):
                squares = (x - math.sqrt(share) * x0).square().sum().item()
                weight = fit[i, j].item() * math.exp(-squares / (2 * (1 - share)))
                total, weights = total + weight * x0, weights + weight
            torch.testing.assert_close(found[i], total / weights, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("prediction", ["v_prediction", "epsilon"])
def test_with_references_the_best_denoiser_of_a_known_set_has_no_loss(prediction):
    """Without them it has one, as a single picture is not the mean of all that it could be."""
    schedule = NoiseSchedule(
        ScheduleConfig(prediction_type=prediction, rescale_betas_zero_snr=prediction != "epsilon")
    )
    latents = random(16, 4, 2, 2)
    fit = torch.eye(2).bool().repeat(8, 8)  # every second latent

    def best(x_t, t, c):
        a = schedule.a(t, x_t)
        x0 = posterior_mean(x_t, a, latents, fit)
        return schedule.target(x0, (x_t - a.sqrt() * x0) / (1 - a).sqrt(), t)

    def loss(references):
        given = (schedule, latents, random(16, 2, 3), torch.Generator().manual_seed(0), references)
        return denoising_loss(best, *given).item()

    assert loss((latents, fit)) == pytest.approx(0, abs=1e-9) and loss(None) > 0.01
    alone = loss((latents, torch.eye(16).bool()))  # nothing else fits: x0 is its own mean
    assert alone == pytest.approx(loss(None), rel=1e-4)


def test_denoising_loss_depends_on_its_generator_alone():
    x0, context = random(4, 4, 8, 8), random(4, 2, 3)

    def loss(seed):
        generator = torch.Generator().manual_seed(seed)
        return denoising_loss(lambda x, t, c: x, NoiseSchedule(), x0, context, generator)

    assert loss(1) == loss(1) != loss(2)


def test_in_bfloat16_every_loss_is_near_its_value_in_float32():
    torch.manual_seed(0)
    autoencoder, unet = Autoencoder(), UNet()
    torch.nn.init.normal_(unet.conv_out.weight, std=0.1)  # it starts at zero
    clip = CLIP(CLIPConfig(TextConfig(vocab_size=50, end_id=49), VisionConfig()))
    images = random(8, 3, 32, 32).tanh()
    ids = torch.randint(49, (8, 16), generator=torch.Generator().manual_seed(1))
    ids[:, -1] = 49

    def losses():
        seeds = (torch.Generator().manual_seed(i) for i in range(2))
        yield autoencoder_loss(autoencoder, images, next(seeds))
        yield clip_loss(clip, images, ids, torch.eye(8, dtype=torch.bool))
        x0, context = random(8, 4, 8, 8), random(8, 16, 128)
        references = x0 / 2, torch.ones(8, 8, dtype=torch.bool)
        yield denoising_loss(unet, NoiseSchedule(), x0, context, next(seeds), references)

    exact = list(losses())
    with torch.autocast("cpu", torch.bfloat16):
        for rough, loss in zip(losses(), exact, strict=True):
            assert rough.dtype == torch.float32
            assert rough.item() == pytest.approx(loss.item(), rel=0.02)
