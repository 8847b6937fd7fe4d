"""The four networks whose files are tested: how to make, save, load and call each."""

from functools import partial

import diffusers
import torch
import transformers
from safetensors.torch import load_file, save_file

from minisd.checkpoint import (
    load_autoencoder,
    load_clip,
    load_text_encoder,
    load_unet,
    save_autoencoder,
    save_clip,
    save_text_encoder,
    save_unet,
)
from minisd.checkpoint.configs import (
    autoencoder_from_hf,
    clip_from_hf,
    text_from_hf,
    unet_from_hf,
)
from minisd.models import CLIP, Autoencoder, TextEncoder, UNet
from tests.parity import reference

CAPTIONS = reference.captions()


def call_unet(model):
    out = model(torch.ones(2, 4, 8, 8), torch.tensor([1, 900]), torch.ones(2, 3, 12))
    return out if torch.is_tensor(out) else out.sample


def call_autoencoder(model):
    out = model.decode(torch.ones(2, 4, 4, 4))
    return out if torch.is_tensor(out) else out.sample


def call_text_encoder(model):
    out = model(CAPTIONS)
    return out if torch.is_tensor(out) else out.last_hidden_state


def call_clip(model):
    images = torch.linspace(-1, 1, 3 * 256).view(1, 3, 16, 16)
    if isinstance(model, CLIP):
        return model(images, CAPTIONS)
    return model(input_ids=CAPTIONS, pixel_values=images).logits_per_image


# name: (make theirs, their class, make ours from their config, save ours, load ours, call either)
MODELS = {
    "unet": (
        lambda: reference.unet((8, 16), (True, False), 1),
        diffusers.UNet2DConditionModel,
        lambda config: UNet(unet_from_hf(config)),
        save_unet,
        load_unet,
        call_unet,
    ),
    "autoencoder": (
        lambda: reference.autoencoder(scaling_factor=0.4),
        diffusers.AutoencoderKL,
        lambda config: Autoencoder(autoencoder_from_hf(config)),
        partial(save_autoencoder, sample_size=32),
        load_autoencoder,
        call_autoencoder,
    ),
    "text encoder": (
        reference.text_encoder,
        transformers.CLIPTextModel,
        lambda config: TextEncoder(text_from_hf(config.to_dict())),
        save_text_encoder,
        load_text_encoder,
        call_text_encoder,
    ),
    "clip": (
        reference.clip,
        transformers.CLIPModel,
        lambda config: CLIP(clip_from_hf(config.to_dict())),
        save_clip,
        load_clip,
        call_clip,
    ),
}


def rewrite(folder, change):
    """Pass the weights in `folder` through `change`."""
    (file,) = folder.glob("*.safetensors")
    save_file(change(load_file(file)), file)
