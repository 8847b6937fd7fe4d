"""What surrounds the walk in pipeline.py: arguments, the user's callback, what is returned.

Names, meaning and refusals are those of `diffusers.StableDiffusionPipeline.__call__`.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import count

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from .diffusion import Point, inpaint
from .errors import InputError, check_choice, check_number, quote, warn
from .pictures import resize, to_pixels

# diffusers' pipelines have the first three; the fourth is what its schedulers call the guess of x0
CALLBACK_TENSORS = ("latents", "prompt_embeds", "negative_prompt_embeds", "pred_original_sample")


@dataclass
class Output:
    """What a call returns: pictures, as a list of PIL images or as `output_type` says."""

    images: list[Image.Image] | np.ndarray | Tensor


def to_numpy(images: Tensor) -> np.ndarray:
    """Pictures (B, 3, H, W) in [0, 1] -> (B, H, W, 3) float32."""
    return images.permute(0, 2, 3, 1).float().cpu().numpy()


def to_pil(images: Tensor) -> list[Image.Image]:
    """Pictures (B, 3, H, W) in [0, 1] -> PIL images."""
    pixels = (images * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    return [Image.fromarray(picture) for picture in pixels]


OUTPUT_TYPES = {"pil": to_pil, "np": to_numpy, "pt": lambda x: x, "latent": lambda x: x}


@dataclass(frozen=True)
class Source:
    """What a call starts from: noise alone, or a picture, of which a mask may keep a part."""

    strength: float = 1.0  # the share of the steps that is taken
    x0: Tensor | None = None  # the picture's latents (B, 4, H/f, W/f)
    pixels: Tensor | None = None  # (B, 3, H, W) in [0, 1]
    mask: Tensor | None = None  # (B, 1, H, W) bool: where something new is drawn

    def start(self, steps: int) -> int:
        """The index of the first step, as diffusers rounds it. Warns if there is none."""
        taken = int(steps * self.strength)
        if 0 < self.strength < 1 and not taken:
            share = f"strength {self.strength:g} of {steps} steps"
            warn(f"{share} is less than one step: nothing changes")
        return steps - taken

    def below(self) -> Tensor | None:
        """The latents under the noise at the first step. Like diffusers, a hole begins as noise."""
        return None if self.mask is not None and self.strength == 1 else self.x0

    def keep(self, noise: Tensor) -> Callable[[Point, Tensor], Tensor] | None:
        """What each step does to the latents outside the mask.

        Inside are all that the hole touches, so that none is too small. diffusers looks at one
        pixel for each latent; on holes of whole latents both agree.
        """
        if self.mask is None:
            return None
        mask = F.adaptive_max_pool2d(self.mask.float(), noise.shape[2:])  # (B, 1, H/f, W/f)
        return inpaint(self.x0, noise, mask)

    def paste(self, images: Tensor) -> Tensor:
        """Drawn pictures (B, 3, H, W), with every pixel outside the mask as it was."""
        return images if self.mask is None else torch.where(self.mask, images, self.pixels)


@dataclass(frozen=True)
class SamplingDefaults:
    """How a checkpoint is best sampled; stored with it. The values here are diffusers' own."""

    num_inference_steps: int = 50
    guidance_scale: float = 7.5
    guidance_rescale: float = 0.0

    def __post_init__(self):
        """InputError for impossible values. The schedule checks the number of steps."""
        check_number("num_inference_steps", self.num_inference_steps, whole=True)
        check_number("guidance_scale", self.guidance_scale)
        check_number("guidance_rescale", self.guidance_rescale, 0, 1)

    def override(self, *values) -> "SamplingDefaults":
        """A copy with these values, in the order above, where they are not None."""
        given = zip(vars(self), values, strict=True)
        return replace(self, **{name: value for name, value in given if value is not None})


def check_texts(name: str, texts) -> list[str]:
    """A text, or several in a list or tuple -> a list of texts."""
    several = [texts] if isinstance(texts, str) else texts
    if not isinstance(several, (list, tuple)) or not all(isinstance(t, str) for t in several):
        raise InputError(f"{name} must be a text or a list of texts, not {quote(texts)}")
    if not several:
        raise InputError(f"{name} is an empty list")
    return list(several)


