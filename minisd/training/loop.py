"""The training loop, in full view: mixed precision, clipping, EMA, checkpoints, progress."""

import hashlib
import io
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import OneCycleLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

from ..errors import InputError, check_number
from ..files import open_atomically
from ..machine import channels_last, mixed_precision
from . import parallel
from .optimizers import optimizers_for

SAVE_EVERY = 30.0  # seconds between checkpoints
MOST = 10**7  # steps of a recipe, or pictures of a batch


@dataclass(frozen=True)
class Recipe:
    """The hyperparameters of training one network."""

    steps: int
    batch_size: int
    learning_rate: float = 1e-3  # the peak: linear warm-up, then linear decay to zero
    warmup: float = 0.05  # share of the steps
    ema_decay: float = 0.95  # averages over about the last 1 / (1 - decay) steps
    weight_decay: float = 0.01

    def __post_init__(self):
        """InputError for numbers that cannot train."""
        limits = {"learning_rate": 10, "warmup": 1, "ema_decay": 1, "weight_decay": 10}
        for name, most in limits.items():
            check_number(name, getattr(self, name), 0, most)
        for name in ("steps", "batch_size"):
            check_number(name, getattr(self, name), 1, MOST, whole=True)
        if self.learning_rate == 0:
            raise InputError("learning_rate must be more than 0, or nothing is learnt")


def repeat_bits() -> None:
    """Make a GPU repeat the same bits from the same seed. A CPU does so anyway."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)


def generator_for(stream: str, step: int, seed: int, device="cpu") -> torch.Generator:
    """A generator for one step of one stream, so that a resumed run draws the same numbers."""
    digest = hashlib.sha256(f"{stream} {step} {seed}".encode()).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest[:4], "big"))


def progress(*arguments, **options) -> tqdm:
    """A progress bar, shown by the first process only, and only if it has a description."""
    hidden = parallel.rank() or not options.get("desc")
    return tqdm(*arguments, **options, **({"disable": True} if hidden else {}))


def save_atomically(state: dict, path: Path) -> None:
    buffer = io.BytesIO()
    torch.save(state, buffer)  # in memory: PyTorch aborts the process when a disk is full
    with open_atomically(path) as file:
        file.write(buffer.getbuffer())


def load_checkpoint(path: Path, run: dict, device: torch.device) -> dict:
    """Read a checkpoint; InputError if it is damaged or belongs to another run."""
    try:
        state = torch.load(path, map_location=device, weights_only=True)
        found = state["run"]
        changed = [name for name in {**found, **run} if found.get(name) != run.get(name)]
    except Exception as error:
        message = f"{path} is damaged and cannot be resumed; delete it to train anew"
        raise InputError(message) from error
    if changed:
        message = f"{path} was trained with other settings: {', '.join(changed)}"
        raise InputError(f"{message}; resume with the same ones")
    return state


def train(
    model: nn.Module,
    loss_of_step: Callable[[int], Tensor],
    recipe: Recipe,
    label: str | None = "training",
    checkpoint: Path | None = None,
    identity: dict | None = None,
    shared: Sequence[nn.Module] = (),
    after_step: Callable[[int, nn.Module], None] | None = None,
) -> nn.Module:
    """Minimise the loss; returns the exponential moving average of the weights, in eval mode.

    Trains every weight of `model` that wants a gradient. The loss may use other modules, too.

    loss_of_step(step): draws that step's batch and returns its loss; it must depend on nothing but
    the step and the weights. label: of the progress bar; None shows none. checkpoint: a file to
    resume from if it exists, and to write. identity: what it must have in common with this run,
    besides recipe and configuration. shared: the modules whose work several processes share.
    after_step(steps done, average): called after each step, e.g. to evaluate the moving average.
    InputError if the checkpoint is another run's or damaged, or if the loss is not finite.
    """
    device = next(model.parameters()).device
    channels_last(model)
    optimizers = optimizers_for(model, recipe.learning_rate, recipe.weight_decay)
    total = recipe.steps + 1
    # A warm-up of exactly one step would make OneCycleLR divide by zero.
    warmup = 0.0 if recipe.warmup * total == 1 else float(recipe.warmup)
    linear = {"pct_start": warmup, "anneal_strategy": "linear", "cycle_momentum": False}
    schedules = [OneCycleLR(x, recipe.learning_rate, total, **linear) for x in optimizers]
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(recipe.ema_decay))
    average.n_averaged = average.n_averaged.cpu()  # kept on the CPU to avoid a sync at every step
    parts = [model, average, *optimizers, *schedules]
    network = repr(getattr(model, "config", None))
    run = {**asdict(recipe), "network": network, **(identity or {})}
    start, before = 0, 0.0  # steps, and the seconds that they took
    if checkpoint and checkpoint.exists():
        state = load_checkpoint(checkpoint, run, device)
        start, before = state["step"], state["seconds"]
        for part, kept in zip(parts, state["parts"], strict=True):
            part.load_state_dict(kept)

    model.train()
    precision = mixed_precision(device)
    began = saved = time.monotonic()
    with progress(
        total=recipe.steps, initial=start, desc=label, unit="step", smoothing=0.05
    ) as bar:
        for step in range(start, recipe.steps):
            with precision, parallel.shared(*shared):
                loss = loss_of_step(step)
            model.zero_grad(set_to_none=True)
            loss.backward()
            parallel.sum_gradients(*shared)
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            for part in (*optimizers, *schedules):
                part.step()
            average.update_parameters(model)
            if after_step:
                after_step(step + 1, average.module)
            bar.update()
            save_now = step + 1 == recipe.steps or time.monotonic() - saved > SAVE_EVERY
            if step % 10 == 0 or save_now:  # reading the loss makes a GPU wait
                if not loss.isfinite():
                    found = f"{label}: the loss is {loss.item()} at step {step}"
                    raise InputError(f"{found}; lower the learning rate")
                speed = (bar.format_dict["rate"] or 0) * recipe.batch_size
                bar.set_postfix_str(f"loss {loss.item():.3f}, {speed:.0f} pictures/s")
            if save_now:
                saved = time.monotonic()
                if checkpoint and parallel.rank() == 0:
                    state = {"run": run, "step": step + 1, "seconds": before + saved - began}
                    state["parts"] = [part.state_dict() for part in parts]
                    save_atomically(state, checkpoint)
    return average.module.eval()
