"""The KL autoencoder: pictures (B, 3, H, W) in [-1, 1] <-> latents (B, 4, H/f, W/f).

Source: Rombach et al. 2022, "High-resolution image synthesis with latent diffusion models",
section 3.1; attribute names as in `diffusers.AutoencoderKL`.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .layers import (
    Downsample,
    MultiHeadAttention,
    ResidualBlock,
    Upsample,
    levels,
    matrices_between,
    picture,
    tokens,
)

EPS = 1e-6  # every norm of the autoencoder


@dataclass(frozen=True)
class AutoencoderConfig:
    """Defaults are minisd's; each level after the first halves the resolution."""

    in_channels: int = 3
    latent_channels: int = 4
    block_out_channels: tuple[int, ...] = (16, 32, 64)
    layers_per_block: int = 1
    norm_num_groups: int = 8
    scaling_factor: float = 1.0  # 1 / standard deviation of the latents, measured after training

    @property
    def downscale(self) -> int:
        """Picture pixels per latent pixel along each side."""
        return 2 ** (len(self.block_out_channels) - 1)


class DiagonalGaussian:
    """q(z | x) = N(mean, diag(exp(logvar))), the encoder's answer. All tensors (B, 4, H/f, W/f).

    Source: Kingma and Welling 2014, "Auto-encoding variational Bayes", section 2.4 and appendix B.
    """

    def __init__(self, moments: Tensor):  # (B, 8, H/f, W/f)
        self.mean, logvar = moments.float().chunk(2, dim=1)
        self.logvar = logvar.clamp(-30.0, 20.0)

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """mean + std * noise, the reparameterisation trick. The generator may be a CPU one."""
        device = generator.device if generator else self.mean.device
        noise = torch.randn(self.mean.shape, generator=generator, device=device).to(self.mean)
        return self.mean + torch.exp(0.5 * self.logvar) * noise

    def kl(self) -> Tensor:
        """KL(q || N(0, 1)) in nats, summed over each latent: (B,)."""
        return 0.5 * (self.mean**2 + self.logvar.exp() - 1.0 - self.logvar).sum(dim=(1, 2, 3))


class AttentionBlock(nn.Module):
    """One head of self-attention over all pixels, with biases, added to its input: (B, C, H, W)."""

    def __init__(self, channels: int, groups: int):
        super().__init__()
        self.group_norm = nn.GroupNorm(groups, channels, EPS)
        self.to_q = nn.Linear(channels, channels)
        self.to_k = nn.Linear(channels, channels)
        self.to_v = nn.Linear(channels, channels)
        self.to_out = nn.ModuleList([nn.Linear(channels, channels)])
        self.attention = MultiHeadAttention(heads=1)

    def forward(self, x: Tensor) -> Tensor:
        h = tokens(self.group_norm(x))                                # (B, N, C)
        h = self.attention(self.to_q(h), self.to_k(h), self.to_v(h))  # (B, N, C)
        return x + picture(self.to_out[0](h), like=x)                 # (B, C, H, W)


class MidBlock(nn.Module):
    """Residual block, attention, residual block at the lowest resolution: (B, C, H, W)."""

    def __init__(self, channels: int, groups: int):
        super().__init__()
        blocks = [ResidualBlock(channels, channels, groups, EPS) for _ in range(2)]
        self.resnets = nn.ModuleList(blocks)
        self.attentions = nn.ModuleList([AttentionBlock(channels, groups)])

    def forward(self, x: Tensor) -> Tensor:
        x = self.resnets[0](x)     # (B, C, H, W)
        x = self.attentions[0](x)  # (B, C, H, W)
        return self.resnets[1](x)  # (B, C, H, W)


class Level(nn.Module):
    """Residual blocks, then half the resolution (in the encoder) or twice (in the decoder)."""

    def __init__(self, in_channels, out_channels, layers, groups, down=False, up=False):
        super().__init__()
        ins = [in_channels] + [out_channels] * (layers - 1)
        self.resnets = nn.ModuleList([ResidualBlock(a, out_channels, groups, EPS) for a in ins])
        self.downsamplers = nn.ModuleList([Downsample(out_channels, padding=0)] if down else [])
        self.upsamplers = nn.ModuleList([Upsample(out_channels)] if up else [])

    def forward(self, x: Tensor) -> Tensor:
        for resnet in self.resnets:
            x = resnet(x)    # (B, out, H, W)
        for resample in (*self.downsamplers, *self.upsamplers):
            x = resample(x)  # (B, out, H/2, W/2) or (B, out, 2H, 2W)
        return x


