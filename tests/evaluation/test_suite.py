"""The settings reach the pipeline, and what applies is measured, of any dataset."""

import json

import pytest
import torch

from minisd.evaluation import Settings, evaluate, format_results

from .stubs import SAMPLES, WORLD, Album, Stub

BATCH = 100


def test_the_settings_reach_the_pipeline(listening):
    stub, results = listening
    expected = {"num_inference_steps": 7, "guidance_scale": 2.5, "sampler": "ddim"}
    expected["guidance_rescale"] = 0.5
    changes = [
        *[{}] * (SAMPLES // BATCH),
        *[{"guidance_scale": 1.0}] * (SAMPLES // BATCH),
        *[{"num_inference_steps": None, "sampler": None}] * 5,  # incomplete captions, its own
        *[{"guidance_scale": 1.0}] * (1000 // BATCH),  # to train two classifiers on
    ]
    assert stub.calls == [expected | change for change in changes]
    assert results["settings"] == {
        "samples": SAMPLES,
        "steps": 7,
        "guidance": 2.5,
        "rescale": 0.5,
        "sampler": "ddim",
        "seed": 0,
        "training_seed": 0,
        "synthetic": 1000,
    }


def test_a_real_pipeline_is_measured_from_end_to_end(tiny_pipe, judge):
    results = evaluate(tiny_pipe, judge, WORLD, Settings(samples=40, steps=2))
    assert json.loads(json.dumps(results, allow_nan=False)) == results
    assert results["zero_shot"]["joint"]["rate"] < 0.2  # untrained
    assert results["data"] == {"name": "one"} and results["frechet"]["features"] == "judge"


def test_pictures_without_attributes_are_measured_from_end_to_end(tiny_pipe):
    results = evaluate(tiny_pipe, None, Album(), Settings(samples=500, steps=2))
    assert json.loads(json.dumps(results, allow_nan=False)) == results
    assert results["data"] == {"name": "album"} and results["frechet"]["features"] == "CLIP"
    assert results["settings"]["samples"] == 60  # all that there are
    assert not {"seen", "held_out", "zero_shot", "kept"} & (results.keys() | results["autoencoder"])
    for group in ("seen", "held_out"):
        assert results["retrieval"][group]["chance"]["recall@1"] == 1 / 30
        assert results["retrieval"][group]["real"]["recall@1"]["of"] == 30
    assert results["copies"]["real"]["of"] == 30  # those of training would be copies of themselves
    text = format_results(results)
    assert "CLIP's features" in text and "right" not in text
    for row in ("CLIP score", "copies", "reconstruction", "CLIP retrieval, held out, recall@10"):
        assert sum(line.startswith(row) for line in text.splitlines()) == 1, row


def test_what_is_left_without_attributes_and_without_clip():
    class Noise(Stub):
        def __call__(self, captions, generator, **options):
            pictures = torch.rand(len(captions), 3, 32, 32, generator=generator)
            return type("Output", (), {"images": pictures})

    results = evaluate(Noise(), None, Album(), Settings(samples=10))
    assert results.keys() == {"data", "settings", "autoencoder"}
    assert "PSNR" in format_results(results)


def test_a_pipeline_without_clip_has_no_clip_rows(listening):
    assert not {"zero_shot", "clip_score", "retrieval"} & listening[1].keys()
    assert "CLIP" not in format_results(listening[1])


def test_the_seed_decides_every_number(judge):
    def numbers(seed):
        return evaluate(Stub(listens=False), judge, WORLD, Settings(samples=40, seed=seed))

    assert numbers(1) == numbers(1)
    assert numbers(1)["frechet"] != numbers(2)["frechet"]


@pytest.mark.parametrize("samples", [1, 0, -4, 10**12])
def test_too_few_or_too_many_samples_are_refused(judge, samples):
    with pytest.raises(ValueError, match=f"from 2 to 100000, not {samples}"):
        evaluate(Stub(), judge, WORLD, Settings(samples=samples))


def test_without_guidance_nothing_is_drawn_twice(judge):
    stub = Stub()
    results = evaluate(stub, judge, WORLD, Settings(samples=40, guidance=1.0))
    assert len(stub.captions) == 2 * 40  # full captions, then incomplete ones
    assert "unguided" not in results["seen"].keys() | results["frechet"].keys()


def test_what_is_measured_by_default_is_guided_as_the_checkpoint_is_by_default(judge):
    stub = Stub()
    settings = evaluate(stub, judge, WORLD, Settings(samples=40))["settings"]
    assert settings["guidance"] == stub.defaults.guidance_scale
    assert settings["rescale"] == stub.defaults.guidance_rescale
    assert {call["guidance_scale"] for call in stub.calls} == {settings["guidance"], 1.0}
    assert all(call["guidance_rescale"] == settings["rescale"] for call in stub.calls)
