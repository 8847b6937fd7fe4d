"""All three stages, tiny and short: from nothing to a pipeline, whether they are killed or not."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from minisd import StableDiffusion, checkpoint, data
from minisd.data import TwoDigits, is_held_out
from minisd.errors import InputError
from minisd.machine import mixed_precision
from minisd.models import Autoencoder, TextEncoder
from minisd.training import RECIPES, stages
from tests.helpers import change_recipe, equal, our_tokenizer, tiny_run

# A run that saves at every step, and then waits to be killed after the second step of one stage.
VICTIM = """
import sys, time
from pathlib import Path
from minisd.training import loop, stages
from tests.helpers import tiny_run

directory, victim = Path(sys.argv[1]), sys.argv[2]
save = loop.save_atomically
loop.SAVE_EVERY = 0.0

def save_and_wait(state, path):
    save(state, path)
    if path.stem == victim and state["step"] == 2:
        time.sleep(600)

loop.save_atomically = save_and_wait
stages.train_all(tiny_run(directory))
"""


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The directory of a run that nobody stopped."""
    directory = tmp_path_factory.mktemp("whole") / "run"
    stages.train_all(tiny_run(directory))
    return directory


def files(directory):
    """Every file of a run and its bytes, but for its checkpoints and what they cost."""
    return {
        path.relative_to(directory): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file() and path.suffix != ".ckpt" and path.name != "training.json"
    }


def checkpoints(directory):
    paths = sorted((directory / "training").iterdir())
    states = {path.name: torch.load(path, weights_only=True) for path in paths}
    return {
        name: {k: v for k, v in state.items() if k != "seconds"} for name, state in states.items()
    }


def test_training_writes_a_pipeline_that_draws(whole):
    pipe = StableDiffusion.from_pretrained(whole)
    out = pipe("a large red seven", num_inference_steps=2, generator=torch.Generator())
    assert out.images[0].size == (32, 32)
    assert pipe.clip is not None and pipe.tokenizer.unknown_words("a large red elephant") == [
        "elephant"
    ]
    assert checkpoints(whole).keys() == {"autoencoder.ckpt", "clip.ckpt", "unet.ckpt"}


def test_the_run_says_what_it_cost(whole):
    run = json.loads((whole / "training.json").read_text())
    assert run["seed"] == 0 and run["data"] == {"name": "one"} and run["processes"] == 1
    assert set(run["stages"]) == set(RECIPES) and "cores" in run["machine"]
    for cost in run["stages"].values():
        assert cost["pictures"] == 64 and 0 < cost["seconds"] < 60


def test_the_harder_world_is_trained_by_the_same_code(tmp_path):
    world = TwoDigits(pool_size=500)
    stages.train_all(tiny_run(tmp_path / "two", dataset=world))
    pipe = StableDiffusion.from_pretrained(tmp_path / "two")
    prompt = "a red three left of a blue seven"
    assert not pipe.tokenizer.unknown_words(prompt)
    assert pipe(prompt, num_inference_steps=2, output_type="pt").images.shape == (1, 3, 32, 32)
    assert json.loads((tmp_path / "two" / "training.json").read_text())["data"] == {"name": "two"}


def test_processes_that_cannot_share_the_batches_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(stages.parallel, "count", lambda: 3)
    with pytest.raises(ValueError, match="3 processes cannot share autoencoder.batch_size of 16"):
        stages.train_all(tiny_run(tmp_path / "three"))
    assert not (tmp_path / "three").exists()


def test_the_scale_of_the_latents_is_measured_not_copied(whole):
    autoencoder = StableDiffusion.from_pretrained(whole).autoencoder
    images = data.draw_batch(1000, "train", torch.Generator().manual_seed(5)).images
    with torch.no_grad():
        latents = autoencoder.encode(images).sample() * autoencoder.config.scaling_factor
    assert latents.std().item() == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("stage", ["autoencoder", "clip", "unet"])
def test_a_run_that_is_killed_resumes_to_the_same_bits(whole, tmp_path, stage):
    directory = tmp_path / "run"
    checkpoint = directory / "training" / f"{stage}.ckpt"
    process = subprocess.Popen([sys.executable, "-c", VICTIM, str(directory), stage])
    try:
        deadline = time.monotonic() + 120
        while not checkpoint.exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.005)
    finally:
        process.kill()  # SIGKILL: no chance to clean up
    assert process.wait() != 0
    assert torch.load(checkpoint, weights_only=True)["step"] in (1, 2)
    assert not (directory / "model_index.json").exists()

    stages.train_all(tiny_run(directory), resume=True)
    assert files(directory) == files(whole)
    assert equal(checkpoints(directory), checkpoints(whole))


class Killed(BaseException):
    pass


