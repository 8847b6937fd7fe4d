"""The scheduler's file: diffusers reads ours, and we read diffusers'."""

import inspect
import json
from dataclasses import asdict, replace

import diffusers
import pytest
import torch

from minisd.checkpoint import load_scheduler, save_scheduler
from minisd.checkpoint.schedulers import NO_EFFECT, SAMPLER_CLASSES, SCHEDULERS, STAND_INS
from minisd.diffusion import NoiseSchedule, ScheduleConfig, sample
from minisd.errors import InputError

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
        set_alpha_to_one=False,
    ),
]


@pytest.mark.parametrize("sampler", SAMPLER_CLASSES)
@pytest.mark.parametrize("config", SCHEDULES, ids=["ours", "another"])
def test_a_schedule_survives_its_file_and_diffusers_reads_the_same(tmp_path, config, sampler):
    if sampler == "heun":  # diffusers' has no zero SNR; see the next test
        config = replace(config, rescale_betas_zero_snr=False)
    save_scheduler(tmp_path, asdict(config), sampler)
    loaded, name = load_scheduler(tmp_path)
    assert (ScheduleConfig(**loaded), name) == (config, sampler)

    theirs = getattr(diffusers, SAMPLER_CLASSES[sampler]).from_pretrained(tmp_path)
    theirs.save_pretrained(tmp_path)
    loaded, name = load_scheduler(tmp_path)
    unknown = {} if sampler == "ddim" else {"set_alpha_to_one": config.set_alpha_to_one}
    assert (ScheduleConfig(**loaded | unknown), name) == (config, sampler)
    assert not theirs.config.get("clip_sample", False)


def test_what_diffusers_would_draw_otherwise_is_not_saved_without_a_word(tmp_path):
    with pytest.raises(InputError) as told:
        save_scheduler(tmp_path, asdict(ScheduleConfig()), "heun")
    place = f"{tmp_path / 'scheduler_config.json'}, HeunDiscreteScheduler"
    assert str(told.value) == f"{place}: rescale_betas_zero_snr is True; minisd supports False"
    assert not list(tmp_path.iterdir())

    early = replace(SCHEDULES[1], steps_offset=0)
    with pytest.warns(UserWarning, match="^steps_offset 0 will be read as 1$"):
        save_scheduler(tmp_path, asdict(early), "ddim")
    assert ScheduleConfig(**load_scheduler(tmp_path)[0]).steps_offset == 1


@pytest.mark.parametrize("sampler", SAMPLER_CLASSES)
def test_what_a_scheduler_file_leaves_out_is_the_default_of_diffusers(tmp_path, sampler):
    name = SAMPLER_CLASSES[sampler]
    (tmp_path / "scheduler_config.json").write_text(json.dumps({"_class_name": name}))
    ours = asdict(ScheduleConfig(**load_scheduler(tmp_path)[0]))
    theirs = getattr(diffusers, name)().config
    shared = {field for field in ours if field in theirs} - {"steps_offset"}
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
    with pytest.warns(UserWarning) as told:
        loaded, sampler = load_scheduler(tmp_path)
    note = "minisd has no PNDMScheduler: it draws with ddim instead, and saves that"
    path = tmp_path / "scheduler_config.json"
    assert [str(w.message) for w in told] == [f"{path}: {note}"]
    config = ScheduleConfig(**loaded)
    assert sampler == "ddim" and config.prediction_type == "epsilon"
    assert (config.timestep_spacing, config.steps_offset) == ("leading", 1)
    assert (config.set_alpha_to_one, config.rescale_betas_zero_snr) == (False, False)


NOT_INSTALLED = {  # they need scipy and torchsde
    "LMSDiscreteScheduler": {"beta_start": 0.0001, "beta_end": 0.02},
    "DPMSolverSDEScheduler": {"beta_start": 0.00085, "beta_end": 0.012},
}