def check_tensor(name: str, x, *shape: int | None) -> Tensor:
    """The tensor, if it has this shape (None: any length) and holds finite numbers."""
    if not isinstance(x, Tensor) or not x.is_floating_point():
        raise InputError(f"{name} must be a tensor of floats, not {quote(x)}")
    fits = x.dim() == len(shape) and all(a in (None, b) for a, b in zip(shape, x.shape))
    if not fits or not x.numel():
        wanted = ", ".join("any" if side is None else str(side) for side in shape)
        raise InputError(f"{name} must have the shape ({wanted}), not {tuple(x.shape)}")
    if not x.isfinite().all():
        raise InputError(f"{name} must hold finite numbers, not NaN or infinity")
    return x


def check_prompts(prompt, prompt_embeds, negative_prompt, negative_prompt_embeds, width: int):
    """-> prompts and negative prompts, each a list of texts or their embeddings (B, L, D = width).

    One negative prompt, or none, serves all prompts.
    """
    for name, texts, embeds in (
        ("prompt", prompt, prompt_embeds),
        ("negative_prompt", negative_prompt, negative_prompt_embeds),
    ):
        if texts is not None and embeds is not None:
            raise InputError(f"give {name} or {name}_embeds, not both")
        if embeds is not None:
            check_tensor(f"{name}_embeds", embeds, None, None, width)
    if prompt is None and prompt_embeds is None:
        raise InputError("give prompt or prompt_embeds")
    prompts = check_texts("prompt", prompt) if prompt_embeds is None else prompt_embeds
    if negative_prompt_embeds is not None:
        return prompts, negative_prompt_embeds
    negatives = check_texts("negative_prompt", "" if negative_prompt is None else negative_prompt)
    if len(negatives) not in (1, len(prompts)):
        raise InputError(f"{len(negatives)} negative prompts do not fit {len(prompts)} prompts")
    return prompts, negatives * (len(prompts) // len(negatives))


def check_combined(combine, count: int) -> list[tuple[list[str] | Tensor, float]]:
    """Further prompts and their weights, checked: one for each of `count` prompts."""
    several, checked = (list, tuple), []
    pairs = isinstance(combine, several) and all(isinstance(p, several) for p in combine)
    if not pairs or any(len(pair) != 2 for pair in combine):
        raise InputError(f"combine must list pairs (prompt, weight), not {quote(combine)}")
    for texts, weight in combine:
        if isinstance(texts, Tensor):
            check_tensor("a prompt to combine", texts, None, None, None)
        else:
            texts = check_texts("a prompt to combine", texts)
        check_number("the weight of a prompt to combine", weight)
        if len(texts) not in (1, count):
            raise InputError(f"{len(texts)} prompts to combine do not fit {count} prompts")
        if len(texts) < count:
            texts = [*texts] * count if isinstance(texts, list) else texts.expand(count, -1, -1)
        checked.append((texts, weight))
    return checked


def check_generator(generator, pictures: int) -> None:
    """InputError unless it is a generator, None, or a list with one for each picture."""
    several = generator if isinstance(generator, (list, tuple)) else [generator] * pictures
    if generator is not None and not all(isinstance(one, torch.Generator) for one in several):
        wrong = quote(generator)
        raise InputError(f"generator must be a torch.Generator or a list of them, not {wrong}")
    if len(several) != pictures:
        raise InputError(f"{len(several)} generators do not fit {pictures} pictures")


def check_options(num_images_per_prompt, output_type, timesteps, sigmas) -> None:
    """The smaller arguments of a call."""
    check_number("num_images_per_prompt", num_images_per_prompt, 1, whole=True)
    check_choice("output_type", output_type, OUTPUT_TYPES)
    if timesteps is not None or sigmas is not None:
        raise InputError("minisd takes no timesteps or sigmas; give num_inference_steps")


def read_source(
    pipe, image, mask_image, strength: float | None, noise: Tensor, latents: Tensor | None
) -> Source:
    """What a call starts from; noise (B, 4, H/f, W/f) is `latents`, or drawn if they are None."""
    if image is None and mask_image is not None:
        raise InputError("mask_image needs an image, of which it keeps a part")
    if image is None and latents is None and strength is not None:
        raise InputError("strength needs something to start from: image or latents")
    if strength is None:  # as in diffusers
        strength = 0.8 if image is not None and mask_image is None else 1.0
    if image is not None:
        return read_picture(pipe, image, strength, noise, mask_image)
    check_number("strength", strength, 0, 1)
    return Source(strength)


def read_picture(pipe, image, strength: float, noise: Tensor, mask_image=None) -> Source:
    """A picture, or one for each, to start from, of the size and number of the noise."""
    check_number("strength", strength, 0, 1)
    size = tuple(pipe.autoencoder.config.downscale * side for side in noise.shape[2:])

    def read(name: str, pictures, channels: int) -> Tensor:
        x = resize(name, to_pixels(name, pictures, channels), size).to(pipe.device)
        if len(noise) % len(x):
            raise InputError(f"{name} has {len(x)} pictures, which do not fit {len(noise)} to draw")
        return x.repeat_interleave(len(noise) // len(x), dim=0)

    pixels = read("image", image, 3)
    mask = None if mask_image is None else read("mask_image", mask_image, 1) >= 0.5
    if mask is not None and not mask.flatten(1).any(dim=1).all():
        warn("the mask is black, so nothing is drawn; white is 255 in bytes, 1 in other numbers")
    return Source(strength, pipe.encode(pixels).float(), pixels, mask)


def in_turn(*callbacks: Callable | None) -> Callable:
    """One callback of `trajectory` from several, each given what the one before returned."""

    def after(now: Point, x_s: Tensor) -> Tensor:
        for callback in filter(None, callbacks):
            changed = callback(now, x_s)
            x_s = x_s if changed is None else changed
        return x_s

    return after


def step_end(pipe, contexts: list, callback, names) -> Callable:
    """`callback_on_step_end` of diffusers, in the form in which `trajectory` calls it.

    contexts: [context, negative context or None], which the next step reads. As in diffusers the
    callback sees both in one tensor, negatives first, and may return others. If it returns the
    prompts' alone, guidance ends. InputError if the latents are no longer finite.
    """
    if callback is not None and not callable(callback):
        raise InputError(f"callback_on_step_end must be a function, not {quote(callback)}")
    names = getattr(callback, "tensor_inputs", names)  # diffusers' own callbacks name theirs
    if not isinstance(names, (list, tuple)) or any(n not in CALLBACK_TENSORS for n in names):
        listed = f"must list some of {', '.join(CALLBACK_TENSORS)}, not {quote(names)}"
        raise InputError(f"callback_on_step_end_tensor_inputs {listed}")
    step = count()

    def after(now: Point, x_s: Tensor) -> Tensor | None:
        if not x_s.isfinite().all():
            why = "damaged weights, a huge guidance_scale, or too much for half precision?"
            raise InputError(f"the latents are not finite numbers after timestep {now.t}: {why}")
        if callback is None:
            return None
        context, negative = contexts
        both = context if negative is None else torch.cat([negative, context])  # (B or 2B, L, D)
        tensors = dict(zip(CALLBACK_TENSORS, (x_s, both, negative, now.x0)))
        changed = callback(pipe, next(step), now.t, {name: tensors[name] for name in names})
        if not isinstance(changed, dict):
            raise InputError(f"callback_on_step_end must return a dict, not {quote(changed)}")
        latents, both = changed.get("latents", x_s), changed.get("prompt_embeds", both)
        check_tensor("latents of the callback", latents, *x_s.shape)
        check_tensor("prompt_embeds of the callback", both, None, None, context.shape[2])
        if len(both) not in (len(x_s), 2 * len(x_s)):
            raise InputError(f"{len(both)} prompt_embeds do not fit {len(x_s)} pictures")
        *negative, contexts[0] = both.to(context).split(len(x_s))
        contexts[1] = negative[0] if negative else None
        return latents.to(x_s)

    return after
