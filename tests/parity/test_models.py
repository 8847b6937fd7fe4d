"""Every network of minisd is the one of diffusers or transformers: names, shapes, outputs."""

import diffusers
import pytest
import torch
import transformers
from torch.testing import assert_close

from minisd.checkpoint.configs import (
    autoencoder_from_hf,
    clip_from_hf,
    text_from_hf,
    unet_from_hf,
)
from minisd.checkpoint.keys import clip_keys_from_hf, text_keys_from_hf, text_keys_to_hf
from minisd.models import (
    CLIP,
    Autoencoder,
    CLIPConfig,
    TextEncoder,
    UNet,
    VisionConfig,
    VisionEncoder,
    parameter_count,
)
from minisd.models.unet import timestep_features
from tests import stable_diffusion
from tests.stable_diffusion import on_meta

from . import reference


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def shapes(state):
    return {name: tuple(value.shape) for name, value in state.items()}


# Full size: Stable Diffusion 1.x, name by name


SD_TEXT = {"hidden_size": 768, "intermediate_size": 3072, "projection_dim": 768}
SD_TEXT |= {"num_hidden_layers": 12, "num_attention_heads": 12}
VIT_L = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24}
VIT_L |= {"num_attention_heads": 16, "patch_size": 14, "projection_dim": 768}


def test_full_size_unet_has_the_names_and_shapes_of_stable_diffusion():
    theirs = on_meta(
        diffusers.UNet2DConditionModel,
        block_out_channels=(320, 640, 1280, 1280),
        layers_per_block=2,
        attention_head_dim=8,
        cross_attention_dim=768,
        norm_num_groups=32,
        sample_size=64,
    )
    ours = on_meta(UNet, stable_diffusion.UNET)
    assert shapes(ours.state_dict()) == shapes(theirs.state_dict())
    assert parameter_count(ours) == 859_520_964
    assert unet_from_hf(theirs.config) == stable_diffusion.UNET


def test_full_size_autoencoder_has_the_names_and_shapes_of_stable_diffusion():
    theirs = on_meta(
        diffusers.AutoencoderKL,
        block_out_channels=(128, 256, 512, 512),
        down_block_types=["DownEncoderBlock2D"] * 4,
        up_block_types=["UpDecoderBlock2D"] * 4,
        layers_per_block=2,
        norm_num_groups=32,
    )
    ours = on_meta(Autoencoder, stable_diffusion.AUTOENCODER)
    assert shapes(ours.state_dict()) == shapes(theirs.state_dict())
    assert parameter_count(ours) == 83_653_863
    assert autoencoder_from_hf(theirs.config) == stable_diffusion.AUTOENCODER


def test_full_size_text_encoder_has_the_names_and_shapes_of_stable_diffusion():
    theirs = on_meta(transformers.CLIPTextModel, transformers.CLIPTextConfig(**SD_TEXT))
    ours = on_meta(TextEncoder, stable_diffusion.TEXT)
    assert shapes(ours.state_dict()) == shapes(text_keys_from_hf(theirs.state_dict()))
    assert parameter_count(ours) == 123_060_480
    assert text_from_hf(theirs.config.to_dict()) == stable_diffusion.TEXT


def test_full_size_clip_has_the_names_and_shapes_of_vit_l_14():
    config = transformers.CLIPConfig(text_config=SD_TEXT, vision_config=VIT_L, projection_dim=768)
    theirs = on_meta(transformers.CLIPModel, config)
    ours = on_meta(
        CLIP, CLIPConfig(stable_diffusion.TEXT, stable_diffusion.VISION, projection_dim=768)
    )
    assert shapes(ours.state_dict()) == shapes(theirs.state_dict())
    assert parameter_count(ours) == 427_616_513
    assert clip_from_hf(config.to_dict()) == ours.config

    tower = on_meta(VisionEncoder, stable_diffusion.VISION)
    assert shapes(tower.state_dict()) == shapes(theirs.vision_model.state_dict())


