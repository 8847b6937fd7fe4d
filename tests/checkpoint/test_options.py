"""Every key of the reference's configurations, with other values: the reference's output, or no.

The keys are those that diffusers and transformers write. Where minisd accepts a value, the same
weights give the same output as in the reference; else one line names the key.
"""

import copy
import math
import re
from types import SimpleNamespace

import diffusers
import pytest
import torch
import transformers

from minisd.checkpoint import configs, keys, options
from minisd.errors import InputError
from minisd.models import CLIP, Autoencoder, TextEncoder, UNet
from tests.parity import reference

from .networks import CAPTIONS

LEFT_OUT = "(left out)"
VALUES = [LEFT_OUT, None, True, False, -1, 0, 1, 2, 4, 0.5, 1e-6, math.nan, 10**9, "", "4", [], {}]
VALUES += [[4, 4], [8, 16], [1, 2], [False, False], [False, True], [4, 4, 4], ["DownBlock2D"] * 2]
VALUES += ["silu", "gelu", "quick_gelu", "scale_shift", "fourier", "timestep"]
# Enough to show that a free key has no effect; building theirs takes time
FEW = [None, True, 4, 0.5, "silu", "scale_shift", "fourier", "timestep"]


# How each network is called, ours or theirs, on inputs that fit our configuration


def pattern(*shape):
    return torch.linspace(-1, 1, math.prod(shape)).view(shape)


def words(text):
    return CAPTIONS[:, : text.max_length].clamp(max=text.vocab_size - 1)


def call_unet(model, config):
    noisy, context = pattern(2, config.in_channels, 8, 8), pattern(2, 3, config.cross_attention_dim)
    return model(noisy, torch.tensor([1, 900]), context)


def call_autoencoder(model, config):
    return model.decode(pattern(2, config.latent_channels, 4, 4))


def call_text_encoder(model, config):
    return model(words(config))


def call_clip(model, config):
    size = config.vision.image_size
    return model(pixel_values=pattern(1, 3, size, size), input_ids=words(config.text))


def call_our_clip(model, config):
    size = config.vision.image_size
    return model(pattern(1, 3, size, size), words(config.text))


def public(file):
    """Without what diffusers keeps beside the arguments."""
    return {key: value for key, value in file.items() if not key.startswith("_")}


CLIP_FILE = reference.clip().config.to_dict()
TEXT_FILE = reference.text_config().to_dict()
NETWORKS = {
    "unet": SimpleNamespace(
        table=options.UNET,
        theirs=lambda file: diffusers.UNet2DConditionModel(**public(file)),
        from_hf=configs.unet_from_hf,
        ours=UNet,
        rename=dict,
        calls=(call_unet, call_unet),
        file=dict(reference.unet((8, 16), (True, False), 1).config),
    ),
    "autoencoder": SimpleNamespace(
        table=options.AUTOENCODER,
        theirs=lambda file: diffusers.AutoencoderKL(**public(file)),
        from_hf=configs.autoencoder_from_hf,
        ours=Autoencoder,
        rename=keys.autoencoder_keys_from_hf,
        calls=(call_autoencoder, call_autoencoder),
        file=dict(reference.autoencoder().config),
    ),
    "text_encoder": SimpleNamespace(
        table=options.TEXT,
        theirs=lambda file: transformers.CLIPTextModel(transformers.CLIPTextConfig(**file)),
        from_hf=configs.text_from_hf,
        ours=TextEncoder,
        rename=keys.text_keys_from_hf,
        calls=(call_text_encoder, call_text_encoder),
        file=TEXT_FILE,
    ),
    "clip": SimpleNamespace(
        table=options.CLIP,
        theirs=lambda file: transformers.CLIPModel(transformers.CLIPConfig(**file)),
        from_hf=configs.clip_from_hf,
        ours=CLIP,
        rename=keys.clip_keys_from_hf,
        calls=(call_our_clip, call_clip),
        file=CLIP_FILE,
    ),
}
PATHS = [(name, (key,)) for name, network in NETWORKS.items() for key in network.file]
PATHS += [("clip", (t, k)) for t in ("text_config", "vision_config") for k in CLIP_FILE[t]]
PATHS = [(name, path) for name, path in PATHS if not path[-1].startswith("_")]


def changed(file, path, value):
    """The file with another value at a path of keys."""
    file = copy.deepcopy(file)
    *towers, key = path
    inner = file[towers[0]] if towers else file
    inner[key] = value
    if value is LEFT_OUT:
        del inner[key]
    return file


def output(call, model, config):
    out = call(model, config)
    return out if torch.is_tensor(out) else out[0]


# Keys of every model in transformers, whatever it is: reading them is all that is tested
COMMON = transformers.PreTrainedConfig().to_dict().keys() - {"model_type"}

# Where a size does not go with another, the line may name that one
RELATED = {
    "down_block_types": "up_block_types",
    "block_out_channels": "down_block_types|norm_num_groups|attention_head_dim",
    "in_channels": "out_channels",
    "hidden_size": "num_attention_heads",
    "image_size": "patch_size",
}


@pytest.mark.parametrize(("name", "path"), PATHS, ids=lambda x: x if type(x) is str else x[-1])
@torch.no_grad()
def test_every_value_draws_what_the_reference_draws_or_is_refused(name, path):
    network = NETWORKS[name]
    table = {"text_config": options.TEXT, "vision_config": options.VISION}.get(path[0])
    table = table if table and len(path) > 1 else network.table
    is_free = path[-1] in table.free.split() and path[-1] not in table.sizes
    for value in VALUES:
        if path[-1] in ("text_config", "vision_config") and value in (LEFT_OUT, None, {}):
            continue  # the reference's defaults: hundreds of megabytes; see test_configs.py
        file = changed(network.file, path, value)
        try:
            config = network.from_hf(file)
        except InputError as error:
            line = str(error)
            assert "\n" not in line and len(line) < 250
            assert re.search(f"{path[-1]}|{RELATED.get(path[-1], path[-1])}", line), (value, line)
            continue
        if is_free:
            assert config == network.from_hf(network.file), value
            if path[-1] in COMMON or value not in FEW:
                continue
        try:
            theirs = network.theirs(file)
        except Exception:
            assert is_free, value  # only there does minisd take what the reference does not
            continue
        expected = output(network.calls[1], reference.randomise(theirs), config)
        ours = network.ours(config).eval()
        ours.load_state_dict(network.rename(theirs.state_dict()))
        mine = output(network.calls[0], ours, config)
        assert torch.allclose(mine, expected, atol=1e-5, rtol=1e-4), value
