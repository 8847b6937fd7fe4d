"""A picture as a prompt: the layout of its files, what it changes and what it must not."""

import copy
import json
from argparse import Namespace
from dataclasses import replace
from itertools import pairwise

import diffusers
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch.testing import assert_close
from transformers import CLIPImageProcessor

from minisd import StableDiffusion
from minisd.call import SamplingDefaults, to_pil
from minisd.commands import EXTENSIONS
from minisd.data import ONE
from minisd.errors import InputError
from minisd.evaluation import Judge
from minisd.extensions import image_prompt as module
from minisd.extensions.image_prompt import (
    NO_IMAGE,
    NO_WORDS,
    ImageAdapter,
    ImagePrompted,
    extend,
    load,
    use,
)
from minisd.models import cross_attention_maps
from minisd.suites import EXTENSIONS as SHIPPED
from minisd.suites import Asked, editing
from minisd.suites import image_prompt as suite
from minisd.training import Recipe, Run, denoising_loss
from minisd.training.pool import Pool
from tests.evaluation.stubs import Album
from tests.helpers import equal, make_tiny_pipe
from tests.parity import reference

PICTURES = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
NOISE = torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(1))
PROMPTS = ["a large red seven", "a small blue two", "a green digit at the top left"]
WORDS = {"image_prompt": PICTURES[:1], "latents": NOISE[:1], "output_type": "pt"}


@pytest.fixture(scope="module")
def prompted(tiny_pipe):
    """With a random adapter, in which no weight is at its initial value."""
    adapter = ImageAdapter(tiny_pipe.unet, tiny_pipe.clip.config.projection_dim)
    return ImagePrompted(tiny_pipe, reference.randomise(adapter, gain=2.0))


def draw(pipe, *prompt, **options):
    return pipe(*prompt, **{"latents": NOISE[:1], "output_type": "pt"} | options).images


@pytest.fixture(scope="module")
def folder(prompted, tmp_path_factory):
    folder = tmp_path_factory.mktemp("adapter")
    prompted.save_pretrained(folder, image_encoder=True)
    return folder


@pytest.fixture(scope="module")
def theirs(folder, tiny_weights):
    pipe = diffusers.StableDiffusionPipeline.from_pretrained(
        tiny_weights,
        feature_extractor=CLIPImageProcessor.from_pretrained(folder / "image_encoder"),
    )
    pipe.load_ip_adapter(str(folder), subfolder="", weight_name="ip_adapter.safetensors")
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.mark.parametrize("guidance", [1.0, 4.0])
@pytest.mark.parametrize("scale", [0.0, 0.5, 1.0])
def test_diffusers_loads_the_files_and_draws_the_same_picture(prompted, theirs, scale, guidance):
    (picture,) = to_pil(PICTURES[:1])
    options = {"guidance_scale": guidance, "num_inference_steps": 4, "guidance_rescale": 0.0}
    ours = draw(prompted, PROMPTS[0], image_prompt=picture, image_prompt_scale=scale, **options)
    theirs.set_ip_adapter_scale(scale)
    assert_close(
        ours, draw(theirs, PROMPTS[0], ip_adapter_image=picture, **options), atol=1e-4, rtol=0
    )


def test_the_parity_above_is_of_pictures_that_differ(prompted):
    options = {"guidance_scale": 4.0, "num_inference_steps": 4}
    pictures = [
        draw(
            prompted, PROMPTS[0], image_prompt=PICTURES[i : i + 1], image_prompt_scale=s, **options
        )
        for i, s in ((0, 0.0), (0, 0.5), (0, 1.0), (1, 1.0))
    ]
    for a, b in pairwise(pictures):
        assert (a - b).abs().max() > 0.01


def test_the_keys_are_those_of_ip_adapter(folder, theirs):
    keys = load_file(folder / "ip_adapter.safetensors").keys()
    names = [n for n in theirs.unet.attn_processors if "attn2" in n]
    layers = [f"ip_adapter.{2 * i + 1}.to_{x}_ip.weight" for i in range(len(names)) for x in "kv"]
    projection = [f"image_proj.{x}.{y}" for x in ("proj", "norm") for y in ("weight", "bias")]
    assert sorted(keys) == sorted(layers + projection)


def test_pictures_of_other_sizes_are_prepared_as_transformers_prepares_them(prompted, theirs):
    wide = Image.fromarray((PICTURES[0, 0, :20].numpy() * 255).astype("uint8")).convert("RGB")
    big = wide.resize((320, 160), Image.Resampling.BICUBIC)
    with pytest.warns(UserWarning, match="image_prompt was resized from 320x160 to 32x32"):
        ours = draw(prompted, image_prompt=big, guidance_scale=1.0)
    theirs.set_ip_adapter_scale(1.0)
    steps = prompted.defaults.num_inference_steps
    options = {"num_inference_steps": steps, "guidance_scale": 1.0}
    assert_close(ours, draw(theirs, "", ip_adapter_image=big, **options), atol=0.02, rtol=0)