def test_text_keys_in_files_carry_the_prefix_of_stable_diffusion():
    """As in the files of Stable Diffusion 1.x. (transformers 5 writes none, and reads both.)"""
    theirs = reference.clip().text_model.state_dict(prefix="text_model.")
    ours = TextEncoder(text_from_hf(reference.text_config().to_dict())).state_dict()
    assert shapes(text_keys_to_hf(ours)) == shapes(theirs)


# Tiny: the same outputs from the same weights


def agree(ours, theirs, tolerance=3e-5):
    """Equal as far as float32 goes; relative to the size of the outputs, however small."""
    size = theirs.std()
    assert size > 0
    assert_close(ours / size, theirs / size, atol=tolerance, rtol=tolerance)


def our_unet(theirs):
    ours = UNet(unet_from_hf(theirs.config))
    ours.load_state_dict(theirs.state_dict())
    return ours.eval()


def our_autoencoder(theirs):
    ours = Autoencoder(autoencoder_from_hf(theirs.config))
    ours.load_state_dict(theirs.state_dict())
    return ours.eval()


def our_text_encoder(theirs):
    ours = TextEncoder(text_from_hf(theirs.config.to_dict()))
    ours.load_state_dict(text_keys_from_hf(theirs.state_dict()))
    return ours.eval()


def our_clip(theirs):
    ours = CLIP(clip_from_hf(theirs.config.to_dict()))
    ours.load_state_dict(clip_keys_from_hf(theirs.state_dict()))
    return ours.eval()


UNETS = {
    "two levels": ((8, 16), (True, True), 1),
    "two layers": ((8, 16, 16), (True, True, False), 2),
    "no attention on top": ((8, 12, 16), (False, True, True), 1),
    "four levels": ((8, 8, 16, 24), (True, False, True, False), 2),
    "no attention but in the middle": ((16, 8), (False, False), 1),
}


@pytest.mark.parametrize("name", UNETS)
@pytest.mark.parametrize("gain", [1, 1e-3], ids=["loud", "faint"])
@torch.no_grad()
def test_unet_predicts_as_diffusers_does(name, gain):
    theirs = reference.unet(*UNETS[name], gain=gain)
    ours = our_unet(theirs)
    g = torch.Generator().manual_seed(1)
    x, context = torch.randn(3, 4, 8, 16, generator=g), torch.randn(3, 5, 12, generator=g)
    for t in (torch.tensor([0, 1, 999]), torch.tensor(500)):
        agree(ours(x, t, context), theirs(x, t, context).sample)


@torch.no_grad()
def test_unet_with_other_channels_and_heads():
    options = {"in_channels": 3, "out_channels": 5, "cross_attention_dim": 7, "sample_size": 4}
    theirs = reference.unet((16, 32), (True, True), 1, heads=8, **options)
    x, context = torch.randn(2, 3, 4, 4), torch.randn(2, 9, 7)
    ours = our_unet(theirs)(x, torch.tensor([3, 4]), context)
    assert ours.shape == (2, 5, 4, 4)
    agree(ours, theirs(x, torch.tensor([3, 4]), context).sample)


def test_unet_has_the_gradients_of_diffusers():
    theirs = reference.unet((8, 16), (True, True), 1)
    ours = our_unet(theirs)
    x, t, context = torch.randn(2, 4, 8, 8), torch.tensor([7, 700]), torch.randn(2, 5, 12)
    ours(x, t, context).square().mean().backward()
    theirs(x, t, context).sample.square().mean().backward()
    expected = {name: p.grad for name, p in theirs.named_parameters()}
    for name, p in ours.named_parameters():
        agree(p.grad, expected[name], tolerance=1e-4)


