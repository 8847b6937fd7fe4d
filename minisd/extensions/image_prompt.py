"""Image prompts: a picture says what to draw, beside the words or instead of them.

CLIP turns the picture into one vector, a small projection turns that into four tokens, as if they
were words. They get keys and values of their own in every cross-attention, and what the pixels
find there is added to what they find in the words. Nothing else is trained.

Source: Ye et al. 2023, "IP-Adapter: text compatible image prompt adapter for text-to-image
diffusion models". Attribute names are those of its files, which diffusers loads.
"""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from ..call import Output, check_combined, check_prompts, to_pil
from ..checkpoint import fingerprint, load_extension, save_extension, save_image_encoder
from ..data import Dataset
from ..errors import InputError, check_number
from ..models import CLIP, UNet
from ..models.layers import MultiHeadAttention
from ..models.unet import Attention, TransformerBlock
from ..pictures import open_picture, resize, to_pixels
from ..pipeline import StableDiffusion
from ..training import Recipe, Run, denoising_loss, generator_for
from ..training.pool import Pool, encode_pool
from ..training.stages import Stage, train_stage
from . import Wrapper

NAME, FILE = "image-prompt", "ip_adapter.safetensors"
RECIPE = Recipe(steps=600, batch_size=64, learning_rate=5e-3)
TOKENS = 4  # that a picture becomes
GUIDANCE = 3.0  # a checkpoint's own guidance may be in its weights; the adapter has none in its
NO_WORDS, NO_IMAGE = 0.5, 0.1  # shares in training; where words say all, a picture adds little
OPTIONS = {
    "--image-prompt": {"type": Path, "metavar": "FILE", "help": "a picture that says what to draw"},
    "--image-prompt-scale": {
        "type": float,
        "metavar": "S",
        "help": "what --image-prompt counts beside the words (1; about 0.5 where they differ)",
    },
}


class ImageProjection(nn.Module):
    """CLIP's embedding of a picture (B, P) -> tokens (B, T, D), as wide as the words' context."""

    def __init__(self, width: int, context_dim: int):
        super().__init__()
        self.proj = nn.Linear(width, TOKENS * context_dim)
        self.norm = nn.LayerNorm(context_dim)

    def forward(self, embeds: Tensor) -> Tensor:
        return self.norm(self.proj(embeds).unflatten(1, (TOKENS, -1)))  # (B, T, D)


class DecoupledAttention(nn.Module):
    """Pixels x (B, N, C) attend to words and picture apart; context (B, L + T, D) holds both.

    Ye et al. 2023, equation 5; with `scale`, equation 8.
    """

    def __init__(self, attn2: Attention, image: nn.ModuleDict, scale: float):
        super().__init__()
        self.attn2, self.image, self.scale = attn2, image, scale
        self.attention = MultiHeadAttention(attn2.attention.heads)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        words, image = context[:, :-TOKENS], context[:, -TOKENS:]  # (B, L or T, D)
        old, new = self.attn2, self.image
        q = old.to_q(x)  # (B, N, C)
        h = old.attention(q, old.to_k(words), old.to_v(words))  # (B, N, C)
        more = self.attention(q, new["to_k_ip"](image), new["to_v_ip"](image))  # (B, N, C)
        return old.to_out[0](h + self.scale * more)  # (B, N, C)


def blocks_of(unet: UNet) -> list[TransformerBlock]:
    """Those with cross-attention, in the order in which diffusers counts them."""
    parts = nn.ModuleList([*unet.down_blocks, *unet.up_blocks, unet.mid_block])
    return [module for module in parts.modules() if isinstance(module, TransformerBlock)]


class ImageAdapter(nn.Module):
    """All that is trained: the projection, and keys and values for each cross-attention."""

    def __init__(self, unet: UNet, width: int):
        super().__init__()
        self.image_proj = ImageProjection(width, unet.config.cross_attention_dim)
        self.ip_adapter = nn.ModuleDict()
        for i, block in enumerate(blocks_of(unet)):  # diffusers counts the self-attentions, too
            k, v = (copy.deepcopy(m) for m in (block.attn2.to_k, block.attn2.to_v))
            self.ip_adapter[str(2 * i + 1)] = nn.ModuleDict({"to_k_ip": k, "to_v_ip": v})

    def hidden_matrices(self) -> list[nn.Parameter]:
        """The weights for Muon."""
        return [p for p in self.parameters() if p.ndim > 1]

    @contextmanager
    def attached(self, unet: UNet, scale: float = 1.0) -> Iterator[None]:
        """Inside, the contexts of the U-Net end with a picture's tokens: (B, L + T, D)."""
        blocks = blocks_of(unet)
        before = [block.attn2 for block in blocks]
        try:
            for block, image in zip(blocks, self.ip_adapter.values(), strict=True):
                block.attn2 = DecoupledAttention(block.attn2, image, scale)
            yield
        finally:
            for block, attn2 in zip(blocks, before):
                block.attn2 = attn2