def test_scale_0_is_the_pipeline_without_a_picture(prompted, tiny_pipe):
    """Bit for bit. So it is in diffusers, which then skips the picture's attention."""
    for scale in (1.0, 3.0):
        mine = draw(prompted, PROMPTS[0], image_prompt_scale=0, guidance_scale=scale, **WORDS)
        assert torch.equal(mine, draw(tiny_pipe, PROMPTS[0], guidance_scale=scale))


def test_the_pipeline_is_left_as_it_was(prompted, tiny_pipe):
    before = copy.deepcopy(tiny_pipe.unet)
    draw(prompted, PROMPTS[0], **WORDS)
    with pytest.raises(InputError, match="sampler"):
        draw(prompted, PROMPTS[0], sampler="none", **WORDS)
    assert repr(tiny_pipe.unet) == repr(before)
    assert equal(tiny_pipe.unet.state_dict(), before.state_dict())


def test_prompts_and_their_embeddings_are_the_same(prompted):
    embeds = prompted.encode_prompt(PROMPTS)
    negative = prompted.encode_prompt([PROMPTS[1]] * 3)
    options = {"image_prompt": PICTURES, "latents": NOISE, "guidance_scale": 3.0}
    by_words = draw(prompted, PROMPTS, negative_prompt=PROMPTS[1], **options)
    embeddings = {"prompt_embeds": embeds, "negative_prompt_embeds": negative}
    assert torch.equal(by_words, draw(prompted, **embeddings, **options))
    assert not torch.equal(by_words, draw(prompted, PROMPTS, **options))


def test_one_picture_serves_all_prompts_and_one_prompt_all_pictures(prompted):
    one_by_one = [
        draw(prompted, PROMPTS[0], image_prompt=PICTURES[i : i + 1], latents=NOISE[i : i + 1])
        for i in range(3)
    ]
    together = draw(prompted, PROMPTS[0], image_prompt=PICTURES, latents=NOISE)
    assert_close(together, torch.cat(one_by_one), atol=1e-4, rtol=0)
    several = draw(prompted, PROMPTS, image_prompt=PICTURES[0], latents=NOISE)
    alone = draw(prompted, PROMPTS[2], image_prompt=PICTURES[0], latents=NOISE[2:])
    assert_close(several[2:], alone, atol=1e-4, rtol=0)
    twice = draw(prompted, image_prompt=PICTURES, num_images_per_prompt=2, latents=None)
    assert len(twice) == 6


def test_prompts_to_combine_are_words_alone(prompted):
    """What is added and taken away is gone; without the picture it is the pipeline's own."""
    options = {"image_prompt": PICTURES[0], "latents": NOISE[:1], "guidance_scale": 3.0}
    plain, more = (
        draw(prompted, PROMPTS[0], **options, combine=c) for c in ((), [(PROMPTS[1], 1)])
    )
    assert (plain - more).abs().max() > 0.01
    both = draw(prompted, PROMPTS[0], **options, combine=[(PROMPTS[1], 1), (PROMPTS[1], -1.0)])
    assert_close(both, plain, atol=1e-4, rtol=0)
    combine = [(PROMPTS[1], 0.5)]
    off = draw(prompted, PROMPTS[0], **options, combine=combine, image_prompt_scale=0)
    del options["image_prompt"]
    assert_close(off, draw(prompted.pipe, PROMPTS[0], **options, combine=combine))


def test_the_maps_of_the_words_can_be_watched(prompted):
    with cross_attention_maps(prompted.pipe.unet) as maps:
        draw(prompted, PROMPTS[0], **WORDS)
    length = prompted.tokenizer.max_length
    assert maps and all(m.shape[-1] == length for calls in maps.values() for m in calls)


def recipe(**changes):
    return {"image_prompt": Recipe(**{"steps": 3, "batch_size": 8} | changes)}


def trained(pipe, folder, **changes):
    run = Run(folder, Album(), recipes=recipe(**changes))
    run.working.mkdir(parents=True)
    return extend(run, pipe)