@pytest.mark.parametrize("channels", [2, 8, 320])
def test_time_features_are_those_of_diffusers(channels):
    t = torch.tensor([0, 1, 500, 999])
    theirs = diffusers.models.embeddings.get_timestep_embedding(
        t, channels, flip_sin_to_cos=True, downscale_freq_shift=0
    )
    assert_close(timestep_features(t, channels), theirs, atol=1e-4, rtol=0)


@pytest.mark.parametrize("gain", [1, 1e-3], ids=["loud", "faint"])
@pytest.mark.parametrize(("widths", "layers"), [((8, 16), 1), ((8, 16, 12), 2)])
@torch.no_grad()
def test_autoencoder_encodes_and_decodes_as_diffusers_does(widths, layers, gain):
    theirs = reference.autoencoder(widths, layers, gain=gain)
    ours = our_autoencoder(theirs)
    images, latents = torch.randn(2, 3, 16, 24), torch.randn(2, 4, 4, 6)
    posterior = theirs.encode(images).latent_dist
    agree(ours.moments(images), posterior.parameters)
    agree(ours.decode(latents), theirs.decode(latents).sample)
    draws = [q.sample(torch.Generator().manual_seed(3)) for q in (ours.encode(images), posterior)]
    agree(*draws)
    assert_close(ours.encode(images).kl(), posterior.kl())


@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
@torch.no_grad()
def test_text_encoder_reads_as_transformers_does(activation):
    theirs = reference.text_encoder(hidden_act=activation)
    ours = our_text_encoder(theirs)
    ids = reference.captions()
    expected = theirs(ids)
    agree(ours(ids), expected.last_hidden_state)
    agree(ours.pool(ours(ids), ids), expected.pooler_output)
    agree(ours(ids[:, :4]), theirs(ids[:, :4]).last_hidden_state)  # a shorter text


@torch.no_grad()
def test_the_end_of_text_is_found_though_old_configs_say_2():
    theirs = reference.text_encoder(eos_token_id=2)
    ours = our_text_encoder(theirs)
    ids = reference.captions()
    ids[2, 3] = 2  # an ordinary word
    agree(ours.pool(ours(ids), ids), theirs(ids).pooler_output)


@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
@torch.no_grad()
def test_clip_sees_and_compares_as_transformers_does(activation):
    theirs = reference.clip(activation=activation)
    ours = our_clip(theirs)
    ids, images = reference.captions(), torch.randn(2, 3, 16, 16)
    expected = theirs(input_ids=ids, pixel_values=images)
    agree(ours.vision_model(images), theirs.vision_model(images).pooler_output)
    agree(ours.encode_image(images), expected.image_embeds)
    agree(ours.encode_text(ids), expected.text_embeds)
    agree(ours(images, ids), expected.logits_per_image)


@torch.no_grad()
def test_vision_tower_with_projection():
    config = transformers.CLIPVisionConfig(**reference.TOWER, image_size=24, patch_size=8)
    theirs = reference.randomise(transformers.CLIPVisionModelWithProjection(config))
    state = theirs.vision_model.state_dict()
    ours = VisionEncoder(VisionConfig(24, 8, 16, 24, 2, 4)).eval()
    ours.load_state_dict(state)
    images = torch.randn(2, 3, 24, 24)
    agree(theirs.visual_projection(ours(images)), theirs(images).image_embeds)


def norms(model):
    kinds = torch.nn.GroupNorm, torch.nn.LayerNorm
    return {name: repr(m) for name, m in model.named_modules() if isinstance(m, kinds)}


@pytest.mark.parametrize(
    ("make", "translate"),
    [
        (lambda: reference.unet((8, 16), (True, True), 1), our_unet),
        (reference.autoencoder, our_autoencoder),
        (reference.clip, our_clip),
    ],
    ids=["unet", "autoencoder", "clip"],
)
def test_every_norm_has_the_groups_and_the_epsilon_of_the_reference(make, translate):
    theirs = make()
    assert norms(translate(theirs)) == norms(theirs)
