"""Training the network that reads pictures: for the judge, or as a classifier under test."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from .. import data
from ..machine import channels_last, mixed_precision
from .judge import Judge, Reader


def train_reader(
    batch_of_step: Callable[[], tuple[Tensor, Tensor]], seed: int, steps: int, device="cpu"
) -> Judge:
    """A new reader, trained on pictures (B, 3, 32, 32) in [-1, 1] and their attributes (B, 4)."""
    torch.manual_seed(seed)
    reader = channels_last(Reader().to(device)).train()
    optimizer = torch.optim.AdamW(reader.parameters(), 2e-3, weight_decay=0.05)
    lr_schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    for _ in tqdm(range(steps), desc="reader", unit="step"):
        images, attributes = batch_of_step()
        with mixed_precision(device):
            answers = reader(images)
        pairs = zip(answers, attributes.unbind(dim=1), strict=True)
        loss = sum(F.cross_entropy(logits.float(), truth) for logits, truth in pairs)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        lr_schedule.step()
    return Judge(reader)


def train_judge(seed: int = 1234, steps: int = 2000, batch_size: int = 128, device="cpu") -> Judge:
    """The judge, trained on renders of training digits in every combination, held-out ones too.

    A judge must know all that it judges; only the test handwriting is kept from it.
    """
    generator = torch.Generator().manual_seed(seed)
    combinations = data.all_combinations()

    def render() -> tuple[Tensor, Tensor]:
        chosen = torch.randint(len(combinations), (batch_size,), generator=generator)
        batch = data.draw_batch(batch_size, "train", generator, device, combinations[chosen])
        return batch.images, batch.attributes

    return train_reader(render, seed, steps, device)