def test_a_run_that_is_killed_while_it_saves_resumes_to_the_same_bits(whole, tmp_path, monkeypatch):
    def kill(*arguments, **options):
        raise Killed

    shutil.copytree(whole / "training", tmp_path / "training")  # all three stages are trained
    for module, name in (
        (StableDiffusion, "save_pretrained"),  # nothing is saved
        (checkpoint, "save_index"),  # all but what tells that all is there
        (stages, "record"),  # all but training.json
    ):
        with monkeypatch.context() as patch, pytest.raises(Killed):
            patch.setattr(module, name, kill)
            stages.train_all(tiny_run(tmp_path), resume=True)
        if name != "record":
            with pytest.raises(InputError, match=f"train one with: .* --out {tmp_path} --resume"):
                StableDiffusion.from_pretrained(tmp_path)
    stages.train_all(tiny_run(tmp_path), resume=True)
    assert files(tmp_path) == files(whole) and (tmp_path / "training.json").exists()


def test_resuming_a_finished_run_changes_nothing(whole):
    before = files(whole), checkpoints(whole)
    stages.train_all(tiny_run(whole), resume=True)
    assert equal((files(whole), checkpoints(whole)), before)


def test_another_seed_gives_another_model(whole, tmp_path):
    stages.train_all(tiny_run(tmp_path / "other", seed=1))
    ours, other = files(tmp_path / "other"), files(whole)
    assert ours.keys() == other.keys()
    for path in ours:
        assert (ours[path] != other[path]) == (path.suffix == ".safetensors" or "vae" in path.parts)


def test_resuming_with_another_seed_or_recipe_or_data_is_refused(whole):
    before = files(whole), checkpoints(whole)
    with pytest.raises(ValueError, match=r"autoencoder\.ckpt .* other settings: seed"):
        stages.train_all(tiny_run(whole, seed=1), resume=True)
    with pytest.raises(ValueError, match=r"autoencoder\.ckpt .* other settings: data"):
        stages.train_all(tiny_run(whole, dataset=TwoDigits()), resume=True)
    other = change_recipe(tiny_run(whole), "clip", learning_rate=0.5)
    with pytest.raises(ValueError, match=r"clip\.ckpt .* other settings: learning_rate"):
        stages.train_all(other, resume=True)
    assert equal((files(whole), checkpoints(whole)), before)


def test_a_directory_that_holds_something_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(ValueError, match="not empty; choose another --out") as error:
        stages.train_all(tiny_run(tmp_path))
    assert str(tmp_path) in str(error.value)
    assert files(tmp_path) == {(tmp_path / "thesis.txt").relative_to(tmp_path): b"years of work"}
    assert os.listdir(tmp_path) == ["thesis.txt"]


@pytest.mark.parametrize("name", ["", "not/there"])
def test_there_must_be_a_run_to_resume(tmp_path, name):
    with pytest.raises(ValueError, match="no run to resume.*--resume") as error:
        stages.train_all(tiny_run(tmp_path / name), resume=True)
    assert str(tmp_path / name) in str(error.value)
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize(
    ("held", "message"),
    [
        (("training/super_resolution.ckpt",), "another run, of super-resolution; choose another"),
        (("training/unet.ckpt", "training/few_steps.ckpt"), "another run, of few-steps; choose"),
        (("training/notes.txt", "model_index.json"), "no run to resume; start one without"),
    ],
)
def test_what_another_run_wrote_is_left_alone(tmp_path, held, message):
    (tmp_path / "training").mkdir()
    for name in held:
        (tmp_path / name).write_text("hours of work")
    with pytest.raises(InputError, match=message):
        stages.check_folder(tiny_run(tmp_path), resume=True)


def test_a_run_killed_before_its_first_checkpoint_goes_on(tmp_path):
    (tmp_path / "training").mkdir()
    stages.check_folder(tiny_run(tmp_path), resume=True)
    with pytest.raises(InputError, match="not empty; go on with --resume, or choose another --out"):
        stages.check_folder(tiny_run(tmp_path), resume=False)


def test_hard_negatives_are_seen_combinations_in_groups_that_differ_in_the_digit_only():
    for seed in range(50):
        batch = data.ONE.hard_negatives(128, torch.Generator().manual_seed(seed))
        assert batch.shape == (128, 4)
        assert not is_held_out(batch).any()
        groups = batch[:96].unflatten(0, (12, 8))  # eight of ten digits: two are held out
        assert (groups[:, :, 1:] == groups[:, :1, 1:]).all()
        assert all(len(group[:, 0].unique()) == 8 for group in groups)
        assert len(batch[96:].unique(dim=0)) > 24  # the rest is drawn at random


def test_hard_negatives_of_two_digits_are_seen_ones_of_few_groups():
    batch = data.TWO.hard_negatives(128, torch.Generator().manual_seed(0))
    assert batch.shape == (128, 5) and not data.TWO.is_held_out(batch).any()
    hard = batch[:80]
    assert len(hard[:, [1, 4]].sort(dim=1).values.unique(dim=0)) <= 4  # colours of four groups
    exchanged = {tuple(c) for c in hard[:, [0, 4, 2, 3, 1]].tolist()}  # colours, that is
    assert sum(tuple(c) in exchanged for c in hard.tolist()) >= 16
    assert len(batch[112:].unique(dim=0)) > 12


