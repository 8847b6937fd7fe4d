"""The pipeline: prompt in, pictures out, every bit of it decided by the generator."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from minisd import StableDiffusion
from minisd.call import SamplingDefaults
from minisd.diffusion import SAMPLERS, sample
from minisd.errors import InputError
from minisd.evaluation import Judge
from minisd.pretrained import WEIGHTS

PROMPTS = ["a red seven", "a small blue one at the top left"]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def shipped():
    return StableDiffusion.from_pretrained()


@pytest.fixture
def draw(tiny_pipe):
    """Pictures as a tensor, in two steps unless told otherwise."""

    def draw(prompt="a red seven", seed=0, **options):
        options = {"num_inference_steps": 2, "generator": seeded(seed)} | options
        return tiny_pipe(prompt, **({"output_type": "pt"} | options)).images

    return draw


@pytest.fixture
def calls(tiny_pipe):
    """The batch size of every call of the U-Net."""
    sizes = []
    hook = tiny_pipe.unet.register_forward_hook(lambda _, inputs, __: sizes.append(len(inputs[0])))
    yield sizes
    hook.remove()


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_generator_decides_every_bit(draw, sampler):
    one = draw(sampler=sampler, seed=1)
    torch.manual_seed(99)  # of no account
    assert torch.equal(draw(sampler=sampler, seed=1), one)
    assert not torch.equal(draw(sampler=sampler, seed=2), one)


def test_the_noise_of_eta_comes_from_the_generator_too(draw):
    assert torch.equal(draw(eta=1.0), draw(eta=1.0))
    assert not torch.equal(draw(eta=1.0), draw(eta=0.0))


def test_drawing_leaves_the_global_randomness_alone(draw):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    draw(eta=0.5)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_pipeline_from_its_files_draws_the_same_bits(draw, tiny_weights):
    other = StableDiffusion.from_pretrained(tiny_weights)
    again = other(PROMPTS, num_inference_steps=2, generator=seeded(), output_type="pt").images
    assert torch.equal(draw(PROMPTS), again)


def test_prompt_negative_prompt_and_guidance_all_matter(draw):
    pictures = [
        draw(),
        draw("a blue one"),
        draw(negative_prompt="a blue one"),
        draw(guidance_scale=5.0),
        draw(guidance_scale=1.0),
    ]
    for i, a in enumerate(pictures):
        assert not any(torch.equal(a, b) for b in pictures[:i])


def test_an_empty_negative_prompt_is_none(draw):
    assert torch.equal(draw(negative_prompt=""), draw())


def test_without_guidance_the_negative_prompt_is_of_no_account(draw):
    """And the user hears of it."""
    with pytest.warns(UserWarning, match="a negative prompt changes nothing without guidance"):
        same = draw(guidance_scale=1, negative_prompt="a blue one")
    assert torch.equal(same, draw(guidance_scale=1))


def test_one_negative_prompt_serves_all_and_a_list_goes_with_the_prompts(draw):
    one = draw(PROMPTS, negative_prompt="a green four")
    assert torch.equal(one, draw(PROMPTS, negative_prompt=["a green four"] * 2))
    each = draw(PROMPTS, negative_prompt=["a green four", ""])
    assert torch.equal(one[0], each[0]) and not torch.equal(one[1], each[1])


@pytest.mark.parametrize(("scale", "size"), [(1.0, 2), (3.0, 4), (0.0, 2)])
def test_guidance_is_one_call_of_twice_the_batch(draw, calls, scale, size):
    draw(PROMPTS, guidance_scale=scale, num_inference_steps=3)
    assert calls == [size] * 3


def test_combined_prompts_are_asked_in_the_same_call(draw, calls, tiny_pipe):
    combine = [("a seven", 1.0), (["in the center", "at the top left"], -0.5)]
    options = {"num_inference_steps": 2, "num_images_per_prompt": 2, "combine": combine}
    plain = draw(PROMPTS, **options)
    assert calls == [16] * 2  # the empty prompt and three others, of two prompts twice
    assert not torch.equal(plain, draw(PROMPTS, **options, guidance_scale=1.0))
    options["combine"] = [(PROMPTS[0], 0.0)]
    assert torch.equal(draw(PROMPTS, **options), draw(PROMPTS, **options | {"combine": ()}))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_takes_combined_prompts_and_clip_guidance(draw, sampler):
    plain, combined, guided = (
        draw(num_inference_steps=3, sampler=sampler, guidance_rescale=0.5, **options)
        for options in ({}, {"combine": [("a seven", 1.0)]}, {"clip_guidance_scale": 3.0})
    )
    assert not torch.equal(plain, combined) and not torch.equal(plain, guided)


def test_clip_guidance_makes_clip_agree(shipped):
    """Even without the U-Net knowing the caption. Whether a person agrees is another question."""
    shown = {}
    ids = shipped.tokenizer(PROMPTS)
    for scale in (0.0, 3.0):
        options = {"guidance_scale": 0.0, "num_inference_steps": 10, "output_type": "pt"}
        options |= {"num_images_per_prompt": 4, "clip_guidance_scale": scale}
        images = shipped(PROMPTS, generator=seeded(), **options).images
        with torch.no_grad():
            logits = shipped.clip(2 * images - 1, ids)  # (8, 2)
        shown[scale] = logits[:4, 0].mean() + logits[4:, 1].mean()
    assert shown[3.0] > shown[0.0]


def test_several_pictures_of_each_prompt_follow_one_another(draw, tiny_pipe):
    assert draw(PROMPTS, num_images_per_prompt=3).shape == (6, 3, 32, 32)
    same = tiny_pipe.draw_latents(1, generator=seeded()).repeat(4, 1, 1, 1)
    a, b, c, d = draw(PROMPTS, num_images_per_prompt=2, latents=same)
    assert torch.equal(a, b) and torch.equal(c, d) and not torch.equal(a, c)


def test_several_pictures_of_one_prompt_differ(draw):
    a, b = draw(num_images_per_prompt=2)
    assert not torch.equal(a, b)


def test_latents_that_are_given_are_where_it_starts(draw, tiny_pipe):
    latents = tiny_pipe.draw_latents(1, generator=seeded(5))
    kept = latents.clone()
    assert torch.equal(draw(latents=latents, seed=6), draw(seed=5))
    assert torch.equal(latents, kept)


def test_pictures_are_pil_images_or_a_tensor_of_the_same(draw):
    tensor, images = draw(PROMPTS), draw(PROMPTS, output_type="pil")
    assert tensor.shape == (2, 3, 32, 32) and 0 <= tensor.min() < tensor.max() <= 1
    assert all(isinstance(i, Image.Image) and i.mode == "RGB" for i in images)
    pixels = np.stack([np.asarray(i) for i in images])
    assert np.abs(pixels / 255 - tensor.permute(0, 2, 3, 1).numpy()).max() <= 0.5 / 255 + 1e-6


def test_other_sizes_than_the_trained_one(draw):
    assert draw(height=48, width=32).shape == (1, 3, 48, 32)


def test_the_checkpoints_sampler_is_used_unless_another_is_named(tiny_pipe, draw, monkeypatch):
    ddim, ddpm = draw(sampler="ddim"), draw(sampler="ddpm")
    assert torch.equal(draw(), ddim)
    monkeypatch.setattr(tiny_pipe, "sampler", "ddpm")
    assert torch.equal(draw(), ddpm)


def test_the_latents_are_divided_by_the_scaling_factor(tiny_pipe, monkeypatch):
    latents = tiny_pipe.draw_latents(2, generator=seeded())
    plain, autoencoder = tiny_pipe.decode(latents), tiny_pipe.autoencoder
    config = replace(autoencoder.config, scaling_factor=4.0)
    monkeypatch.setattr(autoencoder, "config", config)
    assert torch.equal(tiny_pipe.decode(4 * latents), plain)


def test_pictures_are_encoded_as_they_are_decoded(shipped):
    batch = shipped(PROMPTS, generator=seeded(), output_type="pt").images
    latents = shipped.encode(batch)
    assert latents.shape == (2, 4, 8, 8)
    config = shipped.autoencoder.config
    with torch.no_grad():
        mean = shipped.autoencoder.encode(2 * batch - 1).mean
    assert torch.equal(latents, config.scaling_factor * mean)
    assert (shipped.decode(latents) - batch).abs().mean() < 0.01


def test_the_denoiser_is_guided_as_the_checkpoint_says_unless_told_otherwise(tiny_pipe):
    x, t = tiny_pipe.draw_latents(2, generator=seeded()), torch.tensor(500)
    contexts = tiny_pipe.encode_prompt(PROMPTS), tiny_pipe.encode_prompt(["", ""])
    with torch.no_grad():
        own = tiny_pipe.denoiser(*contexts)(x, t)
        assert torch.equal(own, tiny_pipe.denoiser(*contexts, 3.0, 0.9)(x, t))
        assert torch.equal(
            tiny_pipe.denoiser(*contexts, 1)(x, t), tiny_pipe.unet(x, t, contexts[0])
        )
    with pytest.raises(InputError, match="guidance_rescale must be a number from 0 to 1, not 2"):
        tiny_pipe.denoiser(*contexts, guidance_rescale=2)


def test_image_to_image_needs_no_more_than_the_public_parts(shipped):
    """Repaint four digits in green: digit, size and position stay."""
    captions = ["a small red seven at the top left", "a large white three at the bottom right"]
    captions += ["a small blue zero in the center", "a large yellow four at the top right"]
    pictures = shipped(captions, generator=seeded(), output_type="pt").images

    steps, start = 20, 14
    context, negative = (shipped.encode_prompt([p] * 4) for p in ("a green digit", ""))
    t = SAMPLERS[shipped.sampler].pairs(shipped.schedule, steps)[start][0]
    noise = shipped.draw_latents(4, generator=seeded(1))
    x = shipped.schedule.add_noise(shipped.encode(pictures), noise, torch.tensor([t]))
    denoise = shipped.denoiser(context, negative, 2.0, 0.0)
    repainted = shipped.decode(sample(denoise, shipped.schedule, x, steps, start=start))

    judge = Judge.load()
    before, after = judge(2 * pictures - 1), judge(2 * repainted - 1)
    assert torch.equal(after[:, [0, 2, 3]], before[:, [0, 2, 3]])
    assert (after[:, 1] == 3).all()  # green


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_inpainting_needs_no_more_than_the_public_parts(shipped, sampler):
    """The left half stays, the right half is drawn."""
    picture = shipped("a small red seven at the top left", generator=seeded(), output_type="pt")
    known, mask = shipped.encode(picture.images), torch.zeros(1, 1, 8, 8)
    mask[..., 4:] = 1

    noise = shipped.draw_latents(1, generator=seeded(1))
    contexts = (shipped.encode_prompt([p]) for p in ("a large green one at the right", ""))

    def keep(point, x_s):
        noised = point.a_s.sqrt() * known + (1 - point.a_s).sqrt() * noise
        return mask * x_s + (1 - mask) * noised

    options = {"sampler": sampler, "callback": keep, "generator": seeded(2)}
    x = sample(shipped.denoiser(*contexts), shipped.schedule, noise, steps=10, **options)
    assert torch.equal(x[..., :4], known[..., :4])
    change = (shipped.decode(x) - picture.images).abs()
    assert change[..., :12].mean() < 0.05 and change[..., 16:].max() > 0.5


def test_long_prompts_and_unknown_words_are_told_of_once(draw):
    with pytest.warns(UserWarning) as told:
        draw(["a red elephant"] * 3)
    assert [str(w.message) for w in told] == ["the model never saw these words: elephant"]
    with pytest.warns(UserWarning) as told:
        draw(["a red elephant", "two mice", "an elephant"])
    (words,) = (str(w.message).partition(": ")[2] for w in told)
    assert words == "elephant, mice"
    with pytest.warns(UserWarning, match="cut: 'orange nine'"):
        draw("the picture of a small red seven at the top left is the large orange nine")


@pytest.mark.filterwarnings("error")
def test_captions_of_ours_are_drawn_without_a_word(draw):
    draw(["an orange eight in the center", "at the top left, a small red 7", ""])


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"prompt": []}, "prompt is an empty list"),
        ({"num_inference_steps": 0}, "from 1 to 1000, not 0"),
        ({"num_inference_steps": 1001}, "from 1 to 1000, not 1001"),
        ({"num_images_per_prompt": 0}, "num_images_per_prompt"),
        ({"output_type": "jpg"}, "output_type must be one of pil, np, pt, latent, not 'jpg'"),
        ({"sampler": "nonsense"}, "sampler.*ddim.*'nonsense'"),
        ({"eta": 1.5}, "eta must be from 0 to 1"),
        ({"eta": 0.5, "sampler": "dpm++"}, "eta.*ddim"),
        ({"num_inference_steps": 2.5}, "num_inference_steps must be a whole number, not 2.5"),
        ({"guidance_scale": float("inf")}, "guidance_scale.*inf"),
        ({"guidance_rescale": -0.1}, "guidance_rescale must be a number from 0 to 1, not -0.1"),
        ({"negative_prompt": ["a", "the"]}, "2 negative prompts do not fit 1 prompts"),
        ({"negative_prompt": []}, "negative_prompt is an empty list"),
        ({"height": 30}, "multiples of 8, not 30x32"),
        ({"width": -32}, "multiples of 8, not 32x-32"),
        ({"latents": torch.zeros(2, 4, 8, 8)}, "2 latents do not fit 1 pictures"),
        ({"combine": "a seven"}, "combine must list pairs .prompt, weight., not 'a seven'"),
        ({"combine": ["ab"]}, "combine must list pairs .prompt, weight., not .'ab'."),
        ({"combine": 7}, "combine must list pairs .prompt, weight., not 7"),
        ({"combine": [("a", 1, 2)]}, "combine must list pairs"),
        ({"combine": [(1, 1.0)]}, "a prompt to combine must be a text or a list of texts, not 1"),
        (
            {"combine": [("a", float("nan"))]},
            "weight of a prompt to combine must be a number",
        ),
        ({"combine": [(["a", "the"], 1)]}, "2 prompts to combine do not fit 1 prompts"),
        ({"combine": [([], 1)]}, "a prompt to combine is an empty list"),
        ({"clip_guidance_scale": float("nan")}, "clip_guidance_scale must be a number, not nan"),
        ({"clip_guidance_scale": 1, "height": 64}, "32x32 pixels only, not 64x32"),
    ],
)
def test_what_makes_no_sense_is_refused(draw, bad, message):
    with pytest.raises(InputError, match=message):
        draw(**bad)


def test_clip_guidance_needs_clip_and_words(draw, tiny_pipe):
    with pytest.raises(InputError, match="needs a checkpoint with CLIP, and this one has none"):
        replace(tiny_pipe, clip=None)("a seven", clip_guidance_scale=1.0)
    embeds = tiny_pipe.encode_prompt("a seven")
    with pytest.raises(InputError, match="needs the prompt in words"):
        tiny_pipe(prompt_embeds=embeds, clip_guidance_scale=1.0)
    with torch.inference_mode(), pytest.raises(InputError, match="needs gradients"):
        tiny_pipe("a seven", clip_guidance_scale=1.0)


@pytest.mark.parametrize("exists", [False, True])
def test_a_directory_without_a_checkpoint_is_refused(tmp_path, exists):
    directory = tmp_path if exists else tmp_path / "nowhere"
    with pytest.raises(ValueError, match="holds no checkpoint") as error:
        StableDiffusion.from_pretrained(directory)
    assert str(directory) in str(error.value)


@pytest.mark.parametrize("part", ["unet", "../extensions/super-resolution"])
def test_an_extension_or_one_network_is_told_from_a_checkpoint(part):
    with pytest.raises(InputError, match="holds no checkpoint .* an extension or one"):
        StableDiffusion.from_pretrained(WEIGHTS / part)


# What belongs to the checkpoint


def with_settings(tiny_weights, folder, text):
    """The tiny checkpoint with another minisd.json, or without one."""
    directory = folder / "weights"
    shutil.copytree(tiny_weights, directory)
    (directory / "minisd.json").unlink()
    if text is not None:
        (directory / "minisd.json").write_text(text)
    return directory


def test_a_checkpoint_keeps_how_it_is_sampled_and_what_it_was_trained_on(tiny_pipe, tmp_path):
    own, data = SamplingDefaults(4, 2.5, 0.5), {"name": "cats", "size": 64}
    parts = (tiny_pipe.tokenizer, tiny_pipe.text_encoder, tiny_pipe.unet, tiny_pipe.autoencoder)
    pipe = StableDiffusion(*parts, tiny_pipe.schedule, defaults=own, data=data)
    pipe.save_pretrained(tmp_path)
    again = StableDiffusion.from_pretrained(tmp_path)
    assert again.defaults == own and again.data == data
    options = {"generator": seeded(), "output_type": "pt"}
    plain = again("a red seven", **options).images
    options = {"num_inference_steps": 4, "guidance_scale": 2.5, "guidance_rescale": 0.5} | options
    options["generator"] = seeded()
    assert torch.equal(plain, tiny_pipe("a red seven", **options).images)


def test_each_default_can_be_overridden_by_itself(draw, calls, tiny_pipe, monkeypatch):
    monkeypatch.setattr(tiny_pipe, "defaults", SamplingDefaults(3, 2.0, 0.5))
    plain = draw(num_inference_steps=None)
    assert len(calls) == 3
    assert torch.equal(draw(num_inference_steps=3, guidance_scale=2, guidance_rescale=0.5), plain)
    for other in ({"guidance_scale": 3.0}, {"guidance_rescale": 0.0}, {"num_inference_steps": 2}):
        assert not torch.equal(draw(**({"num_inference_steps": None} | other)), plain)


def test_a_checkpoint_that_says_nothing_is_sampled_as_diffusers_would(tiny_weights, tmp_path):
    """tests/parity holds SamplingDefaults to diffusers' own values."""
    pipe = StableDiffusion.from_pretrained(with_settings(tiny_weights, tmp_path, None))
    assert pipe.defaults == SamplingDefaults() and pipe.data is None