def test_training_repeats_its_bits_and_leaves_the_u_net_alone(tmp_path):
    pipe = make_tiny_pipe()
    before = copy.deepcopy(pipe.unet.state_dict())
    a, b = (trained(pipe, tmp_path / name) for name in "ab")
    assert equal(a.adapter.state_dict(), b.adapter.state_dict())
    assert equal(pipe.unet.state_dict(), before)
    assert all(p.requires_grad and p.grad is None for p in pipe.unet.parameters())
    fresh = ImageAdapter(pipe.unet, pipe.clip.config.projection_dim)
    assert all((x != y).any() for x, y in zip(a.adapter.parameters(), fresh.parameters()))


def test_a_batch_is_of_pictures_with_their_own_captions_and_embeddings():
    """But for those that are left out."""
    n, size = 50, 4000
    number = torch.arange(1.0, n + 1)
    contexts, embeds = number[:, None, None].expand(n, 2, 3), number[:, None].expand(n, 5)
    latents = number[:, None, None, None].expand(n, 4, 2, 2)
    pool = Pool(latents, contexts, torch.zeros(1, 2, 3), None, None)
    x0, context, image = module.draw(pool, embeds, size, torch.Generator().manual_seed(0))
    assert x0.shape[1:] == (4, 2, 2) and context.shape[1:] == (2, 3) and image.shape[1:] == (5,)
    who, said, shown = (x.flatten(1) for x in (x0, context, image))
    for given, left_out in ((said, NO_WORDS), (shown, NO_IMAGE)):
        whole = given == who[:, :1]
        assert torch.equal(whole.all(dim=1), whole.any(dim=1)) and not given[~whole].any()
        assert (~whole[:, 0]).float().mean() == pytest.approx(left_out, abs=0.03)
    neither = ~said.any(dim=1) & ~shown.any(dim=1)
    assert neither.float().mean() == pytest.approx(NO_WORDS * NO_IMAGE, abs=0.015)
    assert set(who[:, 0].tolist()) == set(number.tolist())


def test_training_lowers_the_loss(tmp_path, tiny_pipe):
    def loss(adapter):
        generator = torch.Generator().manual_seed(5)
        images = Album().images[1::2]
        x0 = tiny_pipe.encode(images / 2 + 0.5)
        tokens = adapter.image_proj(module.embed(tiny_pipe.clip, images))
        empty = tiny_pipe.encode_prompt("").expand(len(x0), -1, -1)
        context = torch.cat([empty, tokens], dim=1)
        with adapter.attached(tiny_pipe.unet), torch.no_grad():
            return denoising_loss(tiny_pipe.unet, tiny_pipe.schedule, x0, context, generator).item()

    begun = trained(tiny_pipe, tmp_path / "a", steps=1, learning_rate=1e-9).adapter
    ended = trained(tiny_pipe, tmp_path / "b", steps=40, learning_rate=1e-2).adapter
    assert loss(ended) < 0.97 * loss(begun)


def test_what_is_saved_is_read_again(prompted, folder, tmp_path):
    again = load(folder, prompted.pipe)
    assert equal(again.adapter.state_dict(), prompted.adapter.state_dict())
    prompted.save_pretrained(tmp_path, torch.float16)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["config.json", "ip_adapter.safetensors"]
    half = draw(load(tmp_path, prompted.pipe), PROMPTS[0], **WORDS)
    assert_close(half, draw(prompted, PROMPTS[0], **WORDS), atol=0.02, rtol=0)


def test_the_wrong_files_are_refused(prompted, folder, tmp_path):
    with pytest.raises(InputError, match="holds no image-prompt .* train one with"):
        load(tmp_path, prompted.pipe)
    other = make_tiny_pipe()
    other.unet.conv_in.bias.data += 1
    with pytest.raises(InputError, match="was trained for another checkpoint"):
        load(folder, other)
    blind = replace(prompted.pipe, clip=None)
    with pytest.raises(InputError, match="needs CLIP .* has no clip/"):
        load(folder, blind)
    with pytest.raises(InputError, match="needs CLIP"):
        extend(Run(tmp_path, Album(), recipes=recipe()), blind)


