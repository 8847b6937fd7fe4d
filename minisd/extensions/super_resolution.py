"""Super-resolution: drawn pictures of 32 x 32 pixels become 128 x 128.

A network looks at the small picture and adds what a bicubic enlargement lacks. It computes at the
small size throughout; at the end each pixel's 48 numbers become its 4 x 4 fine pixels.

Sources: Shi et al. 2016, "Real-time single image and video super-resolution using an efficient
sub-pixel convolutional neural network", section 3.2; Lim et al. 2017, "Enhanced deep residual
networks for single image super-resolution", for residual blocks without normalisation.
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..call import OUTPUT_TYPES, Output
from ..checkpoint import fingerprint, load_extension, save_extension, values_like
from ..data import World
from ..errors import InputError, check_choice
from ..models.layers import matrices_between
from ..pictures import to_pixels
from ..pipeline import StableDiffusion
from ..training import Recipe, Run, generator_for
from ..training.stages import Stage, train_stage
from . import Wrapper

RECIPE = Recipe(steps=1000, batch_size=16, learning_rate=6e-3)
FACTOR = 4  # times as many pixels along each side
PATCH = 16  # pixels along each side of what the network is trained on
NOISE = 0.1  # the most that is put on latents, whose variance is one, as a sampler leaves some


class ResidualBlock(nn.Module):
    """x + f(x), where f is a 3x3 convolution, ReLU, and another: (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.relu(self.conv1(x)))


class SuperResolution(nn.Module):
    """What a bicubic enlargement lacks, added to it: (B, 3, H, W) -> (B, 3, 4H, 4W), in [-1, 1]."""

    def __init__(self, channels: int = 32, blocks: int = 4):
        super().__init__()
        self.config = {"channels": channels, "blocks": blocks}
        self.conv_in = nn.Conv2d(3, channels, 3, padding=1)
        self.blocks = nn.Sequential(*(ResidualBlock(channels) for _ in range(blocks)))
        self.conv_out = nn.Conv2d(channels, 3 * FACTOR**2, 3, padding=1)
        nn.init.zeros_(self.conv_out.weight)  # it starts as the bicubic enlargement
        nn.init.zeros_(self.conv_out.bias)

    def hidden_matrices(self) -> list[nn.Parameter]:
        """The weights for Muon: those of the residual blocks."""
        return matrices_between(self, [self.conv_in, self.conv_out])

    def forward(self, x: Tensor) -> Tensor:
        h = self.blocks(self.conv_in(x))  # (B, C, H, W)
        fine = F.pixel_shuffle(self.conv_out(h), FACTOR)  # (B, 48, H, W) -> (B, 3, 4H, 4W)
        return enlarge(x) + fine  # (B, 3, 4H, 4W)


def enlarge(x: Tensor) -> Tensor:
    """Bicubic: (B, 3, H, W) -> (B, 3, 4H, 4W)."""
    return F.interpolate(x, scale_factor=FACTOR, mode="bicubic")