SAMPLING = {"num_inference_steps": 6, "guidance_scale": 3.0, "guidance_rescale": 0.9}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is damaged"),
        ("[]", "is damaged: it does not hold a JSON object"),
        ({}, '"sampling" must be an object with num_inference_steps, guidance_scale, guidance_r'),
        ({"sampling": {"num_inference_steps": 6}}, '"sampling" must be an object with num_inf'),
        ({"sampling": SAMPLING | {"eta": 1}}, '"sampling" must be an object with num_inference'),
        (
            {"sampling": SAMPLING | {"num_inference_steps": "6"}},
            "num_inf.* a whole number, not '6'",
        ),
        ({"sampling": SAMPLING | {"num_inference_steps": 6.5}}, "num_.* whole number, not 6.5"),
        ({"sampling": SAMPLING | {"num_inference_steps": 0}}, "from 1 to 1000, not 0"),
        ({"sampling": SAMPLING | {"guidance_scale": None}}, "guidance_scale .* number, not None"),
        ({"sampling": SAMPLING | {"guidance_scale": True}}, "guidance_scale .* number, not True"),
        ({"sampling": SAMPLING | {"guidance_rescale": 1.5}}, "rescale .* from 0 to 1, not 1.5"),
        ({"sampling": SAMPLING, "data": "one"}, "\"data\" must be an object or null, not 'one'"),
    ],
    ids=str,
)
def test_wrong_settings_of_a_checkpoint_are_refused(tiny_weights, tmp_path, content, message):
    text = content if isinstance(content, str) else json.dumps(content)
    directory = with_settings(tiny_weights, tmp_path, text)
    with pytest.raises(ValueError, match=message) as error:
        StableDiffusion.from_pretrained(directory)
    assert "minisd.json" in str(error.value) and "\n" not in str(error.value)


def test_the_shipped_weights_say_what_they_were_trained_on(shipped):
    assert shipped.data == {"name": "one"}


def test_the_default_is_the_fewest_steps_that_lose_little(shipped):
    """A point of the short captions, a quarter of the distance, against its sampler's own best."""
    file = Path(__file__).parents[1] / "benchmarks" / "sampling.json"
    cells = json.loads(file.read_text())["cells"][shipped.sampler]
    best = max(cell["whole"] for cell in cells.values())
    nearest = min(cell["frechet"] for cell in cells.values())
    enough = [
        int(steps)
        for steps, cell in cells.items()
        if cell["whole"] > best - 0.01 and cell["frechet"] < 1.25 * nearest
    ]
    assert min(enough) == shipped.defaults.num_inference_steps