@pytest.mark.parametrize("name", STAND_INS)
def test_a_stand_in_reads_as_the_class_it_stands_for(tmp_path, name):
    (tmp_path / "scheduler_config.json").write_text(json.dumps({"_class_name": name}))
    with pytest.warns(UserWarning, match=f"minisd has no {name}: it draws with"):
        ours, sampler = load_scheduler(tmp_path)
    theirs = NOT_INSTALLED.get(name) or {
        key: parameter.default
        for key, parameter in inspect.signature(
            getattr(diffusers, name).__init__
        ).parameters.items()
    }
    shared = {key for key in ours if key in theirs}
    assert shared >= {"beta_start", "beta_end"} and sampler in SAMPLER_CLASSES
    assert {key: ours[key] for key in shared} == {key: theirs[key] for key in shared}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            {"_class_name": "TCDScheduler"},
            "the scheduler must be one of DDIM.*, not 'TCDScheduler'",
        ),
        ({}, "the scheduler must be one of .*, not None"),
        ({"_class_name": ["DDIMScheduler"]}, "the scheduler must be .*, not \\['DDIMScheduler'\\]"),
        (
            {"_class_name": "DDIMScheduler", "trained_betas": [0.1, 0.2]},
            "trained_betas is \\[0.1, 0.2\\]; minisd supports None",
        ),
        ({"_class_name": "DDIMScheduler", "magic": 1}, "minisd does not know 'magic', here 1"),
    ],
)
def test_what_minisd_does_not_have_is_refused_in_one_line(tmp_path, content, message):
    (tmp_path / "scheduler_config.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=f"scheduler_config.json(, DDIMScheduler)?: {message}"):
        load_scheduler(tmp_path)


def test_the_class_is_that_of_the_index_as_in_diffusers(tmp_path):
    folder = tmp_path / "scheduler"
    diffusers.DDIMScheduler(beta_end=0.01).save_pretrained(folder)
    index = {"scheduler": ["diffusers", "EulerDiscreteScheduler"]}
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    note = "'EulerDiscreteScheduler' counts, not 'DDIMScheduler' of scheduler_config.json"
    with pytest.warns(UserWarning, match=f"model_index.json: {note}$"):
        assert load_scheduler(folder)[1] == "euler"
    (tmp_path / "model_index.json").write_text("{}")
    assert load_scheduler(folder)[1] == "ddim"


# Every key of every class, changed: the samples of diffusers, or one line. Nothing else.

BASE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
BASE |= {"prediction_type": "v_prediction", "timestep_spacing": "leading"}
CHANGED = {  # by key, or by the type of what diffusers takes if it is not given
    "beta_schedule": ["linear", "squaredcos_cap_v2", "cosine", "exp", "sigmoid", "laplace", None],
    "prediction_type": ["epsilon", "sample", "flow_prediction", None],
    "timestep_spacing": ["leading", "linspace", "trailing", "other", None],
    "variance_type": ["fixed_small", "fixed_small_log", "fixed_large", "learned", None],
    "algorithm_type": ["dpmsolver", "sde-dpmsolver++", "sde-dpmsolver", "deis"],
    "solver_type": ["midpoint", "heun", "logrho", "bh1", "bh2", "other"],
    "final_sigmas_type": ["sigma_min", None],
    "lambda_min_clipped": [-5.1, -1.0, None],
    bool: [False, True, None, 1, "true"],
    "solver_order": [1, 3, 2.0, "2", None],
    int: [500, 1, 0, -1, None, "1000", 1000.0, True, 10**12],
    float: [0.001, 0.011, 0.5, 0, -1.0, None, "0.01", float("nan"), float("inf"), True],
    str: ["other", "log_linear", "continuous", None],
    list: [[0], [1, 2], None],
    type(None): [0.5, True, "learned", [0.1, 0.2]],
}
PASSED_OVER = {  # what a class takes without a word, and never looks at
    "HeunDiscreteScheduler": {"rescale_betas_zero_snr"},
    "LCMScheduler": {"timestep_spacing"},
}


def changes(name):
    """(key, value) for each argument of that class of diffusers."""
    for key, parameter in inspect.signature(getattr(diffusers, name).__init__).parameters.items():
        if key != "self":
            default = parameter.default
            yield from ((key, value) for value in CHANGED.get(key, CHANGED[type(default)]))


def denoise(x, t):
    return torch.sin(1.5 * x + 0.003 * t) - 0.3 * x.roll(1, dims=-1)


def their_sample(folder, name, noise, steps):
    """What diffusers' pipeline makes of that noise; it changes some options of its scheduler."""
    parts = dict.fromkeys(("vae", "text_encoder", "tokenizer", "unet", "safety_checker"))
    scheduler = diffusers.StableDiffusionPipeline(
        **parts,
        scheduler=getattr(diffusers, name).from_pretrained(folder),
        feature_extractor=None,
        requires_safety_checker=False,
    ).scheduler
    scheduler.set_timesteps(steps)
    extra = {}
    if "generator" in inspect.signature(scheduler.step).parameters:
        extra["generator"] = torch.Generator().manual_seed(1)
    x = noise * scheduler.init_noise_sigma
    for t in scheduler.timesteps:
        output = denoise(scheduler.scale_model_input(x, t), t)
        x = scheduler.step(output, t, x, **extra).prev_sample
    return x


@pytest.mark.filterwarnings("ignore")  # diffusers' own
@pytest.mark.parametrize("name", SCHEDULERS)
def test_whatever_a_key_says_the_samples_are_those_of_diffusers_or_it_is_refused(tmp_path, name):
    path = tmp_path / "scheduler_config.json"
    noise = torch.randn(1, 2, 2, 2, generator=torch.Generator().manual_seed(0))
    drawn = {}
    for key, value in [(None, None), *changes(name)]:
        path.write_text(json.dumps({"_class_name": name} | BASE | ({key: value} if key else {})))
        try:
            config, sampler = load_scheduler(tmp_path)
            schedule = NoiseSchedule(ScheduleConfig(**config))
        except InputError as error:
            assert key in str(error) and "\n" not in str(error) and len(str(error)) < 300, error
            continue
        steps, generator = 3, torch.Generator().manual_seed(1)
        ours = sample(denoise, schedule, noise, steps, sampler=sampler, generator=generator)
        try:
            theirs = their_sample(tmp_path, name, noise, steps)
        except Exception:  # diffusers' types; nobody reads the value afterwards
            assert key in NO_EFFECT.split()
            continue
        assert torch.allclose(ours, theirs, atol=1e-4, rtol=1e-4), (key, value, ours, theirs)
        drawn.setdefault(key, []).append(ours)
    read = {key for key in drawn if not all(torch.equal(x, drawn[None][0]) for x in drawn[key])}
    every = {"num_train_timesteps", "beta_start", "beta_end", "beta_schedule"}
    every |= {"prediction_type", "timestep_spacing", "rescale_betas_zero_snr"}
    every -= PASSED_OVER.get(name, set())
    assert read == every | ({"set_alpha_to_one"} if name == "DDIMScheduler" else set())
