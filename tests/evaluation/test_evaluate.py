"""The evaluation gives full marks to pictures that are right, and bad ones to those that are not.

Stubs stand in for the pipeline, so that what is measured is the evaluation itself.
"""

import json
from importlib import import_module
from types import SimpleNamespace

import pytest
import torch

from minisd import StableDiffusion
from minisd.data import ATTRIBUTES, TWO, all_combinations, draw_batch, draw_pool, is_held_out
from minisd.evaluation import Judge, Settings, evaluate, format_table
from minisd.evaluation.evaluate import BATCH, bend, binding_and_relation, evaluate_clip, teach
from tests.helpers import read_caption, read_two

NAMES = ("joint", *ATTRIBUTES)
CHANCE = {"joint": 1 / 800, "digit": 1 / 10, "colour": 1 / 8, "size": 1 / 2, "position": 1 / 5}
SAMPLES = 400


class Stub:
    """A "pipeline" that draws real renders: what the caption says if it `listens`, else anything.

    Its "autoencoder" loses a little contrast or, if `blank`, everything.
    """

    device, clip = torch.device("cpu"), None

    def __init__(self, listens=True, blank=False):
        self.listens, contrast = listens, 0.0 if blank else 0.9
        self.captions, self.calls = [], []
        self.autoencoder = SimpleNamespace(
            encode=lambda images: SimpleNamespace(mean=images),
            decode=lambda latents: contrast * (latents + 1) - 1,
        )

    def __call__(self, captions, generator, output_type, **options):
        self.captions += captions
        self.calls.append(options)
        wanted = torch.tensor([read_caption(c) for c in captions])
        if not self.listens:
            wanted = all_combinations()[torch.randint(800, (len(wanted),), generator=generator)]
        images = draw_batch(len(wanted), "test", generator, attributes=wanted).images
        return SimpleNamespace(images=(images + 1) / 2)


@pytest.fixture(scope="module")
def judge():
    return Judge.load()


@pytest.fixture(scope="module")
def listening(judge):
    """(the stub, its results)"""
    stub = Stub()
    return stub, evaluate(
        stub,
        judge,
        Settings(
            SAMPLES, steps=7, guidance=2.5, rescale=0.5, sampler="ddim", pool=1000, lessons=1000
        ),
    )


@pytest.fixture(scope="module")
def deaf(judge):
    return evaluate(
        Stub(listens=False, blank=True), judge, Settings(SAMPLES, pool=1000, lessons=1000)
    )


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("group", ["seen", "held_out"])
def test_real_pictures_get_the_marks_of_real_pictures(listening, group, name):
    drawn, real = (listening[1][group][which][name] for which in ("drawn", "real"))
    assert real["rate"] > 0.9
    assert drawn["rate"] == pytest.approx(real["rate"], abs=0.06)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("group", ["seen", "held_out"])
def test_pictures_that_ignore_the_caption_are_right_by_chance(deaf, group, name):
    drawn = deaf[group]["drawn"][name]
    assert drawn["low"] - 0.02 <= CHANCE[name] <= drawn["high"] + 0.02
    assert deaf[group]["real"][name]["rate"] > 0.9  # the judge is not to blame


def test_the_frechet_distance_of_real_pictures_is_the_floor(listening):
    frechet = listening[1]["frechet"]
    assert frechet["floor"] > 0 and frechet["drawn"] < 2 * frechet["floor"]


def test_the_frechet_distance_of_noise_is_far_above_the_floor(judge):
    class Noise(Stub):
        def __call__(self, captions, generator, **options):
            return SimpleNamespace(images=torch.rand(len(captions), 3, 32, 32, generator=generator))

    frechet = evaluate(Noise(), judge, Settings(SAMPLES, pool=1000))["frechet"]
    assert frechet["drawn"] > 5 * frechet["floor"]


def test_half_of_the_captions_are_seen_and_half_held_out_and_all_are_full(listening):
    wanted = torch.tensor([read_caption(c) for c in listening[0].captions[:SAMPLES]])
    assert (wanted >= 0).all()
    half = SAMPLES // 2
    assert not is_held_out(wanted[:half]).any() and is_held_out(wanted[half:]).all()
    assert len(wanted[half:].unique(dim=0)) == 160  # each as often as the others


