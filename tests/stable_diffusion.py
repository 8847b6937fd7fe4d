"""Stable Diffusion 1.x at full size, as configurations of our networks."""

import torch

from minisd.models import AutoencoderConfig, TextConfig, UNetConfig, VisionConfig

UNET = UNetConfig(
    sample_size=64,
    block_out_channels=(320, 640, 1280, 1280),
    cross_attention=(True, True, True, False),
    layers_per_block=2,
    num_heads=8,
    cross_attention_dim=768,
    norm_num_groups=32,
)
AUTOENCODER = AutoencoderConfig(
    block_out_channels=(128, 256, 512, 512),
    layers_per_block=2,
    norm_num_groups=32,
    scaling_factor=0.18215,
)
TEXT = TextConfig(
    max_length=77, hidden_size=768, intermediate_size=3072, num_layers=12, num_heads=12
)
VISION = VisionConfig(  # of CLIP ViT-L/14, whose text tower Stable Diffusion took
    image_size=224,
    patch_size=14,
    hidden_size=1024,
    intermediate_size=4096,
    num_layers=24,
    num_heads=16,
)


def on_meta(make, *arguments, **options):
    """A model of full size without the memory: shapes only."""
    with torch.device("meta"):
        return make(*arguments, **options)
