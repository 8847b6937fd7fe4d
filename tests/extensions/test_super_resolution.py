"""super_resolution enlarges what the pipeline draws, by a network that learnt from fine renders."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from minisd import StableDiffusion
from minisd.call import to_pil
from minisd.data import ONE, TWO
from minisd.errors import InputError
from minisd.evaluation import Judge, psnr
from minisd.extensions.super_resolution import (
    PATCH,
    SuperResolution,
    Upscaled,
    as_drawn,
    enlarge,
    extend,
    load,
    patches,
    render_both,
    use,
)
from minisd.suites import EXTENSIONS, Asked
from minisd.suites import super_resolution as suite
from minisd.suites.super_resolution import edges
from minisd.training import Recipe, Run
from tests.evaluation.stubs import Album
from tests.helpers import make_tiny_pipe

SHIPPED = EXTENSIONS / "super-resolution"
SOME = torch.tensor([[7, 0, 1, 0], [2, 4, 0, 3], [5, 7, 1, 4]])


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("world", [ONE, TWO])
def test_both_sizes_show_the_same_scene(world):
    attributes = world.seen_combinations()[:20]
    coarse, fine = render_both(world, attributes, "train", seeded())
    assert coarse.shape == (20, 3, 32, 32) and fine.shape == (20, 3, 128, 128)
    assert psnr(F.avg_pool2d(fine, 4), coarse) > 35
    assert psnr(F.avg_pool2d(fine.roll(1, dims=0), 4), coarse) < 20  # another scene
    assert torch.equal(render_both(world, attributes, "train", seeded())[1], fine)
    assert not torch.equal(render_both(world, attributes, "train", seeded(1))[1], fine)


def test_a_new_network_is_the_bicubic_enlargement_and_knows_where_pixels_go():
    network, x = SuperResolution(channels=4, blocks=1), torch.rand(2, 3, 8, 6)
    assert torch.equal(network(x), enlarge(x))
    with torch.no_grad():  # the third fine pixel of the second row of each is lit in green
        network.conv_out.bias[1 * 16 + 1 * 4 + 2] = 1
    lit = (network(x) - enlarge(x)).nonzero()
    assert len(lit) == 2 * 8 * 6
    assert {
        tuple(i) for i in torch.stack([lit[:, 1], lit[:, 2] % 4, lit[:, 3] % 4], 1).tolist()
    } == {(1, 1, 2)}


def test_the_network_sees_around_each_pixel():
    torch.manual_seed(0)
    network = SuperResolution(channels=4, blocks=1)
    torch.nn.init.normal_(network.conv_out.weight)
    x = torch.zeros(1, 3, 16, 16, requires_grad=True)
    network(x)[0, :, 32, 32].sum().backward()
    seen = x.grad[0].abs().sum(dim=0).nonzero()
    assert (seen - 8).abs().max() == 4  # a pixel for each of its four convolutions


def test_training_pictures_are_as_the_decoder_draws_them(tiny_pipe):
    images = ONE.render(SOME, "train", seeded())
    drawn = as_drawn(tiny_pipe, images, seeded())
    plain = 2 * tiny_pipe.decode(tiny_pipe.encode(images / 2 + 0.5)) - 1
    assert drawn.shape == images.shape and not torch.allclose(drawn, plain)  # there is noise
    assert (drawn - plain).abs().mean() < (drawn - images).abs().mean() / 2  # but little
    assert torch.equal(drawn, as_drawn(tiny_pipe, images, seeded()))


def test_patches_show_the_same_place_and_something_lit():
    attributes = ONE.all_combinations()[::8]
    coarse, fine = render_both(ONE, attributes, "train", seeded())
    small, large = patches(coarse, fine, seeded())
    assert small.shape == (100, 3, PATCH, PATCH) and large.shape == (100, 3, 4 * PATCH, 4 * PATCH)
    assert psnr(F.avg_pool2d(large, 4), small) > 35
    lit = lambda x: (x.amax(dim=(1, 2, 3)) > 0).float().mean()  # noqa: E731
    assert lit(small) > 0.95 > lit(coarse[..., :PATCH, :PATCH])
    others, _ = patches(coarse, fine, seeded(1))
    assert not torch.equal(small, others)
    black, _ = patches(
        torch.full((1, 3, 32, 32), -1.0), torch.full((1, 3, 128, 128), -1.0), seeded()
    )
    assert (black == -1).all()


def run_in(folder, dataset=ONE, steps=3):
    run = Run(folder, dataset, recipes={"super_resolution": Recipe(steps, 4, 1e-3)})
    run.working.mkdir(exist_ok=True)
    return run


@pytest.fixture(scope="module")
def extended(tmp_path_factory):
    """(a tiny pipeline, the same upscaled, the folder where that is written)"""
    pipe, run = make_tiny_pipe(), run_in(tmp_path_factory.mktemp("run"))
    made = extend(run, pipe)
    made.save_pretrained(run.folder, torch.float16)
    return pipe, made, run.folder


def test_it_learns_and_the_seed_decides_every_bit(extended, tmp_path):
    pipe, made, _ = extended
    assert made.network.conv_out.weight.abs().sum() > 0
    again = extend(run_in(tmp_path), pipe)
    for a, b in zip(made.network.parameters(), again.network.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_killed_run_goes_on_to_the_same_bits(extended, tmp_path, monkeypatch):
    pipe, made, _ = extended
    monkeypatch.setattr("minisd.training.loop.SAVE_EVERY", 0.0)
    calls = []

    def dies(*arguments):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return as_drawn(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr("minisd.extensions.super_resolution.as_drawn", dies)
        with pytest.raises(KeyboardInterrupt):
            extend(run_in(tmp_path), pipe)
    again = extend(run_in(tmp_path), pipe)
    assert torch.equal(made.network.conv_out.weight, again.network.conv_out.weight)


def test_a_folder_of_pictures_has_no_fine_renders(tiny_pipe, tmp_path):
    with pytest.raises(InputError, match="album has none; take a checkpoint that draws"):
        extend(run_in(tmp_path, Album()), tiny_pipe)


def call(pipe, **options):
    return pipe(["a red seven", "a blue two"], generator=seeded(), **options)


def test_every_kind_of_output_but_latents_is_larger(extended):
    pipe, made, _ = extended
    small = call(pipe, output_type="pt").images
    large = call(made, output_type="pt").images
    assert large.shape == (2, 3, 128, 128) and large.min() >= 0 and large.max() <= 1
    assert torch.equal(large, made.upscale(small))
    array = call(made, output_type="np").images
    assert array.shape == (2, 128, 128, 3)
    np.testing.assert_array_equal(array, large.permute(0, 2, 3, 1).numpy())
    assert [image.size for image in call(made).images] == [(128, 128)] * 2
    assert call(made, return_dict=False)[0][0].size == (128, 128)
    latents = call(made, output_type="latent").images
    assert torch.equal(latents, call(pipe, output_type="latent").images)
    assert call(made, output_type="latent", return_dict=False)[0].shape == latents.shape
    with pytest.raises(InputError, match="output_type"):
        call(made, output_type="jpg")


def test_the_pipeline_s_own_arguments_stay(extended):
    pipe, made, _ = extended
    positional = made("a red seven", 32, 40, 3, generator=seeded()).images
    assert positional[0].size == (160, 128)
    image, mask = torch.rand(3, 32, 32), torch.zeros(32, 32)
    mask[:16] = 1
    edit = {"image": image, "mask_image": mask, "num_inference_steps": 3, "output_type": "pt"}
    filled = call(made, **edit).images
    assert torch.equal(filled, made.upscale(call(pipe, **edit).images))
    kept = made.upscale(image[None]).expand(2, -1, -1, -1)
    # The network sees ten pixels, forty fine ones, beyond the mask's edge.
    torch.testing.assert_close(filled[:, :, 104:], kept[:, :, 104:])
    assert made.defaults is pipe.defaults


def test_pictures_of_every_kind_are_enlarged_and_others_told(extended):
    _, made, _ = extended
    one = torch.rand(3, 8, 8)
    assert torch.equal(made.upscale(one), made.upscale(one[None]))
    (picture,) = to_pil(one[None])
    assert made.upscale(picture).shape == made.upscale(one.half()).shape == (1, 3, 32, 32)
    for wrong in (None, one[:2], one - 1):
        with pytest.raises(InputError, match="images must"):
            made.upscale(wrong)


def test_its_file_holds_the_network(extended):
    pipe, made, folder = extended
    large = call(load(folder, pipe), output_type="pt").images
    torch.testing.assert_close(large, call(made, output_type="pt").images, atol=2e-3, rtol=0)


def test_it_refuses_another_decoder_and_an_empty_folder(extended, tmp_path):
    pipe, _, folder = extended
    other = make_tiny_pipe()
    with torch.no_grad():
        other.unet.conv_out.bias += 1
        load(folder, other)  # any U-Net may draw what it enlarges
        other.autoencoder.decoder.conv_out.bias += 1
    with pytest.raises(InputError, match="trained for another checkpoint; train anew with: "):
        load(folder, other)
    with pytest.raises(InputError, match="holds no super-resolution .* train one with: "):
        load(tmp_path, pipe)


def test_the_option_of_sample(extended, tmp_path):
    pipe, _, folder = extended
    (tmp_path / "super-resolution").symlink_to(folder)
    options = SimpleNamespace(extensions=tmp_path, upscale=False)
    assert use(pipe, options, {}) is pipe
    options.upscale = True
    assert isinstance(use(pipe, options, {}), Upscaled)


def test_edges_tell_sharp_from_blurred():
    sharp = torch.zeros(1, 3, 32, 32)
    sharp[:, :, :, 16:] = 1
    blurred = F.avg_pool2d(F.pad(sharp, (2, 2, 2, 2), mode="replicate"), 5, stride=1)
    assert edges(blurred).item() == pytest.approx(edges(sharp).item() / 5, rel=1e-4)


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_pictures_have_no_interval(count):
    with pytest.raises(InputError, match="too few samples"):
        suite.mean(torch.ones(count))


def test_the_suite_measures_every_way(extended, tmp_path):
    pipe, _, folder = extended
    (tmp_path / "super-resolution").symlink_to(folder)
    results = suite.measure(pipe, Judge.load(), Asked(20, extensions=tmp_path))
    assert list(results["renders"]) == ["renders", "decoded"]
    for row in results["renders"].values():
        assert list(row) == ["nearest", "bicubic", "super-resolution"]
        for cell in row.values():
            assert cell["all"]["low"] < cell["all"]["mean"] < cell["all"]["high"]
            assert min(cell["small"]["mean"], cell["large"]["mean"]) <= cell["all"]["mean"]
    bicubic = results["renders"]["renders"]["bicubic"]
    assert bicubic["all"]["mean"] > 30 and 0.5 < bicubic["edges"] < 1
    assert results["drawn"]["before"]["of"] == 10
    renders, drawn = suite.tables(results).values()
    assert len(renders) == 7 and len(drawn) == 5


@pytest.mark.skipif(not SHIPPED.exists(), reason="no weights are shipped")
def test_the_shipped_weights_beat_bicubic():
    pipe = StableDiffusion.from_pretrained()
    upscaled = load(SHIPPED, pipe)
    attributes = ONE.all_combinations()[::16]
    coarse, fine = render_both(ONE, attributes, "test", seeded())
    ours = 2 * upscaled.upscale(coarse / 2 + 0.5) - 1
    assert psnr(ours, fine) > psnr(enlarge(coarse), fine) + 3
