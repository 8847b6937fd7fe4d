"""What training costs, by stage: FLOPs and bytes a picture, against what this machine can do.

    OMP_NUM_THREADS=1 torchrun --nproc-per-node=2 -m benchmarks.cost

Give it the processes and threads that trained data/weights: the seconds come from the
training.json there; the limits (a large matrix product, a copy of memory) are measured now, by all
processes at once.
"""

import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from minisd import StableDiffusion, data
from minisd.checkpoint import read_json
from minisd.evaluation import to_markdown
from minisd.machine import describe
from minisd.models import parameter_count
from minisd.pretrained import WEIGHTS
from minisd.training import RECIPES, autoencoder_loss, clip_loss, denoising_loss, parallel
from minisd.training.pool import REFERENCES
from minisd.training.stages import MODEL_GUIDANCE

from .results import STAGES

SIZE = 16  # pictures of the batch that is counted


def flops_and_bytes(model: nn.Module, loss: Callable[[], Tensor]) -> tuple[float, float]:
    """Of one picture: FLOPs, forward and backward; bytes that are kept for the backward pass."""
    kept: dict[int, int] = {}  # address: bytes
    weights = {p.data_ptr() for p in model.parameters()}

    def keep(x: Tensor) -> Tensor:
        memory = x.untyped_storage()
        if memory.data_ptr() not in weights:
            kept[memory.data_ptr()] = memory.nbytes()
        return x

    with FlopCounterMode(display=False) as counter:
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
            value = loss()
        value.backward()
    return counter.get_total_flops() / SIZE, sum(kept.values()) / SIZE


def muon_flops(model: nn.Module) -> float:
    """Of one step: five times X X', (X X')^2 and their product with X, for X (m, n), m <= n."""
    shapes = (sorted(p.flatten(1).shape) for p in model.hidden_matrices())
    return sum(5 * (4 * m * m * n + 2 * m**3) for m, n in shapes)


def throughput(work: Callable[[], object], amount: float, seconds: float = 2.0) -> float:
    """`amount` a second, if each call of `work` does so much; summed over concurrent processes."""
    work()
    parallel.wait()
    began, times = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        work()
        times += 1
    mine = torch.tensor([times * amount / (time.perf_counter() - began)])
    return parallel.gather(mine).sum().item()


def losses(pipe: StableDiffusion) -> dict[str, tuple[nn.Module, Callable[[], Tensor]]]:
    """Each stage's network, and the loss of a batch."""
    g = torch.Generator().manual_seed(0)
    batch = data.draw_batch(SIZE, "train", g)
    ids, fits = pipe.tokenizer(batch.captions), torch.eye(SIZE).bool()
    x0, context = torch.randn(SIZE, 4, 8, 8, generator=g), pipe.encode_prompt(batch.captions)
    latents = torch.randn(SIZE + REFERENCES, 4, 8, 8, generator=g)
    references = latents, torch.ones(SIZE, len(latents), dtype=torch.bool)
    more = {"references": references, "empty": pipe.encode_prompt([""]), "guidance": MODEL_GUIDANCE}
    vae, clip, unet = pipe.autoencoder, pipe.clip, pipe.unet
    return {
        "autoencoder": (vae, lambda: autoencoder_loss(vae, batch.images, g)),
        "clip": (clip, lambda: clip_loss(clip, batch.images, ids, fits)),
        "unet": (unet, lambda: denoising_loss(unet, pipe.schedule, x0, context, g, **more)),
    }


def main() -> None:
    with parallel.processes(torch.device("cpu")):
        a, b = torch.randn(2, 1024, 1024)
        large, copy = torch.randn(2, 2**26)  # 256 MiB each
        arithmetic = throughput(lambda: a @ b, 2 * 1024**3)
        memory = throughput(lambda: copy.copy_(large), 2 * copy.nbytes)  # read and written
        first = parallel.rank() == 0
    if not first:
        return
    run = read_json(WEIGHTS / "training.json")
    print(f"limits of {describe(torch.device('cpu'))}:", end=" ")
    print(f"{arithmetic / 1e9:.0f} GFLOP/s, {memory / 1e9:.0f} GB/s\n")
    rows = []
    for name, (model, loss) in losses(StableDiffusion.from_pretrained()).items():
        picture, kept = flops_and_bytes(model, loss)
        step, cost = muon_flops(model), run["stages"][name]
        total = cost["pictures"] * (picture + step / RECIPES[name].batch_size)
        speed = total / cost["seconds"]
        cells = {
            "stage": STAGES[name],
            "weights": f"{parameter_count(model) / 1e6:.2f} M",
            "a picture": f"{picture / 1e6:.0f} MFLOP",
            "kept a picture": f"{kept / 1e6:.1f} MB",
            "Muon a step": f"{step / 1e9:.2f} GFLOP",
            "all": f"{total / 1e12:.1f} TFLOP",
            "to memory and back": f"{2 * kept * cost['pictures'] / memory:.0f} s",
            "time": f"{cost['seconds']:.0f} s",
            "GFLOP/s": f"{speed / 1e9:.0f} ({speed / arithmetic:.0%} of the limit)",
        }
        rows.append(list(cells.values()))
    print(to_markdown([list(cells), *rows]))


if __name__ == "__main__":
    main()
