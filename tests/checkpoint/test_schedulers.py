"""The scheduler's file: diffusers reads ours, and we read diffusers'."""

import json
from dataclasses import asdict, fields

import diffusers
import pytest

from minisd.checkpoint import load_scheduler, save_scheduler
from minisd.checkpoint.schedulers import SAMPLER_CLASSES
from minisd.diffusion import ScheduleConfig
from minisd.errors import InputError

FIELDS = [field.name for field in fields(ScheduleConfig)]
SCHEDULES = [
    ScheduleConfig(),
    ScheduleConfig(
        num_train_timesteps=500,
        beta_start=0.001,
        beta_end=0.01,
        beta_schedule="cosine",
        prediction_type="epsilon",
        rescale_betas_zero_snr=False,
        timestep_spacing="leading",
        steps_offset=0,
        set_alpha_to_one=False,
    ),
]


@pytest.mark.parametrize("sampler", SAMPLER_CLASSES)
@pytest.mark.parametrize("config", SCHEDULES, ids=["ours", "another"])
def test_a_schedule_survives_its_file_and_diffusers_reads_the_same(tmp_path, config, sampler):
    save_scheduler(tmp_path, asdict(config), sampler)
    loaded, name = load_scheduler(tmp_path, FIELDS)
    assert (ScheduleConfig(**loaded), name) == (config, sampler)

    theirs = getattr(diffusers, SAMPLER_CLASSES[sampler]).from_pretrained(tmp_path)
    theirs.save_pretrained(tmp_path)
    loaded, name = load_scheduler(tmp_path, FIELDS)
    unknown = {} if sampler == "ddim" else {"set_alpha_to_one": config.set_alpha_to_one}
    assert (ScheduleConfig(**loaded | unknown), name) == (config, sampler)
    assert not theirs.config.get("clip_sample", False)


@pytest.mark.parametrize("sampler", SAMPLER_CLASSES)
def test_what_a_scheduler_file_leaves_out_is_the_default_of_diffusers(tmp_path, sampler):
    name = SAMPLER_CLASSES[sampler]
    (tmp_path / "scheduler_config.json").write_text(json.dumps({"_class_name": name}))
    ours = asdict(ScheduleConfig(**load_scheduler(tmp_path, FIELDS)[0]))
    theirs = getattr(diffusers, name)().config
    shared = {field for field in FIELDS if field in theirs} - {"steps_offset"}
    assert {field: ours[field] for field in shared} == {field: theirs[field] for field in shared}
    assert ours["steps_offset"] == 1  # where diffusers' pipeline overrules its own scheduler


def test_the_scheduler_of_stable_diffusion_1_5_is_walked_by_ddim(tmp_path):
    """Its file names PNDM, which minisd does not have; the betas are what matters."""
    theirs = diffusers.PNDMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        set_alpha_to_one=False,
        skip_prk_steps=True,
        steps_offset=1,
    )
    theirs.save_pretrained(tmp_path)
    loaded, sampler = load_scheduler(tmp_path, FIELDS)
    config = ScheduleConfig(**loaded)
    assert sampler == "ddim" and config.prediction_type == "epsilon"
    assert (config.timestep_spacing, config.steps_offset) == ("leading", 1)
    assert (config.set_alpha_to_one, config.rescale_betas_zero_snr) == (False, False)


def test_betas_given_one_by_one_are_refused(tmp_path):
    diffusers.DDIMScheduler(trained_betas=[0.1, 0.2]).save_pretrained(tmp_path)
    with pytest.raises(InputError, match="trained_betas"):
        load_scheduler(tmp_path, FIELDS)
