"""StableDiffusion: prompt in, pictures out. All the parts, joined."""

import math
import warnings
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from . import checkpoint
from .diffusion import NoiseSchedule, ScheduleConfig, classifier_free, sample
from .models import CLIP, Autoencoder, TextEncoder, UNet
from .tokenizer import Tokenizer

WEIGHTS = Path(__file__).resolve().parents[1] / "data" / "weights"
STEPS = 6  # the fewest with which DDIM loses under a point: benchmarks/README.md


@dataclass(frozen=True)
class SamplingDefaults:
    num_inference_steps: int = STEPS
    guidance_scale: float = 3.0
    guidance_rescale: float = 0.9


@dataclass
class Output:
    """What a call returns: PIL images, or a tensor (B, 3, H, W) in [0, 1] if asked for."""

    images: list[Image.Image] | Tensor


class StableDiffusion:
    """Tokenizer, text encoder, U-Net, schedule, autoencoder; and CLIP, if there is one."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        text_encoder: TextEncoder,
        unet: UNet,
        autoencoder: Autoencoder,
        schedule: NoiseSchedule,
        clip: CLIP | None = None,
        sampler: str = "ddim",
    ):
        self.tokenizer = tokenizer
        self.text_encoder = text_encoder.eval()
        self.unet = unet.eval()
        self.autoencoder = autoencoder.eval()
        self.schedule = schedule
        self.clip = clip.eval() if clip else None
        self.sampler = sampler
        self.defaults = SamplingDefaults()

    @property
    def device(self) -> torch.device:
        return self.unet.conv_in.weight.device

    def to(self, device: str | torch.device) -> "StableDiffusion":
        """Move every network to a device; returns itself."""
        for model in (self.text_encoder, self.unet, self.autoencoder, self.clip):
            if model is not None:
                model.to(device)
        return self

    @torch.no_grad()
    def encode_prompt(self, prompts: list[str]) -> Tensor:
        """Prompts -> context (B, L, D). Warns of what was cut and of words it never saw."""
        for prompt in dict.fromkeys(prompts):
            if cut := self.tokenizer.cut(prompt):
                warnings.warn(f"the prompt is too long; this was cut: {cut!r}", stacklevel=2)
            if unknown := self.tokenizer.unknown_words(prompt):
                words = ", ".join(unknown)
                warnings.warn(f"the model never saw these words: {words}", stacklevel=2)
        return self.text_encoder(self.tokenizer(prompts).to(self.device))

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Latents of unit variance (B, 4, H/f, W/f) -> pictures (B, 3, H, W) in [0, 1]."""
        images = self.autoencoder.decode(latents / self.autoencoder.config.scaling_factor)
        return (images / 2 + 0.5).clamp(0, 1)

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
    ) -> Output:
        """Draw what the prompts say. Arguments as in diffusers' pipeline, but for the last two.

        height, width: pixels, as trained if left out; guidance_scale 1 is no guidance, less
        leans to the empty prompt (where diffusers turns guidance off); guidance_rescale: how far
        the guided prediction is brought back to its size (diffusers' default is 0); latents
        (B, 4, H/f, W/f): the starting noise, else drawn with `generator`; output_type "pil", or
        "pt" for a tensor; sampler: one of SAMPLERS, else the checkpoint's own; progress: show a
        bar. ValueError for arguments that make no sense.
        """
        given = (num_inference_steps, guidance_scale, guidance_rescale)
        own = vars(self.defaults).values()
        num_inference_steps, guidance_scale, guidance_rescale = (
            a if b is None else b for a, b in zip(own, given, strict=True)
        )
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        if not prompts:
            raise ValueError("there is no prompt to draw")
        if num_images_per_prompt < 1:
            raise ValueError(
                f"num_images_per_prompt must be at least 1, not {num_images_per_prompt}"
            )
        if not math.isfinite(guidance_scale):
            raise ValueError(f"guidance_scale must be a number, not {guidance_scale}")
        if not 0 <= guidance_rescale <= 1:
            raise ValueError(f"guidance_rescale must be from 0 to 1, not {guidance_rescale}")
        if output_type not in ("pil", "pt"):
            raise ValueError(f'output_type must be "pil" or "pt", not {output_type!r}')
        negatives = (
            [negative_prompt or ""] if not isinstance(negative_prompt, list) else negative_prompt
        )
        if len(negatives) not in (1, len(prompts)):
            raise ValueError(f"{len(negatives)} negative prompts do not fit {len(prompts)} prompts")
        negatives = negatives * (len(prompts) // len(negatives))

        context, empty = (
            self.encode_prompt(p).repeat_interleave(num_images_per_prompt, dim=0)
            for p in (prompts, negatives)
        )
        if latents is None:
            latents = self.draw_latents(len(context), height, width, generator)
        if len(latents) != len(context):
            raise ValueError(f"{len(latents)} latents do not fit {len(context)} pictures")
        latents = latents.to(self.device)
        denoise = classifier_free(self.unet, context, empty, guidance_scale, guidance_rescale)
        latents = sample(
            denoise,
            self.schedule,
            latents,
            num_inference_steps,
            progress,
            sampler=sampler or self.sampler,
            eta=eta,
            generator=generator,
        )
        images = self.decode(latents)
        return Output(to_pil(images) if output_type == "pil" else images)

    def draw_latents(self, count: int, height=None, width=None, generator=None) -> Tensor:
        """The starting noise (count, 4, H/f, W/f), drawn where the generator lives."""
        f, side = self.autoencoder.config.downscale, self.unet.config.sample_size
        least = f * 2 ** (len(self.unet.config.block_out_channels) - 1)
        size = [pixels or side * f for pixels in (height, width)]
        if any(pixels < 1 or pixels % least for pixels in size):
            raise ValueError(
                f"height and width must be multiples of {least}, not {size[0]}x{size[1]}"
            )
        shape = (count, self.unet.config.in_channels, size[0] // f, size[1] // f)
        device = generator.device if generator else self.device
        return torch.randn(shape, generator=generator, device=device)

    def save_pretrained(self, directory: str | Path, dtype: torch.dtype | None = None) -> None:
        """Write a diffusers pipeline directory, and `clip/` beside it if there is a CLIP.

        dtype: how the U-Net, the autoencoder and CLIP are stored; the text encoder, which
        transformers computes in as it is stored, stays float32.
        """
        directory = Path(directory)
        checkpoint.save_unet(directory / "unet", self.unet, dtype)
        checkpoint.save_autoencoder(directory / "vae", self.autoencoder, dtype)
        checkpoint.save_text_encoder(directory / "text_encoder", self.text_encoder)
        if self.clip:
            checkpoint.save_clip(directory / "clip", self.clip, dtype)
        self.tokenizer.save(directory / "tokenizer")
        checkpoint.save_scheduler(
            directory / "scheduler", asdict(self.schedule.config), self.sampler
        )
        checkpoint.save_index(directory, self.sampler)

    @classmethod
    def from_pretrained(
        cls, directory: str | Path = WEIGHTS, device: str | torch.device = "cpu"
    ) -> "StableDiffusion":
        """Read a diffusers pipeline directory, whoever wrote it; minisd's own weights by default.

        Raises ValueError with one clear line if the directory is missing, damaged or of another
        architecture than Stable Diffusion 1.x.
        """
        directory = Path(directory)
        if not (directory / "model_index.json").exists():
            raise ValueError(
                f"{directory} holds no checkpoint (no model_index.json); "
                "train one with: python -m minisd train"
            )
        names = [f.name for f in fields(ScheduleConfig)]
        schedule, sampler = checkpoint.load_scheduler(directory / "scheduler", names)
        pipe = cls(
            Tokenizer.from_directory(directory / "tokenizer"),
            checkpoint.load_text_encoder(directory / "text_encoder"),
            checkpoint.load_unet(directory / "unet"),
            checkpoint.load_autoencoder(directory / "vae"),
            NoiseSchedule(ScheduleConfig(**schedule)),
            checkpoint.load_clip(directory / "clip") if (directory / "clip").exists() else None,
            sampler,
        )
        return pipe.to(device)


def to_pil(images: Tensor) -> list[Image.Image]:
    """Pictures (B, 3, H, W) in [0, 1] -> PIL images."""
    pixels = (images * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    return [Image.fromarray(picture) for picture in pixels]
