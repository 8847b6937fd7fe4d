"""A picture in: the same picture out as from diffusers' image-to-image and inpainting pipelines."""

from types import SimpleNamespace

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image

from minisd import StableDiffusion, data
from minisd.call import to_pil
from minisd.pretrained import WEIGHTS

from .test_pipeline import SCHEDULERS, TEXTS, their_pipeline

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore:the model never saw", "ignore:the prompt is too long"
)
PARTS = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
BATCH = data.draw_batch(2, "test", torch.Generator().manual_seed(0))
PICTURES = to_pil(BATCH.images / 2 + 0.5)
HOLE = np.zeros((32, 32), np.uint8)
HOLE[:16, :20] = 255


@pytest.fixture(scope="module", params=["shipped", "ddim", "stable diffusion 1.x"])
def folder(request, tmp_path_factory):
    """Our own weights, or random ones that diffusers saved."""
    if request.param == "shipped":
        return WEIGHTS
    folder = tmp_path_factory.mktemp("theirs")
    their_pipeline(folder, SCHEDULERS[request.param])
    return folder


def theirs(kind, folder):
    """Their pipeline. Like ours it takes the posterior's mean, where it would draw from it."""
    pipe = kind.from_pretrained(folder, **PARTS)
    pipe.set_progress_bar_config(disable=True)
    encode = pipe.vae.encode
    pipe.vae.encode = lambda x: SimpleNamespace(latents=encode(x).latent_dist.mode())
    return pipe


def options(strength):
    options = {"guidance_scale": 2.0, "num_inference_steps": 5, "strength": strength}
    return options | {"output_type": "np", "generator": torch.Generator().manual_seed(3)}


@pytest.mark.parametrize("strength", [0.3, 0.6, 1.0])
def test_image_to_image(folder, strength):
    kind = diffusers.StableDiffusionImg2ImgPipeline
    want = theirs(kind, folder)(TEXTS[:2], image=PICTURES, **options(strength)).images
    got = StableDiffusion.from_pretrained(folder)(TEXTS[:2], image=PICTURES, **options(strength))
    assert np.abs(got.images - want).max() * 255 < 1


@pytest.mark.parametrize("strength", [0.3, 0.6, 1.0])
def test_inpainting(folder, strength):
    ask = {"image": PICTURES, "mask_image": Image.fromarray(HOLE)}
    pipe = theirs(diffusers.StableDiffusionInpaintPipeline, folder)
    want = pipe(TEXTS[:2], **ask, height=32, width=32, **options(strength)).images
    got = StableDiffusion.from_pretrained(folder)(TEXTS[:2], **ask, **options(strength)).images
    assert np.abs(got - want)[:, HOLE > 0].max() * 255 < 1
    was = np.stack([np.asarray(picture) for picture in PICTURES]).astype(np.float32) / 255
    assert np.array_equal(got[:, HOLE == 0], was[:, HOLE == 0])