@pytest.mark.parametrize("size", [1, 10, 33, 64])
def test_hard_negatives_fill_a_batch_of_any_size(size):
    batch = data.ONE.hard_negatives(size, torch.Generator().manual_seed(0))
    assert batch.shape == (size, 4) and not is_held_out(batch).any()


def test_the_tokenizer_knows_every_caption_whole():
    tokenizer = stages.train_tokenizer(tiny_run(Path("unused")))
    captions, _ = data.write_captions(
        data.all_combinations().repeat(4, 1), torch.Generator().manual_seed(1)
    )
    for caption in captions:
        assert not tokenizer.cut(caption) and not tokenizer.unknown_words(caption)
        assert len(tokenizer.encode(caption)) == len(caption.replace(",", " ,").split())


@pytest.fixture
def parts():
    """Autoencoder, tokenizer and text encoder, as they come to stage 3."""
    torch.manual_seed(0)
    run, tokenizer = tiny_run(Path("unused")), our_tokenizer()
    autoencoder = Autoencoder(run.autoencoder_config).eval()
    return autoencoder, tokenizer, TextEncoder(run.clip_config(tokenizer).text)


@torch.no_grad()
def test_the_pool_is_encoded_with_its_own_captions(parts):
    autoencoder, tokenizer, text_encoder = parts
    run = tiny_run(Path("unused"), seed=3)
    pool = stages.encode_pool(run, autoencoder, tokenizer, text_encoder)
    batch = next(run.dataset.pool(seed=3))
    scale = autoencoder.config.scaling_factor
    with mixed_precision("cpu"):  # of pictures and captions; in bfloat16 where training is
        mean = autoencoder.encode(batch.images).mean
        torch.testing.assert_close(pool.contexts, text_encoder(tokenizer(batch.captions)))
    torch.testing.assert_close(pool.latents, mean * scale)
    assert torch.equal(pool.attributes, batch.attributes)
    assert torch.equal(pool.mentioned, batch.mentioned)
    assert torch.equal(pool.empty, text_encoder(tokenizer([""])))
    assert len(pool.contexts.unique(dim=0)) > 200


def test_a_batch_of_the_pool_comes_with_the_latents_that_its_captions_fit(parts):
    run = tiny_run(Path("unused"))
    pool = stages.encode_pool(run, *parts)
    x0, context, (latents, fit) = pool.draw(50, torch.Generator().manual_seed(0))
    assert torch.equal(latents[:50], x0) and fit.shape == (50, len(latents))
    for i in range(50):
        this = (pool.latents == x0[i]).all(dim=(1, 2, 3)).nonzero()[0].item()
        for j in range(0, len(latents), 7):
            other = (pool.latents == latents[j]).all(dim=(1, 2, 3)).nonzero()[0].item()
            same = pool.attributes[this] == pool.attributes[other]
            named = pool.mentioned[this] if context[i].ne(pool.empty[0]).any() else same
            assert fit[i, j] == (same | ~named).all()
    assert 0 < (context == pool.empty).all(dim=(1, 2)).sum() < 20


def test_the_unet_sees_pictures_with_their_captions_and_now_and_then_with_none(
    tmp_path, monkeypatch, parts
):
    shown, given, loss = [], [], stages.denoising_loss

    def spy(model, schedule, x0, context, generator, **more):
        shown.append((x0, context))
        given.append(more)
        return loss(model, schedule, x0, context, generator, **more)

    monkeypatch.setattr(stages, "denoising_loss", spy)
    autoencoder, tokenizer, text_encoder = parts
    run = change_recipe(tiny_run(tmp_path), "unet", steps=20, batch_size=50)
    stages.train_unet(run, tokenizer, text_encoder, autoencoder)

    pool = stages.encode_pool(run, autoencoder, tokenizer, text_encoder)
    x0, context = (torch.cat(tensors) for tensors in zip(*shown, strict=True))  # (1000, ...)
    without = (context == pool.empty).all(dim=(1, 2))
    picture = torch.cdist(x0.flatten(1), pool.latents.flatten(1)).argmin(dim=1)
    assert 70 <= without.sum() <= 130
    assert torch.equal(context[~without], pool.contexts[picture[~without]])

    for (latents, _), more in zip(shown, given, strict=True):
        assert torch.equal(more["empty"], pool.empty)
        assert torch.equal(more["references"][0][:50], latents)
    guidance = [more["guidance"] for more in given]  # none for six steps, all from the twelfth on
    assert guidance[:7] == [0.0] * 7 and guidance[12:] == [stages.MODEL_GUIDANCE] * 8
    assert guidance[9] == pytest.approx(stages.MODEL_GUIDANCE / 2)
