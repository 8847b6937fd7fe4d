"""The training loop, in full view: mixed precision, clipping, EMA, checkpoints, progress."""

import hashlib
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

from ..checkpoint import open_atomically
from ..machine import channels_last, mixed_precision
from . import parallel
from .muon import Muon, hidden_weights

SAVE_EVERY = 30.0  # seconds between checkpoints


@dataclass(frozen=True)
class Recipe:
    """How long and how fast one network is trained."""

    steps: int
    batch_size: int
    learning_rate: float = 1e-3  # at the top: it rises in a straight line, and falls so to the end
    warmup: float = 0.05  # the share of the steps in which it rises
    ema_decay: float = 0.95  # the average looks back over about 1 / (1 - decay) steps
    weight_decay: float = 0.01


def repeat_bits() -> None:
    """Ask PyTorch for the same bits from the same seed; on the CPU it does so anyway."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)


def generator_for(
    use: str, step: int, seed: int, device: str | torch.device = "cpu"
) -> torch.Generator:
    """The randomness of one step for one use; of nothing else, so that a resumed run repeats it."""
    digest = hashlib.sha256(f"{use} {step} {seed}".encode()).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest[:4], "big"))


def progress(*arguments, **options) -> tqdm:
    """A progress bar, of the first process only."""
    return tqdm(*arguments, **options, **({"disable": True} if parallel.rank() else {}))


def save_atomically(state: dict, path: Path) -> None:
    with open_atomically(path) as file:
        torch.save(state, file)


def load_checkpoint(path: Path, expected: dict, device: torch.device) -> dict:
    """Read a checkpoint; ValueError if it is damaged or belongs to another run."""
    try:
        state = torch.load(path, map_location=device, weights_only=True)
        found = state["run"]
    except Exception as error:
        raise ValueError(
            f"{path} is damaged and cannot be resumed; delete it to train anew"
        ) from error
    if found != expected:
        changed = ", ".join(k for k in expected if found.get(k) != expected[k])
        raise ValueError(
            f"{path} was trained with another {changed}; resume with the same settings"
        )
    return state


def optimizers_for(model: nn.Module, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """Muon for the weights between the first and the last layer, AdamW for all others."""
    hidden = hidden_weights(model)
    rest = [p for p in model.parameters() if not any(p is weight for weight in hidden)]
    fused = rest[0].device.type != "mps"
    rate, decay = recipe.learning_rate, recipe.weight_decay
    return [
        Muon(hidden, rate, decay),
        torch.optim.AdamW(rest, rate, betas=(0.9, 0.99), weight_decay=decay, fused=fused),
    ]


def train(
    model: nn.Module,
    loss_of_step: Callable[[int], Tensor],
    recipe: Recipe,
    checkpoint: Path | None = None,
    seed: int = 0,
    label: str = "training",
    shared: Sequence[nn.Module] = (),
    watch: Callable[[int, nn.Module], None] | None = None,
) -> nn.Module:
    """Minimise the loss; returns the exponential moving average of the weights, in eval mode.

    loss_of_step(step) draws that step's batch and returns its loss; it must depend on nothing but
    the step and the weights. With an existing `checkpoint` it goes on from there; with None it
    keeps none. Where several processes train, they share the work of the `shared` modules. After
    each step, watch(steps so far, average) may look at the moving average.
    """
    device = next(model.parameters()).device
    channels_last(model)
    optimizers = optimizers_for(model, recipe)
    schedules = [
        OneCycleLR(
            optimizer,
            recipe.learning_rate,
            total_steps=recipe.steps + 1,
            pct_start=recipe.warmup,
            anneal_strategy="linear",
            cycle_momentum=False,
        )
        for optimizer in optimizers
    ]
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(recipe.ema_decay))
    average.n_averaged = average.n_averaged.cpu()  # it is looked at in every step: no GPU waits
    parts = [model, average, *optimizers, *schedules]
    network = repr(getattr(model, "config", None))
    run = {**asdict(recipe), "seed": seed, "stage": label, "network": network}
    start, before = 0, 0.0  # steps, and seconds that they took
    if checkpoint and checkpoint.exists():
        state = load_checkpoint(checkpoint, run, device)
        start, before = state["step"], state["seconds"]
        for part, kept in zip(parts, state["parts"], strict=True):
            part.load_state_dict(kept)

    def save(step: int) -> None:
        state = {"parts": [part.state_dict() for part in parts], "step": step, "run": run}
        state["seconds"] = before + time.monotonic() - began
        save_atomically(state, checkpoint)

    model.train()
    precision = mixed_precision(device)
    began = saved = time.monotonic()
    bar = progress(total=recipe.steps, initial=start, desc=label, unit="step", smoothing=0.05)
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
        if watch:
            watch(step + 1, average.module)
        bar.update()
        save_now = step + 1 == recipe.steps or time.monotonic() - saved > SAVE_EVERY
        if step % 10 == 0 or save_now:  # not at every step: a GPU would have to wait
            if not loss.isfinite():
                bar.close()
                raise ValueError(
                    f"{label}: the loss is {loss.item()} at step {step}; lower the rate"
                )
            rate = (bar.format_dict["rate"] or 0) * recipe.batch_size
            bar.set_postfix_str(f"loss {loss.item():.3f}, {rate:.0f} pictures/s")
        if save_now:
            if checkpoint and parallel.rank() == 0:
                save(step + 1)
            saved = time.monotonic()
    bar.close()
    return average.module.eval()