def test_without_guidance_a_negative_prompt_is_told_to_change_nothing(prompted):
    plain = draw(prompted, PROMPTS[0], guidance_scale=1.0, **WORDS)
    embeds = prompted.encode_prompt(PROMPTS[1])
    for negative in ({"negative_prompt": PROMPTS[1]}, {"negative_prompt_embeds": embeds}):
        with pytest.warns(UserWarning, match="changes nothing without guidance"):
            drawn = draw(prompted, PROMPTS[0], guidance_scale=1.0, **WORDS, **negative)
        assert torch.equal(drawn, plain)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_prompt": None}, "image_prompt must be a PIL image, .* not None"),
        ({"image_prompt": torch.zeros(1, 32, 32)}, "image_prompt must be .* not of the shape"),
        ({"image_prompt_scale": -0.5}, "image_prompt_scale must be a number of at least 0"),
        ({"image_prompt": PICTURES, "prompt": PROMPTS[:2]}, "2 prompts do not fit 3 pictures"),
        (
            {"image_prompt": PICTURES[:2], "prompt": PROMPTS},
            "2 image prompts do not fit 3 pictures",
        ),
        (
            {"prompt": PROMPTS, "negative_prompt_embeds": torch.zeros(2, 16, 16)},
            "2 negative prompts do not fit 3 pictures",
        ),
        ({"prompt": PROMPTS, "negative_prompt": PROMPTS[:2]}, "2 negative prompts do not fit 3"),
        ({"prompt": 7}, "prompt must be a text or a list of texts, not 7"),
        ({"clip_guidance_scale": 5.0}, "takes no CLIP guidance: leave out one of them"),
    ],
)
def test_bad_input_gets_one_line(prompted, options, message):
    with pytest.raises(InputError, match=message):
        prompted(**{"image_prompt": PICTURES[0], "prompt": PROMPTS[0]} | options)


def test_the_options_of_the_command_line(prompted, folder, tmp_path):
    file = tmp_path / "picture.png"
    to_pil(PICTURES[:1])[0].save(file)
    (tmp_path / "image-prompt").symlink_to(folder)
    options = Namespace(image_prompt=file, image_prompt_scale=0.5, extensions=tmp_path)
    call = {"prompt": None}
    wrapped = use(prompted.pipe, options, call)
    assert isinstance(wrapped, ImagePrompted) and call["image_prompt_scale"] == 0.5
    assert wrapped(**call, output_type="pt").images.shape == (1, 3, 32, 32)

    call = {"prompt": None}
    nothing = Namespace(image_prompt=None, image_prompt_scale=None)
    assert use(prompted.pipe, nothing, call) is prompted.pipe and call == {"prompt": None}
    nothing.image_prompt_scale = 1.0
    with pytest.raises(InputError, match="--image-prompt-scale needs an --image-prompt"):
        use(prompted.pipe, nothing, call)
    (tmp_path / "text.png").write_text("no picture")
    options.image_prompt = tmp_path / "text.png"
    with pytest.raises(InputError, match="is no picture"):
        use(prompted.pipe, options, call)


def test_the_gallery_shows_pictures_and_what_was_drawn_from_them(prompted):
    images, captions = module.examples(prompted, ONE, torch.Generator().manual_seed(0))
    assert len(images) == len(captions) == 32
    assert EXTENSIONS["image-prompt"] is module


def test_the_suite_measures_a_perfect_hand_as_perfect_and_a_copy_as_a_copy():
    images, attributes, generator = editing.scenes(100, 0)
    another = ONE.batch(100, "test", generator, attributes=attributes).images / 2 + 0.5
    for drawn, copies in ((images, 1.0), (another, 0.3)):
        found = suite.rates(Judge.load(), drawn, attributes, images)
        assert found["all four"]["rate"] > 0.9 and found["same strokes"]["rate"] <= copies
    assert suite.rates(Judge.load(), images, attributes, images)["same strokes"]["rate"] == 1
    wrong = suite.rates(Judge.load(), images.flip(0), attributes, images)
    assert wrong["all four"]["rate"] < 0.1 and wrong["size"]["rate"] > 0.3


def test_the_suite_and_its_tables(prompted, folder, tmp_path):
    (tmp_path / "image-prompt").symlink_to(folder)
    quick = replace(prompted.pipe, defaults=SamplingDefaults(2, 1.0, 0.0))
    results = suite.measure(quick, Judge.load(), Asked(4, 0, tmp_path))
    assert results["with words"].keys() == {str(scale) for scale in suite.SCALES}
    for heading, (head, *rows) in suite.tables(results).items():
        assert heading and rows and all(len(row) == len(head) for row in rows)
    json.dumps(results)


@pytest.mark.skipif(not (SHIPPED / "image-prompt").exists(), reason="the weights are not there")
def test_the_shipped_weights_draw_what_the_picture_shows():
    prompted = load(SHIPPED / "image-prompt", StableDiffusion.from_pretrained())
    batch = ONE.batch(24, "test", torch.Generator().manual_seed(3))
    images = batch.images / 2 + 0.5
    options = {"generator": torch.Generator().manual_seed(0), "output_type": "pt"}
    drawn = prompted(image_prompt=images, **options).images
    right = Judge.load()(2 * drawn - 1) == batch.attributes
    assert right.all(dim=1).float().mean() > 0.7