class Encoder(nn.Module):
    """Pictures (B, 3, H, W) -> moments (B, 8, H/f, W/f), mean and log-variance stacked."""

    def __init__(self, config: AutoencoderConfig):
        super().__init__()
        widths, groups = config.block_out_channels, config.norm_num_groups
        self.conv_in = nn.Conv2d(config.in_channels, widths[0], 3, padding=1)
        self.down_blocks = nn.ModuleList()
        for a, b, last in levels(widths):
            self.down_blocks.append(Level(a, b, config.layers_per_block, groups, down=not last))
        self.mid_block = MidBlock(widths[-1], groups)
        self.conv_norm_out = nn.GroupNorm(groups, widths[-1], EPS)
        self.conv_out = nn.Conv2d(widths[-1], 2 * config.latent_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_in(x)                                  # (B, C0, H, W)
        for block in self.down_blocks:
            x = block(x)                                     # (B, C1, H/2, W/2), ...
        x = self.mid_block(x)                                # (B, C_last, H/f, W/f)
        return self.conv_out(F.silu(self.conv_norm_out(x)))  # (B, 8, H/f, W/f)


class Decoder(nn.Module):
    """Latents (B, 4, H/f, W/f) -> pictures (B, 3, H, W)."""

    def __init__(self, config: AutoencoderConfig):
        super().__init__()
        widths, groups = config.block_out_channels[::-1], config.norm_num_groups
        self.conv_in = nn.Conv2d(config.latent_channels, widths[0], 3, padding=1)
        self.mid_block = MidBlock(widths[0], groups)
        self.up_blocks = nn.ModuleList()
        for a, b, last in levels(widths):  # one residual block more than on the way down
            self.up_blocks.append(Level(a, b, config.layers_per_block + 1, groups, up=not last))
        self.conv_norm_out = nn.GroupNorm(groups, widths[-1], EPS)
        self.conv_out = nn.Conv2d(widths[-1], config.in_channels, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        z = self.conv_in(z)                                  # (B, C_last, H/f, W/f)
        z = self.mid_block(z)                                # (B, C_last, H/f, W/f)
        for block in self.up_blocks:
            z = block(z)                                     # (B, C_last, 2H/f, 2W/f), ...
        return self.conv_out(F.silu(self.conv_norm_out(z)))  # (B, 3, H, W)


class Autoencoder(nn.Module):
    """Encoder and decoder joined by the diagonal Gaussian between them."""

    def __init__(self, config: AutoencoderConfig | None = None):
        super().__init__()
        self.config = config = config or AutoencoderConfig()
        channels = config.latent_channels
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.quant_conv = nn.Conv2d(2 * channels, 2 * channels, 1)
        self.post_quant_conv = nn.Conv2d(channels, channels, 1)
        # Start with little noise in the latents: unit noise would drown them.
        nn.init.constant_(self.quant_conv.bias.data[channels:], -5.0)

    def hidden_matrices(self) -> list[nn.Parameter]:
        """The weights for Muon: all but the first and last layers of encoder and decoder."""
        halves = (self.encoder, self.decoder)
        return matrices_between(self, [c for h in halves for c in (h.conv_in, h.conv_out)])

    def moments(self, images: Tensor) -> Tensor:
        """Pictures (B, 3, H, W) in [-1, 1] -> mean and log-variance, stacked: (B, 8, H/f, W/f)."""
        return self.quant_conv(self.encoder(images))

    def encode(self, images: Tensor) -> DiagonalGaussian:
        """Pictures (B, 3, H, W) in [-1, 1] -> q(z | x) over latents (B, 4, H/f, W/f)."""
        return DiagonalGaussian(self.moments(images))

    def decode(self, latents: Tensor) -> Tensor:
        """Latents (B, 4, H/f, W/f), not scaled -> pictures (B, 3, H, W), about in [-1, 1]."""
        return self.decoder(self.post_quant_conv(latents))

    def forward(self, images: Tensor, generator: torch.Generator | None = None):
        """Pictures -> (reconstructions (B, 3, H, W), q(z | x)), decoded from one sample of it."""
        posterior = self.encode(images)
        z = posterior.sample(generator)   # (B, 4, H/f, W/f)
        return self.decode(z), posterior  # (B, 3, H, W)
