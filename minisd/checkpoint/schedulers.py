"""The scheduler's file: the noise schedule, and the sampler that is used by default.

A key of the file is read (DEFAULTS), accepted at the values that ask for what minisd does (`only`),
or of no effect, there or here; any other is refused by name.
"""

from pathlib import Path
from typing import NamedTuple

from ..errors import check_choice, located, quote, warn
from .files import read_json, write_json
from .options import Keys, all_of, read

BETA_SCHEDULES = {  # theirs -> ours
    "linear": "linear",
    "scaled_linear": "scaled_linear",
    "squaredcos_cap_v2": "cosine",
}

# What is read, and what diffusers takes where the file does not say
DEFAULTS = {
    "num_train_timesteps": 1000,
    "beta_start": 0.0001,
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "prediction_type": "epsilon",
    "rescale_betas_zero_snr": False,
    "timestep_spacing": "linspace",
    "set_alpha_to_one": True,
}
LEADING = {"timestep_spacing": "leading"}
FINE = {"beta_start": 0.00085, "beta_end": 0.012}

# Keys -> the values that ask for what minisd does
ALWAYS = {"beta_schedule": list(BETA_SCHEDULES), "trained_betas": [None], "predict_epsilon": [True]}
CLIP = {"clip_sample": [False, True]}  # diffusers' pipeline sets true to false
PIXELS = {"thresholding": [False]}
KARRAS = all_of("use_karras_sigmas use_exponential_sigmas use_beta_sigmas", False)
SIGMAS = {**KARRAS, "final_sigmas_type": ["zero"]}
FLOW = {"use_flow_sigmas": [False]}
NO_ZERO_SNR = {"rescale_betas_zero_snr": [False]}  # the class passes over it
DPM = {
    "solver_order": [2],
    "algorithm_type": ["dpmsolver++"],
    "solver_type": ["midpoint", "logrho", "bh1", "bh2"],  # which diffusers takes for midpoint
    "use_lu_lambdas": [False],
    "lambda_min_clipped": [float("-inf")],
    "variance_type": [None],
}
UNIPC = {
    "solver_order": [2],
    "solver_type": ["bh2", "midpoint", "heun", "logrho"],  # which diffusers takes for bh2
    "disable_corrector": [[]],
    "use_dynamic_shifting": [False],
    **all_of("predict_x0 lower_order_final", True),
    **all_of("solver_p shift_terminal", None),
}
# steps_offset: diffusers' pipeline sets it to 1. euler_at_final: the last step goes to sigma 0, and
# is of first order anyway.
NO_EFFECT = """
    clip_sample_range dynamic_thresholding_ratio euler_at_final flow_shift noise_sampler_seed
    sample_max_value sigma_max sigma_min skip_prk_steps steps_offset tensor_format time_shift_type
"""


class Scheduler(NamedTuple):
    """A class of diffusers: its sampler here, defaults of its own, and `only` as above."""

    sampler: str
    defaults: dict
    only: dict


SCHEDULERS = {
    "DDIMScheduler": Scheduler("ddim", LEADING, CLIP | PIXELS),
    "DDPMScheduler": Scheduler(
        "ddpm", LEADING, CLIP | PIXELS | {"variance_type": ["fixed_small", "fixed_small_log"]}
    ),
    "DPMSolverMultistepScheduler": Scheduler("dpm++", {}, SIGMAS | PIXELS | FLOW | DPM),
    "UniPCMultistepScheduler": Scheduler("unipc", {}, SIGMAS | PIXELS | FLOW | UNIPC),
    "EulerDiscreteScheduler": Scheduler(
        "euler", {}, SIGMAS | {"interpolation_type": ["linear"], "timestep_type": ["discrete"]}
    ),
    "EulerAncestralDiscreteScheduler": Scheduler("euler_ancestral", {}, {}),
    "HeunDiscreteScheduler": Scheduler("heun", FINE, KARRAS | CLIP | NO_ZERO_SNR),
    "LCMScheduler": Scheduler(
        "lcm",
        FINE | LEADING | {"beta_schedule": "scaled_linear"},
        CLIP | PIXELS | {"original_inference_steps": [50], "timestep_scaling": [10.0]},
    ),
}
SAMPLER_CLASSES = {scheduler.sampler: name for name, scheduler in SCHEDULERS.items()}

