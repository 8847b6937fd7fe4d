"""StableDiffusion: prompt in, pictures out. Its `__call__` is the walk from one to the other."""

import math
import warnings
from dataclasses import dataclass, field, replace
from numbers import Integral, Real
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn

from . import checkpoint
from .diffusion import SAMPLERS, Denoiser, NoiseSchedule, ScheduleConfig, classifier_free, sample
from .errors import InputError
from .models import CLIP, Autoencoder, TextEncoder, UNet
from .tokenizer import Tokenizer

WEIGHTS = Path(__file__).resolve().parents[1] / "data" / "weights"


@dataclass(eq=False, repr=False)
class StableDiffusion:
    """All that a checkpoint holds, and the walk from a prompt to its pictures."""

    tokenizer: Tokenizer
    text_encoder: TextEncoder
    unet: UNet
    autoencoder: Autoencoder
    schedule: NoiseSchedule
    clip: CLIP | None = None
    sampler: str = "ddim"
    defaults: "SamplingDefaults" = field(default_factory=lambda: SamplingDefaults())
    data: dict | None = None  # what the networks were trained on, e.g. {"name": "one"}

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | list[str],
        height: int | None = None,
        width: int | None = None,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        negative_prompt: str | list[str] | None = None,
        num_images_per_prompt: int = 1,
        eta: float = 0.0,
        generator: torch.Generator | None = None,
        latents: Tensor | None = None,
        output_type: str = "pil",
        guidance_rescale: float | None = None,
        sampler: str | None = None,
        progress: bool = False,
    ) -> "Output":
        """From prompt to pixels. Arguments as in diffusers' pipeline, but for the last two.

        None stands for the checkpoint's picture size, sampler and `defaults`. height and width are
        in pixels. guidance_scale 1 is no guidance, less leans towards the negative prompt
        (diffusers turns guidance off there). latents (B, 4, H/f, W/f): the starting noise, else
        drawn with `generator`. output_type "pil", or "pt" for a tensor (B, 3, H, W) in [0, 1].
        sampler: one of SAMPLERS. progress: show a bar. InputError if an argument makes no sense.
        """
        asked = prompt, negative_prompt, num_images_per_prompt, latents, output_type
        prompts, negatives = check(*asked)
        settings = self.defaults.override(num_inference_steps, guidance_scale, guidance_rescale)

        # 1. Words become numbers: B prompts, L tokens each, D numbers a token.
        context = self.encode_prompt(prompts, num_images_per_prompt)  # (B, L, D)
        negative_context = self.encode_prompt(negatives, num_images_per_prompt)  # (B, L, D)

        # 2. Every picture starts as noise, of the size of its latents.
        if latents is None:
            latents = self.draw_latents(len(context), height, width, generator)  # (B, 4, H/f, W/f)

        # 3. At each step the U-Net predicts the noise, and the sampler removes some of it.
        denoise = self.denoiser(context, negative_context, guidance_scale, guidance_rescale)
        x_T, steps = latents.to(self.device), settings.num_inference_steps  # (B, 4, H/f, W/f)
        options = {"sampler": sampler or self.sampler, "eta": eta, "generator": generator}
        latents = sample(denoise, self.schedule, x_T, steps, progress, **options)  # as x_T

        # 4. The decoder turns the clean latents into pixels.
        images = self.decode(latents)  # (B, 3, H, W) in [0, 1]
        if not images.isfinite().all():
            raise InputError("these weights or latents give pictures that are not finite numbers")
        return Output(to_pil(images) if output_type == "pil" else images)

    def __post_init__(self):
        for network in self.networks:
            network.eval()

    @property
    def networks(self) -> list[nn.Module]:
        models = (self.text_encoder, self.unet, self.autoencoder, self.clip)
        return [model for model in models if model is not None]

    @property
    def device(self) -> torch.device:
        return self.unet.conv_in.weight.device

    def to(self, device: str | torch.device) -> "StableDiffusion":
        """Move every network to a device; returns itself."""
        for network in self.networks:
            network.to(device)
        return self

    @torch.no_grad()
    def encode_prompt(self, prompts: list[str], num_images_per_prompt: int = 1) -> Tensor:
        """Prompts -> context (B, L, D), each repeated; warns of cut-off and unknown words."""
        unknown: list[str] = []
        for prompt in dict.fromkeys(prompts):
            unknown += self.tokenizer.unknown_words(prompt)
            if cut := self.tokenizer.cut(prompt):
                warnings.warn(f"the prompt is too long; this was cut: {cut!r}", stacklevel=2)
        if unknown:
            words = ", ".join(dict.fromkeys(unknown))
            warnings.warn(f"the model never saw these words: {words}", stacklevel=2)
        context = self.text_encoder(self.tokenizer(prompts).to(self.device))
        return context.repeat_interleave(num_images_per_prompt, dim=0)

    def draw_latents(self, count: int, height=None, width=None, generator=None) -> Tensor:
        """The starting noise (count, 4, H/f, W/f), drawn on the generator's device."""
        f, latent_size = self.autoencoder.config.downscale, self.unet.config.sample_size
        least = f * 2 ** (len(self.unet.config.block_out_channels) - 1)
        size = [pixels or latent_size * f for pixels in (height, width)]
        if any(pixels < 1 or pixels % least for pixels in size):
            asked = "x".join(map(str, size))
            raise InputError(f"height and width must be multiples of {least}, not {asked}")
        shape = (count, self.unet.config.in_channels, size[0] // f, size[1] // f)
        device = generator.device if generator else self.device
        return torch.randn(shape, generator=generator, device=device)

    def denoiser(
        self, context: Tensor, negative_context: Tensor, guidance_scale=None, guidance_rescale=None
    ) -> Denoiser:
        """The guided U-Net for contexts (B, L, D); guidance that is None is the checkpoint's."""
        own = self.defaults.override(None, guidance_scale, guidance_rescale)
        guidance = own.guidance_scale, own.guidance_rescale
        return classifier_free(self.unet, context, negative_context, *guidance)

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Latents of unit variance (B, 4, H/f, W/f) -> pictures (B, 3, H, W) in [0, 1]."""
        images = self.autoencoder.decode(latents / self.autoencoder.config.scaling_factor)
        return (images / 2 + 0.5).clamp(0, 1)

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """Pictures (B, 3, H, W) in [0, 1] -> latents of unit variance (B, 4, H/f, W/f)."""
        latents = self.autoencoder.encode(2 * images.to(self.device) - 1).mean
        return latents * self.autoencoder.config.scaling_factor

    def save_pretrained(self, directory: str | Path, dtype: torch.dtype | None = None) -> None:
        """Write a diffusers pipeline directory, with minisd.json and, if there is CLIP, `clip/`.

        dtype: of all networks on disk but the text encoder, which stays float32, because
        transformers computes in the type in which it is stored.
        """
        directory = Path(directory)
        checkpoint.save_unet(directory / "unet", self.unet, dtype)
        size = self.unet.config.sample_size * self.autoencoder.config.downscale
        checkpoint.save_autoencoder(directory / "vae", self.autoencoder, dtype, sample_size=size)
        checkpoint.save_text_encoder(directory / "text_encoder", self.text_encoder)
        if self.clip:
            checkpoint.save_clip(directory / "clip", self.clip, dtype)
        checkpoint.save_tokenizer(directory / "tokenizer", self.tokenizer)
        schedule = vars(self.schedule.config)
        checkpoint.save_scheduler(directory / "scheduler", schedule, self.sampler)
        checkpoint.save_sampling(directory, vars(self.defaults), self.data)
        checkpoint.save_index(directory, self.sampler)

    @classmethod
    def from_pretrained(
        cls, directory: str | Path = WEIGHTS, device: str | torch.device = "cpu"
    ) -> "StableDiffusion":
        """Read a diffusers pipeline directory, whoever wrote it; minisd's own weights by default.

        InputError if it is missing, damaged or of another architecture than Stable Diffusion 1.x.
        """
        directory = Path(directory)
        if not (directory / "model_index.json").exists():
            what = f"{directory} holds no checkpoint (no model_index.json)"
            resume = f" --out {directory} --resume" if (directory / "training").exists() else ""
            raise InputError(f"{what}; train one with: python -m minisd train{resume}")
        checkpoint.check_index(directory)
        names = vars(ScheduleConfig())
        config, sampler = checkpoint.load_scheduler(directory / "scheduler", names)
        schedule = NoiseSchedule(ScheduleConfig(**config))
        sampling, data = checkpoint.load_sampling(directory, vars(SamplingDefaults()))
        try:
            defaults = SamplingDefaults(**sampling)
            if sampling:  # InputError if the sampler cannot take that many steps
                SAMPLERS[sampler].pairs(schedule, defaults.num_inference_steps)
        except InputError as error:
            raise InputError(f"{directory / 'minisd.json'}: {error}") from error
        pipe = cls(
            checkpoint.load_tokenizer(directory / "tokenizer"),
            checkpoint.load_text_encoder(directory / "text_encoder"),
            checkpoint.load_unet(directory / "unet"),
            checkpoint.load_autoencoder(directory / "vae"),
            schedule,
            checkpoint.load_clip(directory / "clip") if (directory / "clip").exists() else None,
            sampler,
            defaults,
            data,
        )
        parts = pipe.text_encoder, pipe.unet, pipe.autoencoder, pipe.clip
        checkpoint.check_parts(directory, pipe.tokenizer, *parts)
        return pipe.to(device)


@dataclass(frozen=True)
class SamplingDefaults:
    """How a checkpoint is best sampled; stored with it. The values here are diffusers' own."""

    num_inference_steps: int = 50
    guidance_scale: float = 7.5
    guidance_rescale: float = 0.0

    def __post_init__(self):
        """InputError for impossible values. The schedule checks the number of steps."""
        for name, value in vars(self).items():
            if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
                raise InputError(f"{name} must be a number, not {value!r}")
        steps, rescale = self.num_inference_steps, self.guidance_rescale
        if not isinstance(steps, Integral):
            raise InputError(f"num_inference_steps must be a whole number, not {steps}")
        if not 0 <= rescale <= 1:
            raise InputError(f"guidance_rescale must be from 0 to 1, not {rescale}")

    def override(self, *values) -> "SamplingDefaults":
        """A copy with these values, in the order above, where they are not None."""
        given = zip(vars(self), values, strict=True)
        return replace(self, **{name: value for name, value in given if value is not None})


@dataclass
class Output:
    """What a call returns: PIL images, or a tensor (B, 3, H, W) in [0, 1] if asked for."""

    images: list[Image.Image] | Tensor


def check(prompt, negative_prompt, num_images_per_prompt, latents, output_type):
    """Arguments of a call -> prompts and as many negative prompts; InputError if one is wrong."""
    prompts = [prompt] if isinstance(prompt, str) else list(prompt)
    if not prompts:
        raise InputError("there is no prompt to draw")
    negatives = negative_prompt if isinstance(negative_prompt, list) else [negative_prompt or ""]
    if len(negatives) not in (1, len(prompts)):
        raise InputError(f"{len(negatives)} negative prompts do not fit {len(prompts)} prompts")
    if num_images_per_prompt < 1:
        raise InputError(f"num_images_per_prompt must be at least 1, not {num_images_per_prompt}")
    count = num_images_per_prompt * len(prompts)
    if latents is not None and len(latents) != count:
        raise InputError(f"{len(latents)} latents do not fit {count} pictures")
    if output_type not in ("pil", "pt"):
        raise InputError(f'output_type must be "pil" or "pt", not {output_type!r}')
    return prompts, negatives * (len(prompts) // len(negatives))


def to_pil(images: Tensor) -> list[Image.Image]:
    """Pictures (B, 3, H, W) in [0, 1] -> PIL images."""
    pixels = (images * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    return [Image.fromarray(picture) for picture in pixels]
