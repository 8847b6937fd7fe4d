"""CLIP guidance: a CLIP whose image tower was trained on guesses."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from minisd.data import ONE
from minisd.errors import InputError
from minisd.extensions.clip_guidance import extend, guess, load, lower, use
from minisd.training import Recipe, Run
from tests.evaluation.stubs import Album
from tests.helpers import make_tiny_pipe

ASKED = {"num_inference_steps": 3, "output_type": "pt"}


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def extended(tmp_path_factory, tiny_pipe):
    recipes = {"clip_guidance": Recipe(steps=3, batch_size=8)}
    run = Run(tmp_path_factory.mktemp("run"), Album(), recipes=recipes)
    run.working.mkdir()
    return extend(run, tiny_pipe)


def test_guesses_are_shown_under_noise_of_variance_1():
    """Here the U-Net knows the pictures, and the decoder shows latents as they are."""
    pipe = make_tiny_pipe()
    pictures = ONE.batch(40, generator=seeded()).images
    latents = pipe.encode(pictures / 2 + 0.5)

    def knows(x_t, t, context):
        a = pipe.schedule.a(t, x_t)
        return (a.sqrt() * x_t - latents) / (1 - a).sqrt()

    pipe.unet.forward, pipe.autoencoder.decode = knows, lambda z: z
    seen = guess(pipe, pictures, seeded()) * pipe.autoencoder.config.scaling_factor
    noise = (seen - latents).flatten()
    assert abs(noise.mean()) < 0.03 and noise.std() == pytest.approx(1, abs=0.03)
    assert abs(torch.corrcoef(torch.stack([noise, latents.flatten()]))[0, 1]) < 0.05


def test_the_u_net_guesses_without_a_caption(tiny_pipe):
    asked = []
    hook = tiny_pipe.unet.register_forward_hook(lambda _, inputs, __: asked.append(inputs))
    guess(tiny_pipe, ONE.batch(6, generator=seeded()).images, seeded())
    hook.remove()
    ((_, t, context),) = asked
    assert len(t.unique()) > 1
    assert torch.equal(context, tiny_pipe.encode_prompt([""] * 6))


def test_only_the_image_towers_lower_half_is_trained(extended, tiny_pipe):
    before, after = tiny_pipe.clip.state_dict(), extended.guide.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    trained = {id(p) for p in lower(extended.guide).parameters()}
    allowed = {name for name, p in extended.guide.named_parameters() if id(p) in trained}
    assert changed and changed <= allowed
    assert all(name.startswith("vision_model.") for name in allowed)
    assert not any("post_layernorm" in name for name in allowed)
    assert all(p.requires_grad for p in tiny_pipe.clip.parameters())  # the checkpoint's own


def test_it_draws_with_clip_guidance(extended, tiny_pipe):
    drawn = extended("a red seven", generator=seeded(), **ASKED).images
    plain = tiny_pipe("a red seven", generator=seeded(), **ASKED).images
    assert not torch.equal(drawn, plain)
    none = extended("a red seven", generator=seeded(), clip_guidance_scale=0.0, **ASKED).images
    assert torch.equal(none, plain)


def test_its_files_hold_the_same_and_no_more(extended, tiny_pipe, tmp_path):
    extended.save_pretrained(tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == {"config.json", "model.safetensors"}
    loaded = load(tmp_path, tiny_pipe)
    draw = [p("a red seven", generator=seeded(), **ASKED).images for p in (extended, loaded)]
    assert torch.equal(*draw)


def test_what_it_does_not_stand_on_is_refused(extended, tiny_pipe, tmp_path):
    with pytest.raises(InputError, match="holds no clip-guidance .* train one with"):
        load(tmp_path, tiny_pipe)
    extended.save_pretrained(tmp_path)
    other = make_tiny_pipe()
    other.clip.logit_scale.data += 1
    with pytest.raises(InputError, match="was trained for another checkpoint"):
        load(tmp_path, other)
    with pytest.raises(InputError, match="needs a checkpoint with CLIP, and this one has none"):
        load(tmp_path, replace(tiny_pipe, clip=None))


def test_the_command_draws_with_it_if_asked(extended, tiny_pipe, tmp_path):
    extended.save_pretrained(tmp_path / "clip-guidance")
    call = {"prompt": ["a red seven"]}
    options = SimpleNamespace(extensions=tmp_path, clip_guidance=0.0)
    assert use(tiny_pipe, options, call) is tiny_pipe and set(call) == {"prompt"}
    options.clip_guidance = 2.0
    drawn = use(tiny_pipe, options, call)(**call, generator=seeded(), **ASKED).images
    same = extended("a red seven", clip_guidance_scale=2.0, generator=seeded(), **ASKED).images
    assert torch.equal(drawn, same)
