"""Edit a picture: what one prompt says of it becomes what another says, and the rest stays."""

import torch
from torch import Tensor

from .call import SamplingDefaults, Source, check_texts, read_picture
from .diffusion import Generators, flow_edit, sample
from .errors import InputError, check_number
from .models import change_cross_attention
from .pipeline import StableDiffusion


def contexts(pipe: StableDiffusion, prompt, new_prompt) -> tuple[Tensor, Tensor, Tensor]:
    """Of the old prompts, of as many empty ones and of the new prompts: (B, L, D) each."""
    old, new = check_texts("prompt", prompt), check_texts("new_prompt", new_prompt)
    if len(old) != len(new):
        raise InputError(f"{len(new)} new prompts do not fit {len(old)} prompts")
    return tuple(pipe.encode_prompt(texts) for texts in (old, [""] * len(old), new))


@torch.no_grad()
def prompt_to_prompt(
    pipe: StableDiffusion,
    image,
    prompt: str | list[str],
    new_prompt: str | list[str],
    num_inference_steps: int = 50,
    strength: float = 0.7,
    guidance_scale: float = 3.0,
    keep: float = 0.5,
) -> Tensor:
    """The pictures of `prompt`, as `new_prompt` would have them: (B, 3, H, W) in [0, 1].

    Inverts them as far as `strength` says; from there both prompts are drawn side by side, the old
    one without guidance, which leads back to the picture. In the share `keep` of the steps the new
    prompt's words look where the old one's looked, word for word, so that what they draw stays in
    place. Source: Hertz et al. 2022, "Prompt-to-prompt image editing with cross-attention control",
    algorithm 1, word swap.
    """
    check_number("keep", keep, 0, 1)
    SamplingDefaults(num_inference_steps, guidance_scale)  # which checks them
    old, empty, new = contexts(pipe, prompt, new_prompt)
    x = pipe.invert(image, old, num_inference_steps, strength)  # (B, 4, H/f, W/f)
    context = torch.cat([old, empty, new])  # (3B, L, D)
    start = Source(strength).start(num_inference_steps)
    calls = 0

    def look(name: str, maps: Tensor) -> Tensor | None:
        if calls > keep * (num_inference_steps - start):
            return None
        old, empty, _ = maps.chunk(3)
        return torch.cat([old, empty, old])

    def denoise(x_t: Tensor, t: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        old, new = x_t.to(pipe.dtype).chunk(2)
        old, empty, new = pipe.unet(torch.cat([old, new, new]), t, context).float().chunk(3)
        return torch.cat([old, empty + guidance_scale * (new - empty)])

    both = torch.cat([x, x])
    with change_cross_attention(pipe.unet, look):
        both = sample(denoise, pipe.schedule, both, num_inference_steps, start=start)
    return pipe.decode(both[len(x) :])


@torch.no_grad()
def exchange(
    pipe: StableDiffusion,
    image,
    prompt: str | list[str],
    new_prompt: str | list[str],
    num_inference_steps: int = 50,
    strength: float = 0.65,
    guidance_scale: float = 3.0,
    generator: Generators = None,
) -> Tensor:
    """The same by FlowEdit, which follows the difference of the two prompts' guesses alone.

    Where the shape itself has to change, it keeps place and size better than prompt-to-prompt.
    """
    SamplingDefaults(num_inference_steps, guidance_scale)  # which checks them
    old, empty, new = contexts(pipe, prompt, new_prompt)
    source = read_picture(pipe, image, strength, pipe.draw_latents(len(old)))
    start = source.start(num_inference_steps)
    denoisers = pipe.denoiser(old, None), pipe.denoiser(new, empty, guidance_scale, 0.0)
    options = {"steps": num_inference_steps, "start": start, "generator": generator}
    return pipe.decode(flow_edit(*denoisers, pipe.schedule, source.x0, **options))
