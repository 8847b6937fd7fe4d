"""Everything with weights. Knows nothing of noise schedules, data or files."""

from .autoencoder import Autoencoder, AutoencoderConfig, DiagonalGaussian
from .clip import CLIP, CLIPConfig, TextConfig, TextEncoder, VisionConfig, VisionEncoder
from .layers import parameter_count
from .unet import UNet, UNetConfig, change_cross_attention, cross_attention_maps
