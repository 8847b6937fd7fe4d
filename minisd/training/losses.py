"""The three losses, one for each network. Every one returns a scalar."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ..diffusion import NoiseSchedule
from ..models import CLIP, Autoencoder, UNet

KL_WEIGHT = 0.01  # both terms are summed over a picture; Stable Diffusion's weight is 1e-6
CHROMA_WEIGHT = 3.0  # without it colours are learnt very late, as brightness varies most
# Mean and standard deviation of the weight of timesteps, in log(signal / noise). More noise than
# signal: there place and colour are decided, if the caption does not say.
TIMESTEP_MEAN, TIMESTEP_STD = -0.8, 1.7


def autoencoder_loss(model: Autoencoder, images: Tensor, generator: torch.Generator) -> Tensor:
    """Squared error of the reconstruction plus a little KL, both summed over each picture.

    images (B, 3, H, W) in [-1, 1]. The evidence lower bound of Kingma and Welling 2014, equation
    10, with a small weight on the KL as in Rombach et al. 2022, whose loss also has perceptual and
    adversarial terms. Errors in colour weigh more than errors in brightness.
    """
    reconstruction, posterior = model(images, generator)
    error = reconstruction.float() - images  # (B, 3, H, W)
    chroma = error - error.mean(dim=1, keepdim=True)  # the error of the colour alone
    distance = error.square() + CHROMA_WEIGHT * chroma.square()
    return (distance.sum(dim=(1, 2, 3)) + KL_WEIGHT * posterior.kl()).mean()


def clip_loss(model: CLIP, images: Tensor, ids: Tensor, fits: Tensor) -> Tensor:
    """Each picture should find its caption among all of the batch, and each caption its picture.

    images (B, 3, H, W), ids (B, L); fits[i, j] (B, B) bool: caption j is true of picture i. A true
    caption is not a negative: it is left out of the softmax off the diagonal, so that `a blue four`
    is not pushed away from other blue fours. Source: Radford et al. 2021, figure 3.
    """
    logits = model(images, ids)  # (pictures, captions)
    pairs = torch.arange(len(images), device=images.device)
    others = fits & ~torch.eye(len(images), dtype=torch.bool, device=images.device)
    logits = logits.masked_fill(others, -torch.inf)
    return (F.cross_entropy(logits, pairs) + F.cross_entropy(logits.T, pairs)) / 2


def random_timesteps(schedule: NoiseSchedule, count: int, generator: torch.Generator) -> Tensor:
    """Timesteps (count,), most often those where noise is a little stronger than signal.

    Their weight is normal in log(signal / noise), as for the logit-normal times of Esser et al.
    2024, section 3.1, plus a tenth of its maximum: otherwise the first step of sampling, from pure
    noise, would never be learnt.
    """
    timesteps = torch.arange(len(schedule), device=generator.device)
    log_ratio = schedule.snr(timesteps).log() / 2  # (T,), -inf for pure noise
    weight = 0.1 + torch.exp(-(((log_ratio - TIMESTEP_MEAN) / TIMESTEP_STD) ** 2) / 2)
    return torch.multinomial(weight, count, replacement=True, generator=generator)


def posterior_mean(x_t: Tensor, a: Tensor, latents: Tensor, fit: Tensor) -> Tensor:
    """What x0 is on average, given x_t and the caption, if x0 is one of the latents.

    x_t (B, 4, H, W), a (B, 1, 1, 1), latents (N, 4, H, W), fit (B, N) bool: those that the caption
    fits. Each latent weighs as much as it is likely to have become x_t, by Ho et al. 2020, equation
    4. Returns (B, 4, H, W).
    """
    x, a, x0 = x_t.flatten(1), a.flatten(1), latents.flatten(1)  # (B, D), (B, 1), (N, D)
    log_likelihood = (a.sqrt() * x @ x0.T - a * x0.square().sum(dim=1) / 2) / (1 - a)  # + constant
    weights = log_likelihood.masked_fill(~fit, -torch.inf).softmax(dim=1)  # (B, N)
    return (weights @ x0).view_as(x_t)


def denoising_loss(
    model: UNet,
    schedule: NoiseSchedule,
    x0: Tensor,
    context: Tensor,
    generator: torch.Generator,
    references: tuple[Tensor, Tensor] | None = None,
    empty: Tensor | None = None,
    guidance: float = 0.0,
) -> Tensor:
    """Noise the latents to a random timestep and predict eps or v, as the schedule says.

    x0 (B, 4, H, W) latents of unit variance, context (B, L, D). Ho et al. 2020, equation 14, for
    eps; Salimans and Ho 2022, section 4, for v.

    With references, latents (N, 4, H, W) and which of them each caption fits (B, N), x0 gives way
    to its mean over all of them, given x_t. A single picture scatters about that mean, which is
    what the model learns; the price is a bias that vanishes with more references. Source: Xu et al.
    2023, "Stable target field for reduced variance score estimation in diffusion models", eq. 7.

    With guidance w, the target moves away from what the model itself predicts for the empty prompt,
    whose context is `empty` (1, L, D). Training ends where the model predicts by itself what
    classifier-free guidance of scale 1 / (1 - w) makes of a model without it, so sampling needs
    none. Source: Tang et al. 2025, "Diffusion models without classifier-free guidance".
    """
    t = random_timesteps(schedule, len(x0), generator)
    eps = torch.randn(x0.shape, device=x0.device, generator=generator)
    x_t = schedule.add_noise(x0, eps, t)
    if references:
        a = schedule.a(t, like=x_t)
        with torch.autocast(x_t.device.type, enabled=False):  # bfloat16 is too coarse here
            x0 = posterior_mean(x_t, a, *references)
        eps = (x_t - a.sqrt() * x0) / (1 - a).sqrt()
    target = schedule.target(x0, eps, t)
    prediction = model(x_t, t, context).float()
    if guidance:
        with torch.no_grad():
            unguided = model(x_t, t, empty.expand_as(context)).float()
            target = target + guidance * (prediction - unguided)
    return F.mse_loss(prediction, target)