def clip_of(pipe: StableDiffusion) -> CLIP:
    """InputError if there is none."""
    if pipe.clip is None:
        raise InputError("an image prompt needs CLIP to see it, but this checkpoint has no clip/")
    return pipe.clip


@torch.no_grad()
def embed(clip: CLIP, images: Tensor) -> Tensor:
    """Pictures (B, 3, S, S) in [-1, 1] -> where CLIP puts them, not normalised: (B, P)."""
    return clip.visual_projection(clip.vision_model(images))


def draw(pool: Pool, embeds: Tensor, size: int, generator: torch.Generator) -> tuple:
    """A batch: latents (B, 4, H, W), contexts (B, L, D), the pictures' embeddings (B, P).

    Some contexts are that of the empty prompt, and some embeddings zeros.
    """
    options = {"generator": generator, "device": embeds.device}
    chosen = torch.randint(len(embeds), (size,), **options)
    words, image = torch.rand((2, size, 1), **options)  # (B, 1) each
    context = torch.where(words[..., None] < NO_WORDS, pool.empty, pool.contexts[chosen])
    return pool.latents[chosen], context, embeds[chosen].masked_fill(image < NO_IMAGE, 0.0)


def extend(run: Run, pipe: StableDiffusion) -> "ImagePrompted":
    """Train an adapter on the pool's pictures, each being its own image prompt."""
    clip = clip_of(pipe)
    pool = encode_pool(run, pipe.autoencoder, pipe.tokenizer, pipe.text_encoder)
    pictures = run.dataset.pool(run.seed, run.device)  # the same ones again
    embeds = torch.cat([embed(clip, batch.images) for batch in pictures])  # (N, P)
    unet = copy.deepcopy(pipe.unet).requires_grad_(False)
    torch.manual_seed(run.seed)
    adapter = ImageAdapter(pipe.unet, embeds.shape[1]).to(run.device)
    size = run.recipes["image_prompt"].batch_size

    def loss_of_step(step: int) -> Tensor:
        generator = generator_for("image prompts", step, run.seed, run.device)
        x0, context, image = draw(pool, embeds, size, generator)
        context = torch.cat([context, adapter.image_proj(image)], dim=1)  # (B, L + T, D)
        return denoising_loss(unet, pipe.schedule, x0, context, generator)

    with adapter.attached(unet):
        stage = Stage("image_prompt", adapter, loss_of_step, [unet])
        return ImagePrompted(pipe, train_stage(run, stage))