# Classes that minisd does not have; the first is that of Stable Diffusion 1.x
STAND_INS = {
    "PNDMScheduler": Scheduler("ddim", LEADING | {"set_alpha_to_one": False}, NO_ZERO_SNR),
    "LMSDiscreteScheduler": Scheduler("euler", {}, NO_ZERO_SNR),
    "KDPM2DiscreteScheduler": Scheduler("heun", FINE, NO_ZERO_SNR),
    "KDPM2AncestralDiscreteScheduler": Scheduler("euler_ancestral", FINE, NO_ZERO_SNR),
    "DPMSolverSDEScheduler": Scheduler("euler_ancestral", FINE, NO_ZERO_SNR),
    "DPMSolverSinglestepScheduler": Scheduler("dpm++", {}, FLOW | NO_ZERO_SNR),
    "DEISMultistepScheduler": Scheduler("dpm++", {}, FLOW | NO_ZERO_SNR),
}
KNOWN = set().union(NO_EFFECT.split(), DEFAULTS, ALWAYS, *(s.only for s in SCHEDULERS.values()))


def check(path: Path, hf: dict, name: str, only: dict) -> None:
    """InputError for a key that is unknown, or has a value that minisd does not draw with."""
    with located(f"{path}, {name}"):
        read(Keys(sizes={}, options=ALWAYS | only, free=" ".join(KNOWN)), hf)


def save_scheduler(folder: Path, config: dict, sampler: str) -> None:
    """config: the fields of a ScheduleConfig. InputError if diffusers' class cannot say it."""
    path, name = folder / "scheduler_config.json", SAMPLER_CLASSES[sampler]
    theirs = {ours: theirs for theirs, ours in BETA_SCHEDULES.items()}[config["beta_schedule"]]
    hf = {"_class_name": name, **config, "beta_schedule": theirs, "clip_sample": False}
    check(path, hf, name, SCHEDULERS[name].only)
    if config["steps_offset"] != 1 and config["timestep_spacing"] == "leading":
        warn(f"steps_offset {config['steps_offset']} will be read as 1")
    write_json(path, hf)


def load_scheduler(folder: Path) -> tuple[dict, str]:
    """(the fields of a ScheduleConfig, the sampler), as diffusers' pipeline would read them.

    Warns if minisd does not have the sampler; InputError if it has no other for it.
    """
    path = folder / "scheduler_config.json"
    hf = read_json(path)
    name = class_name(folder.parent / "model_index.json", hf.get("_class_name"))
    if name not in list(STAND_INS):
        with located(path):
            check_choice("the scheduler", name, SCHEDULERS)
    sampler, defaults, only = (SCHEDULERS | STAND_INS)[name]
    check(path, hf, name, only)
    if name in STAND_INS:
        warn(f"{path}: minisd has no {name}: it draws with {sampler} instead, and saves that")
    config = {**DEFAULTS, **defaults, **{k: v for k, v in hf.items() if k in DEFAULTS}}
    return {**config, "beta_schedule": BETA_SCHEDULES[config["beta_schedule"]]}, sampler


def class_name(index: Path, said) -> str:
    """The scheduler's class: what model_index.json names, as in diffusers, or else `said`."""
    entry = read_json(index).get("scheduler") if index.exists() else None
    name = entry[-1] if isinstance(entry, list) and entry else said
    if said not in (None, name):
        warn(f"{index}: {quote(name)} counts, not {quote(said)} of scheduler_config.json")
    return name