def test_the_settings_reach_the_pipeline(listening):
    stub, results = listening
    expected = {"num_inference_steps": 7, "guidance_scale": 2.5, "sampler": "ddim"}
    expected["guidance_rescale"] = 0.5
    judged, lessons = stub.calls[: SAMPLES // BATCH], stub.calls[SAMPLES // BATCH :]
    assert all(call == expected for call in judged)
    assert all(call == expected | {"guidance_scale": 1.75} for call in lessons)
    assert len(lessons) == 1000 // BATCH
    assert results["settings"] == {
        "samples": SAMPLES,
        "steps": 7,
        "guidance": 2.5,
        "rescale": 0.5,
        "sampler": "ddim",
        "seed": 0,
        "pool": 1000,
        "trained": 0,
        "lessons": 1000,
        "lesson_guidance": 1.75,
    }


def test_every_rate_lies_in_its_interval_and_adds_up(listening, deaf):
    for results in (listening[1], deaf):
        for group in ("seen", "held_out"):
            for row in results[group]["drawn"], results[group]["real"]:
                for rate in row.values():
                    assert 0 <= rate["low"] <= rate["rate"] <= rate["high"] <= 1
                    assert rate["rate"] == rate["right"] / rate["of"] and rate["of"] == SAMPLES // 2
                    assert row["joint"]["right"] <= rate["right"]


def test_the_autoencoder_is_measured_on_what_the_judge_can_read(listening, deaf):
    good, bad = listening[1]["autoencoder"], deaf["autoencoder"]
    assert good["kept"]["joint"]["rate"] > 0.95 and bad["kept"]["joint"]["rate"] == 0
    assert good["kept"]["joint"]["of"] == bad["kept"]["joint"]["of"] <= SAMPLES
    assert good["psnr"] > 30 > bad["psnr"]


def test_a_real_pipeline_is_measured_from_end_to_end(tiny_pipe, judge):
    results = evaluate(tiny_pipe, judge, Settings(samples=40, steps=2, pool=1000))
    text = format_table(results)
    assert json.loads(json.dumps(results, allow_nan=False)) == results
    for row in (
        "seen, drawn",
        "seen, real renders",
        "held out, drawn",
        "held out, real renders",
        "autoencoder keeps",
        "CLIP zero-shot",
        "Frechet distance",
        "reconstruction",
        "CLIP score",
        "copies",
    ):
        assert sum(line.startswith(row) for line in text.splitlines()) == 1, row
    assert all(name in text.splitlines()[0] for name in ("joint", *ATTRIBUTES))
    assert results["zero_shot"]["joint"]["rate"] < 0.2  # untrained


def test_copies_of_training_pictures_are_found(judge, listening):
    class Thief(Stub):
        def __call__(self, captions, **options):
            *_, batch = draw_pool(1000, seed=7)
            images = batch.images[: len(captions)]
            return SimpleNamespace(images=(images + 1) / 2)

    stolen = evaluate(Thief(), judge, Settings(samples=40, pool=1000, trained=7))["copies"]
    assert stolen["drawn"]["rate"] == 1
    other = evaluate(Thief(), judge, Settings(samples=40, pool=1000))["copies"]
    assert other["drawn"]["rate"] < 0.05  # the training of another seed saw other pictures
    for copies in (stolen["real"], *listening[1]["copies"].values()):
        assert copies["rate"] < 0.05


def test_a_fresh_reader_learns_from_pictures_that_are_right_and_only_from_them(listening, deaf):
    assert deaf["taught"]["high"] < 0.3 < 0.5 < listening[1]["taught"]["low"]


def test_bent_lessons_show_the_same_and_no_two_alike(judge):
    real = draw_batch(1000, "train", torch.Generator().manual_seed(0))
    once, again, other = (
        bend(real.images, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)
    )
    assert once.equal(again)
    assert (once - other).abs().amax(dim=(1, 2, 3)).min() > 0.1
    assert -1.001 < once.min() < -0.999 and 0.9 < once.max() < 1.001
    before, after = judge(real.images), judge(once)
    assert (before[:, 0] == after[:, 0]).float().mean() > 0.9  # by a judge that saw none bent
    assert (before[:, 1] == after[:, 1]).float().mean() > 0.99


def test_nothing_is_bent_out_of_a_black_picture():
    black = -torch.ones(2, 3, 32, 32)
    assert bend(black, torch.Generator().manual_seed(0)).equal(black)


def seen_by_clip(monkeypatch, sees):
    """A pipeline whose CLIP answers sees(what the judge reads)."""
    judge = Judge.load()
    answer = lambda pipe, images, world=None: sees(judge(images))  # noqa: E731
    module = import_module("minisd.evaluation.evaluate")  # by name: the function is called so, too
    monkeypatch.setattr(module, "read_by_clip", answer)
    pipe = Stub()
    pipe.clip = "there is one"
    return pipe


def test_what_clip_takes_for_something_else_is_no_lesson(monkeypatch):
    def blind_to_high_digits(read):
        return torch.where(read[:, :1] < 5, read, -1)

    test = draw_batch(SAMPLES, "test", torch.Generator().manual_seed(1))
    pipe = seen_by_clip(monkeypatch, blind_to_high_digits)
    taught = teach(pipe, Settings(lessons=2000), test.images, test.attributes)
    assert 800 < taught["lessons"] <= 1000
    low = (test.attributes[:, 0] < 5).float().mean()  # of the others it never saw one
    assert 0.6 * low < taught["rate"] <= low


def test_a_clip_that_finds_nothing_right_is_told_of(monkeypatch):
    pipe = seen_by_clip(monkeypatch, lambda read: read - 1)
    test = draw_batch(SAMPLES, "test", torch.Generator().manual_seed(1))
    with pytest.raises(ValueError, match="in 0 of 1000 lessons"):
        teach(pipe, Settings(lessons=1000), test.images, test.attributes)


@pytest.mark.parametrize("lessons", [-5, 1, 999])
def test_too_few_lessons_are_refused(judge, lessons):
    with pytest.raises(ValueError, match=f"{lessons} pictures teach nobody"):
        evaluate(Stub(), judge, Settings(lessons=lessons))


def test_a_pipeline_without_clip_has_no_clip_rows(listening):
    assert not {"zero_shot", "clip_score"} & listening[1].keys()
    assert "CLIP" not in format_table(listening[1])


def test_a_clip_that_understands_is_right_zero_shot():
    """One hot vector for each attribute, from the caption and from the pixels."""

    def hot(attributes):
        sizes = (10, 8, 2, 5)
        parts = [torch.nn.functional.one_hot(a, n) for a, n in zip(attributes.T, sizes)]
        return torch.cat(parts, dim=1).float() / 2

    test = draw_batch(100, "test", torch.Generator().manual_seed(0))
    clip = SimpleNamespace(
        encode_text=lambda ids: hot(ids), encode_image=lambda _: hot(test.attributes)
    )
    read = lambda captions: torch.tensor([read_caption(c) for c in captions])  # noqa: E731
    pipe = SimpleNamespace(device=torch.device("cpu"), clip=clip, tokenizer=read)
    assert evaluate_clip(pipe, test.images, test.attributes)["joint"]["rate"] == 1
    assert evaluate_clip(pipe, test.images, test.attributes.roll(1, 0))["joint"]["rate"] < 0.1


def test_the_seed_decides_every_number(judge):
    def numbers(seed):
        return evaluate(Stub(listens=False), judge, Settings(samples=40, seed=seed, pool=1000))

    assert numbers(1) == numbers(1)
    assert numbers(1)["frechet"] != numbers(2)["frechet"]


@pytest.mark.parametrize("samples", [1, 0, -4])
def test_too_few_samples_are_refused(judge, samples):
    with pytest.raises(ValueError, match=f"at least 2.*not {samples}"):
        evaluate(Stub(), judge, Settings(samples=samples))


# Two digits in one picture

TWO_SETTINGS = Settings(samples=200, steps=2, pool=500)
SWAPS = {  # what a pipeline draws instead of what was asked
    "as asked": [0, 1, 2, 3, 4],
    "colours changed places": [0, 4, 2, 3, 1],
    "digits changed places": [3, 4, 2, 0, 1],
}


@pytest.mark.parametrize(
    ("drawn", "binding", "relation"),
    [
        ("as asked", 0.9, 0.9),
        ("colours changed places", -0.4, 0.8),  # of two equal digits, the colours tell the order
        ("digits changed places", 0.9, -0.3),
    ],
)
def test_binding_and_relation_are_told_apart(judge, drawn, binding, relation):
    class Swapping(Stub):
        def __call__(self, captions, generator, **options):
            wanted = torch.tensor([read_two(c) for c in captions])[:, SWAPS[drawn]]
            images = TWO.draw_batch(len(wanted), "test", generator, attributes=wanted).images
            return SimpleNamespace(images=(images + 1) / 2)

    results = evaluate(Swapping(), judge, TWO_SETTINGS, TWO)
    assert "binding" in format_table(results)
    for group in ("seen", "held_out"):
        found = results[group]["drawn"]
        for name, bound in (("binding", binding), ("relation", relation)):
            rate = found[name]["rate"]
            assert rate > bound if bound > 0 else rate < -bound, (group, name)
        if drawn != "as asked":
            assert found["joint"]["rate"] < 0.3


@pytest.mark.parametrize(
    ("seen", "right"),
    [
        ([3, 0, 0, 7, 5], True),
        ([3, 0, 2, 7, 5], False),  # one above the other
        ([7, 5, 0, 3, 0], False),  # places exchanged
        ([7, 5, 0, 9, 0], False),  # and one digit misread
        ([3, 0, 0, 9, 5], True),  # in place, and one digit misread
        ([3, 5, 0, 7, 0], True),  # in place, colours exchanged
        ([9, 0, 0, 9, 5], True),  # the colours tell
        ([9, 1, 0, 9, 1], False),  # nothing tells
        ([3, 0, -1, -1, -1], False),  # one is missing
    ],
)
def test_relation_asks_where_things_are(seen, right):
    asked = torch.tensor([[3, 0, 0, 7, 5]])
    assert binding_and_relation(torch.tensor([seen]), asked)["relation"].item() == right


def test_two_of_a_kind_have_no_order():
    twins = torch.tensor([[3, 0, 0, 3, 0]])
    assert binding_and_relation(twins, twins)["relation"].all()


def test_the_pipeline_guides_by_default_as_is_measured_by_default():
    defaults, settings = StableDiffusion.from_pretrained().defaults, Settings()
    assert defaults.guidance_scale == settings.guidance
    assert defaults.guidance_rescale == settings.rescale


def test_lessons_are_for_one_digit_only(judge):
    with pytest.raises(ValueError, match="one digit only"):
        evaluate(Stub(), judge, Settings(lessons=1000), TWO)