class ImagePrompted(Wrapper):
    """A pipeline that also takes a picture as a prompt."""

    def __init__(self, pipe: StableDiffusion, adapter: ImageAdapter):
        super().__init__(pipe)
        self.adapter = adapter

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | list[str] | None = None,
        *,
        image_prompt,
        image_prompt_scale: float = 1.0,
        prompt_embeds: Tensor | None = None,
        guidance_scale: float | None = None,
        negative_prompt: str | list[str] | None = None,
        negative_prompt_embeds: Tensor | None = None,
        clip_skip: int | None = None,
        combine: Sequence[tuple[str | list[str] | Tensor, float]] = (),
        **call,
    ) -> Output | tuple:
        """The pipeline's own call, and its arguments, but for these.

        image_prompt: a picture for all prompts or one for each, of KINDS in pictures.py; several
        also for one prompt, or for none. image_prompt_scale: what they count beside the words; 0 is
        the pipeline without them, and where words and picture differ, 0.4 to 0.5 obeys both best.
        guidance_scale is GUIDANCE by default, and leads away from what has no picture. Prompts to
        combine are words alone.
        """
        check_number("image_prompt_scale", image_prompt_scale, 0)
        if call.get("clip_guidance_scale"):
            raise InputError("an image prompt takes no CLIP guidance: leave out one of them")
        pipe, clip = self.pipe, clip_of(self.pipe)
        if prompt is None and prompt_embeds is None:
            prompt = ""
        words = prompt, prompt_embeds, negative_prompt, negative_prompt_embeds
        prompts, negatives = check_prompts(*words, pipe.unet.config.cross_attention_dim)
        combine = check_combined(combine, len(prompts))
        size = (clip.config.vision.image_size,) * 2
        pixels = resize("image_prompt", to_pixels("image_prompt", image_prompt), size)
        count = max(len(prompts), len(pixels))  # B
        project = self.adapter.to(pipe.device, pipe.dtype).image_proj
        embeds = embed(clip, (2 * pixels - 1).to(pipe.device, pipe.dtype))  # (B or 1, P)

        def for_all(name: str, x: Tensor) -> Tensor:
            if len(x) not in (1, count):
                raise InputError(f"{len(x)} {name} do not fit {count} pictures")
            return x.expand(count, -1, -1)

        def both(name: str, context: Tensor, embeds: Tensor) -> Tensor:
            image = for_all("image prompts", project(embeds))  # (B, T, D)
            return torch.cat([for_all(name, context), image], dim=1)  # (B, L + T, D)

        context = pipe.encode_prompt(prompts, clip_skip=clip_skip)  # (B or 1, L, D)
        call["prompt_embeds"] = both("prompts", context, embeds)
        more, nothing = [(pipe.encode_prompt(p), w) for p, w in combine], torch.zeros_like(embeds)
        call["combine"] = [(both("prompts to combine", c, nothing), w) for c, w in more]
        negative = {"negative_prompt": negative_prompt}
        negative |= {"negative_prompt_embeds": negative_prompt_embeds}
        guidance_scale = GUIDANCE if guidance_scale is None else guidance_scale
        if guidance_scale != 1 or combine:
            context = pipe.encode_prompt(negatives)
            negative = {"negative_prompt_embeds": both("negative prompts", context, nothing)}
        with self.adapter.attached(pipe.unet, image_prompt_scale):
            return pipe(guidance_scale=guidance_scale, **negative, **call)

    def save_pretrained(self, folder: str | Path, dtype=None, image_encoder: bool = False) -> None:
        """Write the adapter, in IP-Adapter's layout; image_encoder: and CLIP's, for diffusers.

        There: pipe.load_ip_adapter(folder, subfolder="", weight_name="ip_adapter.safetensors"),
        of a pipeline whose feature_extractor was read from folder/image_encoder.
        """
        folder, stands_on = Path(folder), fingerprint(self.unet, self.clip)
        save_extension(folder, self.adapter, {}, stands_on, dtype, FILE)
        if image_encoder:
            save_image_encoder(folder / "image_encoder", self.clip, dtype)


def load(folder: str | Path, pipe: StableDiffusion) -> ImagePrompted:
    """What `extend` returned, read again."""
    width = clip_of(pipe).config.projection_dim
    stands_on = fingerprint(pipe.unet, pipe.clip)
    build = lambda _: ImageAdapter(pipe.unet, width)  # noqa: E731
    adapter = load_extension(folder, NAME, build, stands_on, FILE)
    return ImagePrompted(pipe, adapter)


def use(pipe: StableDiffusion, options, call: dict) -> StableDiffusion | ImagePrompted:
    if options.image_prompt is None:
        if options.image_prompt_scale is not None:
            raise InputError("--image-prompt-scale needs an --image-prompt")
        return pipe
    call["image_prompt"] = open_picture(options.image_prompt)
    if options.image_prompt_scale is not None:
        call["image_prompt_scale"] = options.image_prompt_scale
    return load(options.extensions / NAME, pipe)


def examples(pipe: ImagePrompted, dataset: Dataset, generator: torch.Generator) -> tuple:
    """Test pictures, each followed by three drawn from it."""
    real = dataset.batch(8, "test", generator).images.cpu() / 2 + 0.5  # (8, 3, S, S)
    options = {"num_images_per_prompt": 3, "generator": generator, "output_type": "pt"}
    drawn = pipe(image_prompt=real, **options).images.cpu().unflatten(0, (8, 3))
    images = torch.cat([real[:, None], drawn], dim=1).flatten(0, 1)  # (32, 3, S, S)
    return to_pil(images), ["image prompt", "", "", ""] * len(real)
