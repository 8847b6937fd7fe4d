"""StableDiffusion: prompt in, pictures out. Its `__call__` is the walk from one to the other."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .call import (
    OUTPUT_TYPES,
    Output,
    check_combined,
    check_generator,
    check_options,
    check_prompts,
    check_tensor,
    check_texts,
    in_turn,
    read_picture,
    read_source,
    step_end,
)
from .diffusion import (
    Denoiser,
    Generators,
    classifier_free,
    clip_guided,
    draw_noise,
    invert,
    sample,
)
from .errors import InputError, check_number, quote, shorten, warn
from .pretrained import Pretrained

COPIES = 4  # of a guess, with different noise, that CLIP looks at


class StableDiffusion(Pretrained):
    """A checkpoint, and the walk from a prompt to its pictures."""

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | list[str] | None = None,
        height: int | None = None,
        width: int | None = None,
        num_inference_steps: int | None = None,
        timesteps: None = None,
        sigmas: None = None,
        guidance_scale: float | None = None,
        negative_prompt: str | list[str] | None = None,
        num_images_per_prompt: int = 1,
        eta: float = 0.0,
        generator: Generators = None,
        latents: Tensor | None = None,
        prompt_embeds: Tensor | None = None,
        negative_prompt_embeds: Tensor | None = None,
        *,
        output_type: str = "pil",
        return_dict: bool = True,
        guidance_rescale: float | None = None,
        clip_skip: int | None = None,
        callback_on_step_end: Callable | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
        sampler: str | None = None,
        progress: bool = False,
        image=None,
        mask_image=None,
        strength: float | None = None,
        combine: Sequence[tuple[str | list[str] | Tensor, float]] = (),
        clip_guidance_scale: float = 0.0,
    ) -> Output | tuple:
        """From prompt to pixels. Arguments as in diffusers' pipelines, but for sampler, progress.

        None stands for the checkpoint's picture size, sampler and `defaults`. height and width are
        in pixels (diffusers ignores one without the other). guidance_scale 1 is no guidance, less
        leans towards the negative prompt (diffusers turns guidance off there). latents (B, 4, H/f,
        W/f): the starting noise, else drawn with `generator`; a list of generators has one for each
        picture. output_type "pil", "np" (B, H, W, 3), "pt" (B, 3, H, W), both in [0, 1], or
        "latent". sampler: one of SAMPLERS. progress: show a bar.

        image: what to start from, a picture for all prompts or one for each, of KINDS in
        pictures.py; its latents are the posterior's mean, where diffusers draws from the posterior.
        Then `latents` is the noise put on it. strength, from 0 to 1: the share of the steps that is
        taken; 0 changes nothing, 1 forgets the picture (0.8; 1 with a mask). mask_image: white
        where something new is drawn, black where every pixel stays. Without an image, `latents` are
        noised already as far as `strength` says, such as those of `invert`.

        combine: further prompts, each one text or one for each prompt, or their embeddings, with a
        weight beside the prompt's own, which is 1: AND, or NOT where it is negative.
        clip_guidance_scale: how far CLIP, which looks at each guess, moves it towards the prompt; 1
        is Bayes' rule.

        InputError if an argument makes no sense.
        """
        settings = self.defaults.override(num_inference_steps, guidance_scale, guidance_rescale)
        steps, scale, rescale = vars(settings).values()
        check_options(num_images_per_prompt, output_type, timesteps, sigmas)
        words = prompt, prompt_embeds, negative_prompt, negative_prompt_embeds
        prompts, negatives = check_prompts(*words, self.unet.config.cross_attention_dim)
        combine = check_combined(combine, len(prompts))
        if scale == 1 and not combine and (negative_prompt_embeds is not None or any(negatives)):
            warn("a negative prompt changes nothing without guidance, which begins above 1")

        # 1. Words become numbers: B pictures, L tokens each, D numbers a token.
        context = self.encode_prompt(prompts, num_images_per_prompt, clip_skip)  # (B, L, D)
        negative_context = self.encode_prompt(negatives, num_images_per_prompt)  # (B, L, D)
        more = [(self.encode_prompt(texts, num_images_per_prompt), w) for texts, w in combine]

        # 2. Every picture starts as noise, or as a picture under noise, of the size of its latents.
        noise = self.draw_latents(len(context), height, width, generator, latents)
        source = read_source(self, image, mask_image, strength, noise, latents)

        # 3. At each step the U-Net predicts the noise, and the sampler removes some of it.
        guided = scale != 1 or more
        contexts = [context, negative_context if guided else None]  # a callback may change them

        def denoise(x_t: Tensor, t: Tensor) -> Tensor:
            return self.denoiser(*contexts, scale, rescale, more)(x_t, t)  # (B, 4, H/f, W/f)

        check_number("clip_guidance_scale", clip_guidance_scale)
        if clip_guidance_scale:
            score = self.clip_score(prompts, num_images_per_prompt, generator)
            denoise = clip_guided(denoise, self.schedule, score, clip_guidance_scale)

        self.num_timesteps = steps
        asked = callback_on_step_end, callback_on_step_end_tensor_inputs
        callback = in_turn(source.keep(noise), step_end(self, contexts, *asked))
        options = {"sampler": sampler or self.sampler, "eta": eta, "generator": generator}
        options |= {"start": source.start(steps), "x0": source.below(), "callback": callback}
        latents = sample(denoise, self.schedule, noise, steps, progress, **options)  # as noise

        # 4. The decoder turns the clean latents into pixels.
        if output_type != "latent":
            images = source.paste(self.decode(latents))  # (B, 3, H, W)
        images = OUTPUT_TYPES[output_type](latents if output_type == "latent" else images)
        return Output(images) if return_dict else (images, None)

    @torch.no_grad()
    def encode_prompt(
        self, prompts: str | list[str] | Tensor, num_images_per_prompt: int = 1, clip_skip=None
    ) -> Tensor:
        """Prompts, or their embeddings (B, L, D) -> context (B, L, D), each repeated.

        clip_skip: how many layers of the text encoder to leave out at its end. Warns of cut-off and
        unknown words.
        """
        if isinstance(prompts, Tensor):
            context = prompts.to(self.device, self.dtype)
        else:
            prompts, skip = check_texts("prompt", prompts), 0 if clip_skip is None else clip_skip
            check_number("clip_skip", skip, 0, len(self.text_encoder.encoder.layers), whole=True)
            self.tell_of_words(prompts)
            context = self.text_encoder(self.tokenizer(prompts).to(self.device), skip)
        return context.repeat_interleave(num_images_per_prompt, dim=0)

    def tell_of_words(self, prompts: list[str]) -> None:
        """Warn of words that the tokenizer cuts off, and of those that training never showed."""
        unknown: list[str] = []
        for prompt in dict.fromkeys(prompts):
            unknown += self.tokenizer.unknown_words(prompt)
            if cut := self.tokenizer.cut(prompt):
                warn(f"the prompt is too long; this was cut: {quote(cut, 200)}")
        if unknown:
            words = shorten(", ".join(dict.fromkeys(unknown)), 200)
            warn(f"the model never saw these words: {words}")

    def draw_latents(
        self, count: int, height=None, width=None, generator: Generators = None, latents=None
    ) -> Tensor:
        """The starting noise (count, 4, H/f, W/f), float32: `latents` if given, else drawn."""
        f, channels = self.autoencoder.config.downscale, self.unet.config.in_channels
        size = [pixels or self.unet.config.sample_size * f for pixels in (height, width)]
        for name, pixels in zip(("height", "width"), size):
            check_number(name, pixels, whole=True)
        least = max(8, f)  # diffusers asks for multiples of 8 even where f is 4
        if any(pixels < 1 or pixels % least for pixels in size):
            asked = "x".join(map(str, size))
            raise InputError(f"height and width must be multiples of {least}, not {asked}")
        check_generator(generator, count)
        if latents is None:
            shape = (count, channels, *(pixels // f for pixels in size))
            return draw_noise(shape, generator, self.device)
        wanted = (pixels and pixels // f for pixels in (height, width))  # None: as latents are
        check_tensor("latents", latents, None, channels, *wanted)
        if len(latents) != count:
            raise InputError(f"{len(latents)} latents do not fit {count} pictures")
        return latents.to(self.device, torch.float32)

    def denoiser(
        self,
        context: Tensor,
        negative_context: Tensor | None,
        guidance_scale: float | None = None,
        guidance_rescale: float | None = None,
        combined: Sequence[tuple[Tensor, float]] = (),
    ) -> Denoiser:
        """The guided U-Net for contexts (B, L, D); guidance that is None is the checkpoint's.

        Without a negative context there is no guidance, and no combined prompts.
        """
        own = self.defaults.override(None, guidance_scale, guidance_rescale)
        scale, rescale = float(own.guidance_scale), own.guidance_rescale
        if negative_context is None:
            scale, combined = 1.0, ()
        others = [] if negative_context is None else [negative_context, *(c for c, _ in combined)]
        for other in others:
            if other.shape != context.shape:
                shapes = f"{tuple(context.shape)} and {tuple(other.shape)}"
                raise InputError(f"prompts and negative prompts must have one shape, not {shapes}")

        def predict(x: Tensor, t: Tensor, context: Tensor) -> Tensor:
            return self.unet(x.to(self.dtype), t, context).float()  # samplers compute in float32

        return classifier_free(predict, context, negative_context, scale, rescale, combined)

    def clip_score(
        self, prompts: list[str], num_images_per_prompt: int = 1, generator: Generators = None
    ) -> Callable[[Tensor], Tensor]:
        """A function that says how well latents (B, 4, H/f, W/f) fit their prompts: (B,) logits.

        It is the mean over a few copies with noise of variance 1, whose gradient is less ragged.
        Source: Smilkov et al. 2017, "SmoothGrad".
        """
        clip = self.guiding_clip()
        if isinstance(prompts, Tensor):
            raise InputError("CLIP guidance needs the prompt in words, which CLIP can read")
        if torch.is_inference_mode_enabled():
            raise InputError("CLIP guidance needs gradients; leave torch.inference_mode()")
        texts = clip.encode_text(self.tokenizer(prompts).to(self.device))  # (B, P)
        texts = texts.repeat_interleave(num_images_per_prompt, dim=0)
        side = clip.config.vision.image_size

        def score(latents: Tensor) -> Tensor:
            noise = [draw_noise(latents.shape, generator, self.device) for _ in range(COPIES)]
            copies = (latents + torch.stack(noise)).flatten(0, 1)  # (copies B, 4, H/f, W/f)
            images = self.pixels(copies)  # (copies B, 3, H, W)
            if images.shape[2:] != (side, side):
                found = "x".join(map(str, images.shape[2:]))
                raise InputError(f"CLIP reads pictures of {side}x{side} pixels only, not {found}")
            seen = clip.encode_image(images).unflatten(0, (COPIES, -1))  # (copies, B, P)
            return clip.logit_scale.exp() * (seen * texts).sum(dim=2).float().mean(dim=0)

        return score

    def pixels(self, latents: Tensor) -> Tensor:
        """What the decoder makes of latents of unit variance: about [-1, 1], differentiable."""
        latents = latents / self.autoencoder.config.scaling_factor
        return self.autoencoder.decode(latents.to(self.dtype))

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Latents of unit variance (B, 4, H/f, W/f) -> pictures (B, 3, H, W) in [0, 1].

        InputError if numbers of the pictures are not finite.
        """
        images = self.pixels(latents).float()
        if not images.isfinite().all():
            raise InputError("these weights or latents give pictures that are not finite numbers")
        return (images / 2 + 0.5).clamp(0, 1)

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """Pictures (B, 3, H, W) in [0, 1] -> latents of unit variance (B, 4, H/f, W/f)."""
        pixels = (2 * images.to(self.device) - 1).to(self.dtype)
        latents = self.autoencoder.encode(pixels).mean
        return latents * self.autoencoder.config.scaling_factor

    @torch.no_grad()
    def invert(
        self,
        image,
        prompt: str | list[str] | Tensor = "",
        num_inference_steps: int | None = None,
        strength: float = 1.0,
        guidance_scale: float = 1.0,
    ) -> Tensor:
        """The latents (B, 4, H/f, W/f) from which DDIM draws these pictures for these prompts.

        They are noised as far as strength says: `self(prompt, latents=..., strength=strength,
        sampler="ddim")` with the same steps and guidance draws the picture again.
        """
        steps = self.defaults.override(num_inference_steps, None, None).num_inference_steps
        context = self.encode_prompt(prompt)  # (B, L, D)
        source = read_picture(self, image, strength, self.draw_latents(len(context)))
        empty = self.encode_prompt([""] * len(context))
        denoise = self.denoiser(context, empty, guidance_scale, 0.0)
        return invert(denoise, self.schedule, source.x0, steps, source.start(steps))
