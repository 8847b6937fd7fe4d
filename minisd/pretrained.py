"""What a checkpoint holds: networks, schedule, how it is best sampled. Reads and writes it."""

import os
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn

from . import checkpoint
from .call import SamplingDefaults
from .diffusion import SAMPLERS, NoiseSchedule, ScheduleConfig
from .errors import InputError, check_choice, located, shorten
from .files import SHIPPED
from .machine import pick_device
from .models import CLIP, Autoencoder, TextEncoder, UNet
from .tokenizer import Tokenizer

WEIGHTS = SHIPPED / "weights"
DTYPES = (torch.float32, torch.bfloat16, torch.float16)  # in which the networks compute


def check_dtype(dtype: torch.dtype | None) -> None:
    """InputError unless networks can compute and be stored in it."""
    if dtype is not None:
        check_choice("dtype", dtype, DTYPES)


@dataclass(eq=False, repr=False)
class Pretrained:
    """A Stable Diffusion checkpoint in memory. `StableDiffusion` draws with it."""

    tokenizer: Tokenizer
    text_encoder: TextEncoder
    unet: UNet
    autoencoder: Autoencoder
    schedule: NoiseSchedule
    clip: CLIP | None = None
    sampler: str = "ddim"
    defaults: SamplingDefaults = field(default_factory=SamplingDefaults)
    data: dict | None = None  # what the networks were trained on, e.g. {"name": "one"}
    guide: CLIP | None = None  # that an extension brings to guide in place of `clip`; not saved
    num_timesteps: int | None = field(default=None, init=False)  # of the last call; callbacks ask

    def __post_init__(self):
        for network in self.networks:
            network.eval()

    @property
    def networks(self) -> list[nn.Module]:
        models = (self.text_encoder, self.unet, self.autoencoder, self.clip, self.guide)
        return [model for model in models if model is not None]

    @property
    def device(self) -> torch.device:
        return self.unet.conv_in.weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self.unet.conv_in.weight.dtype

    def to(self, device=None, dtype: torch.dtype | None = None) -> "Pretrained":
        """Move every network to a device, a dtype (the only argument, if you like), or both.

        Returns itself. The networks compute in the dtype, the sampler in float32. InputError if
        there is no such device, or the dtype is not one of DTYPES.
        """
        if isinstance(device, torch.dtype):
            device, dtype = None, device
        check_dtype(dtype)
        device = self.device if device is None else pick_device(device)
        for network in self.networks:
            network.to(device, dtype)
        return self

    def guiding_clip(self) -> CLIP:
        """The CLIP that guides. InputError if there is none."""
        if not self.clip:
            raise InputError("clip guidance needs a checkpoint with CLIP, and this one has none")
        return self.guide or self.clip

    def save_pretrained(self, directory: str | Path, dtype: torch.dtype | None = None) -> None:
        """Write a diffusers pipeline directory, with minisd.json and, if there is CLIP, `clip/`.

        dtype: of all networks on disk but the text encoder, which stays float32, because
        transformers computes in the type in which it is stored. A checkpoint that was there is
        replaced; if that is cut short, what is left is refused at loading.
        """
        check_dtype(dtype)
        directory, schedule = Path(directory), vars(self.schedule.config)
        # first, as diffusers has no words for some schedules
        checkpoint.save_scheduler(directory / "scheduler", schedule, self.sampler)
        checkpoint.clear(directory)
        checkpoint.save_unet(directory / "unet", self.unet, dtype)
        size = self.unet.config.sample_size * self.autoencoder.config.downscale
        checkpoint.save_autoencoder(directory / "vae", self.autoencoder, dtype, sample_size=size)
        checkpoint.save_text_encoder(directory / "text_encoder", self.text_encoder, torch.float32)
        if self.clip:
            checkpoint.save_clip(directory / "clip", self.clip, dtype)
        checkpoint.save_tokenizer(directory / "tokenizer", self.tokenizer)
        checkpoint.save_sampling(directory, vars(self.defaults), self.data)
        checkpoint.save_index(directory, self.sampler)

    @classmethod
    def from_pretrained(
        cls,
        directory: str | Path = WEIGHTS,
        device: str | torch.device = "cpu",
        dtype: torch.dtype | None = None,
        torch_dtype: torch.dtype | None = None,
    ) -> "Pretrained":
        """Read a diffusers pipeline directory, whoever wrote it; minisd's own weights by default.

        dtype: in which the networks compute, float32 by default; diffusers says torch_dtype, too.
        InputError if it is missing, damaged or of another architecture than Stable Diffusion 1.x.
        """
        directory = Path(directory)
        if not os.path.exists(directory / "model_index.json"):  # Path.exists fails on long names
            what = f"{shorten(str(directory), 200)} holds no checkpoint (no model_index.json)"
            if os.path.exists(directory / "config.json"):
                raise InputError(f"{what}, but an extension or one network; give a checkpoint")
            begun = os.path.exists(directory / "training")
            resume = f" --out {directory} --resume" if begun else ""
            raise InputError(f"{what}; train one with: python -m minisd train{resume}")
        checkpoint.check_index(directory)
        config, sampler = checkpoint.load_scheduler(directory / "scheduler")
        with located(directory / "scheduler" / "scheduler_config.json"):
            schedule = NoiseSchedule(ScheduleConfig(**config))
        sampling, data = checkpoint.load_sampling(directory, vars(SamplingDefaults()))
        with located(directory / "minisd.json"):
            defaults = SamplingDefaults(**sampling)
            if sampling:  # InputError if the sampler cannot take that many steps
                SAMPLERS[sampler].pairs(schedule, defaults.num_inference_steps)
        text_encoder = checkpoint.load_text_encoder(directory / "text_encoder")
        pipe = cls(
            checkpoint.load_tokenizer(directory / "tokenizer", text_encoder.config.max_length),
            text_encoder,
            checkpoint.load_unet(directory / "unet"),
            checkpoint.load_autoencoder(directory / "vae"),
            schedule,
            checkpoint.load_clip(directory / "clip") if (directory / "clip").exists() else None,
            sampler,
            defaults,
            data,
        )
        parts = text_encoder, pipe.unet, pipe.autoencoder, pipe.clip
        checkpoint.check_parts(directory, pipe.tokenizer, *parts)
        return pipe.to(device, dtype or torch_dtype)