def render_both(
    world: World, attributes: Tensor, split: str, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """The same scenes coarse and fine: (B, A) -> (B, 3, S, S) and (B, 3, 4S, 4S), in [-1, 1]."""
    seed = torch.randint(2**62, (), generator=generator).item()
    coarse, fine = (
        world.render(attributes, split, torch.Generator().manual_seed(seed), size)
        for size in (world.image_size, FACTOR * world.image_size)
    )
    return coarse, fine


def as_drawn(pipe: StableDiffusion, images: Tensor, generator: torch.Generator) -> Tensor:
    """Pictures (B, 3, H, W) in [-1, 1] as the decoder would draw them, from slightly wrong latents.

    How wrong differs from picture to picture.
    """
    x0 = pipe.encode(images / 2 + 0.5).float()  # (B, 4, H/f, W/f)
    options = {"generator": generator, "device": x0.device}
    noise = NOISE * torch.rand((len(x0), 1, 1, 1), **options) * torch.randn(x0.shape, **options)
    return 2 * pipe.decode(x0 + noise) - 1


def patches(coarse: Tensor, fine: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """A patch of each picture, most often around a lit pixel: black has little to teach.

    coarse (B, 3, S, S), fine (B, 3, 4S, 4S) -> (B, 3, P, P) and (B, 3, 4P, 4P).
    """
    side, p = coarse.shape[-1], PATCH
    light = coarse.amax(dim=1).flatten(1).cpu() + 1 + 1e-3  # (B, S * S), above 0
    pixel = torch.multinomial(light, 1, generator=generator)[:, 0]  # (B,)
    places = torch.stack([pixel // side, pixel % side], dim=1) - p // 2  # (B, 2), row and column
    places = places.clamp(0, side - p).tolist()

    def cut(images: Tensor, n: int) -> Tensor:
        """The patches of pictures n times as large."""
        pairs = zip(images, places, strict=True)
        return torch.stack([x[:, n * i : n * (i + p), n * j : n * (j + p)] for x, (i, j) in pairs])

    return cut(coarse, 1), cut(fine, FACTOR)


def extend(run: Run, pipe: StableDiffusion) -> "Upscaled":
    """Train on renders: half of each batch as they are, half as the pipeline would draw them."""
    world = run.dataset
    if not isinstance(world, World):
        why = (
            f"it learns from scenes rendered at {FACTOR} times the size, and {world.name} has none"
        )
        raise InputError(f"{why}; take a checkpoint that draws one or two digits")
    torch.manual_seed(run.seed)
    model, seen = SuperResolution().to(run.device), world.seen_combinations()
    size = run.recipes["super_resolution"].batch_size

    def loss_of_step(step: int) -> Tensor:
        generator = generator_for("scenes to enlarge", step, run.seed)
        attributes = seen[torch.randint(len(seen), (size,), generator=generator)].to(run.device)
        coarse, fine = render_both(world, attributes, "train", generator)
        noise = generator_for("noise in latents to enlarge", step, run.seed, run.device)
        half = size // 2
        coarse = torch.cat([as_drawn(pipe, coarse[:half], noise), coarse[half:]])
        coarse, fine = patches(coarse, fine, generator)
        return F.mse_loss(model(coarse).float(), fine)

    shared = [model, pipe.autoencoder.encoder, pipe.autoencoder.decoder]
    return Upscaled(pipe, train_stage(run, Stage("super_resolution", model, loss_of_step, shared)))


class Upscaled(Wrapper):
    """The pipeline, whose pictures come out with four times the pixels along each side.

    A picture or a mask to start from has the pipeline's own size, as without it.
    """

    def __init__(self, pipe: StableDiffusion, network: SuperResolution):
        super().__init__(pipe)
        self.network = network

    @torch.no_grad()
    def __call__(
        self, *arguments, output_type: str = "pil", return_dict: bool = True, **options
    ) -> Output | tuple:
        """Arguments as the pipeline's. Latents stay small."""
        check_choice("output_type", output_type, OUTPUT_TYPES)
        kind = "latent" if output_type == "latent" else "pt"
        images = self.pipe(*arguments, output_type=kind, **options).images
        if output_type != "latent":
            images = OUTPUT_TYPES[output_type](self.upscale(images))
        return Output(images) if return_dict else (images, None)

    @torch.no_grad()
    def upscale(self, images) -> Tensor:
        """Pictures (B, 3, H, W), or others of KINDS in pictures.py -> (B, 3, 4H, 4W), in [0, 1]."""
        images = to_pixels("images", images)
        network = self.network.to(images.device)  # the pipeline may have moved
        fine = torch.cat([network(2 * x - 1) for x in images.split(100)])
        return (fine / 2 + 0.5).clamp(0, 1)

    def save_pretrained(self, folder: str | Path, dtype: torch.dtype | None = None) -> None:
        stands_on = fingerprint(self.pipe.autoencoder)
        save_extension(folder, self.network, self.network.config, stands_on, dtype)


def load(folder: str | Path, pipe: StableDiffusion) -> Upscaled:
    stands_on = fingerprint(pipe.autoencoder)  # any U-Net serves, but no other decoder

    def build(config: dict) -> SuperResolution:
        return SuperResolution(**values_like(SuperResolution().config, config))

    network = load_extension(folder, "super-resolution", build, stands_on)
    return Upscaled(pipe, network.to(pipe.device))


OPTIONS = {"--upscale": {"action": "store_true", "help": "draw with four times the pixels a side"}}


def use(pipe: StableDiffusion, options, call: dict) -> StableDiffusion | Upscaled:
    return load(options.extensions / "super-resolution", pipe) if options.upscale else pipe
