"""The scheduler's file: betas, timestep spacing, and the sampler that is used by default."""

from collections.abc import Iterable
from pathlib import Path

from .files import read_json, write_json
from .options import require

SAMPLER_CLASSES = {
    "ddim": "DDIMScheduler",
    "ddpm": "DDPMScheduler",
    "dpm++": "DPMSolverMultistepScheduler",
    "unipc": "UniPCMultistepScheduler",
}
BETA_SCHEDULES = {"cosine": "squaredcos_cap_v2"}  # ours -> theirs, where the names differ


def save_scheduler(folder: Path, config: dict, sampler: str) -> None:
    """config: the fields of a ScheduleConfig."""
    schedule = BETA_SCHEDULES.get(config["beta_schedule"], config["beta_schedule"])
    hf = {"_class_name": SAMPLER_CLASSES[sampler], **config, "beta_schedule": schedule}
    write_json(folder / "scheduler_config.json", {**hf, "clip_sample": False})


def load_scheduler(folder: Path, fields: Iterable[str]) -> tuple[dict, str]:
    """(the `fields` that the file or diffusers' defaults give, the sampler, "ddim" if unknown)."""
    hf = read_json(folder / "scheduler_config.json")
    require(hf, "scheduler", trained_betas=[None])
    solver = hf.get("_class_name") in (SAMPLER_CLASSES["dpm++"], SAMPLER_CLASSES["unipc"])
    defaults = {  # diffusers', which differ from ours
        "beta_start": 0.0001,
        "beta_end": 0.02,
        "beta_schedule": "linear",
        "prediction_type": "epsilon",
        "rescale_betas_zero_snr": False,
        "timestep_spacing": "linspace" if solver else "leading",
    }
    config = {**defaults, **{k: v for k, v in hf.items() if k in fields}}
    ours = {theirs: ours for ours, theirs in BETA_SCHEDULES.items()}
    config["beta_schedule"] = ours.get(config["beta_schedule"], config["beta_schedule"])
    samplers = {theirs: ours for ours, theirs in SAMPLER_CLASSES.items()}
    return config, samplers.get(hf.get("_class_name"), "ddim")
