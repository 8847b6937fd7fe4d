"""Edit a picture: what one prompt says of it becomes what another says, and the rest stays."""

import torch
from torch import Tensor

from .call import Source, read_source
from .diffusion import Generators, flow_edit, sample
from .models import change_cross_attention
from .pipeline import StableDiffusion


@torch.no_grad()
def prompt_to_prompt(
    pipe: StableDiffusion,
    image,
    prompt: list[str],
    new_prompt: list[str],
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
    x = pipe.invert(image, prompt, num_inference_steps, strength)  # (B, 4, H/f, W/f)
    contexts = [pipe.encode_prompt(p) for p in (prompt, [""] * len(x), new_prompt)]
    context = torch.cat(contexts)  # (3B, L, D)
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
    prompt: list[str],
    new_prompt: list[str],
    num_inference_steps: int = 50,
    strength: float = 0.65,
    guidance_scale: float = 3.0,
    generator: Generators = None,
) -> Tensor:
    """The same by FlowEdit, which follows the difference of the two prompts' guesses alone.

    Where the shape itself has to change, it keeps place and size better than prompt-to-prompt.
    """
    old, empty, new = map(pipe.encode_prompt, (prompt, [""] * len(prompt), new_prompt))
    source = read_source(pipe, image, None, strength, pipe.draw_latents(len(old)))
    start = source.start(num_inference_steps)
    denoisers = pipe.denoiser(old, None), pipe.denoiser(new, empty, guidance_scale, 0.0)
    options = {"steps": num_inference_steps, "start": start, "generator": generator}
    return pipe.decode(flow_edit(*denoisers, pipe.schedule, source.x0, **options))
