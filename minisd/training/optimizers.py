"""Muon for the hidden matrices of a network, AdamW for everything else.

Adam adapts the step of each weight separately. Muon treats the weights of a layer as a matrix, and
steps along the matrix nearest to the gradient whose singular values are all one: what is rare in
the gradient (which digit the caption names) is learnt as fast as what is frequent (its colour).

Sources: Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks"; Liu et al.
2025, "Muon is scalable for LLM training", section 2.2, for the size of a step. torch.optim.Muon is
the same, but multiplies in bfloat16, which is slow on most processors, and takes no convolutions.
"""

import math
from itertools import groupby

import torch
from torch import Tensor, nn

from . import parallel

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # Jordan et al. chose them for the slope at zero


def orthogonalize(matrix: Tensor, steps: int = 5) -> Tensor:
    """(..., M, N) -> the same singular vectors, with singular values of about 0.7 to 1.2.

    With U S V' the singular value decomposition of X, a X + b (XX') X + c (XX')^2 X is
    U (a S + b S^3 + c S^5) V': an odd polynomial of the singular values, applied `steps` times.
    """
    a, b, c = NEWTON_SCHULZ
    tall = matrix.shape[-2] > matrix.shape[-1]
    x = matrix.mT if tall else matrix
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)  # no singular value above one
    for _ in range(steps):
        gram = x @ x.mT  # (..., M, M), the smaller side
        x = a * x + (b * gram + c * gram @ gram) @ x  # (..., M, N)
    return x.mT if tall else x


def orthogonalize_all(matrices: list[Tensor]) -> list[Tensor]:
    """Orthogonalize each matrix; neighbours of the same shape together, which is faster."""
    groups = groupby(matrices, key=lambda matrix: matrix.shape)
    return [x for _, group in groups for x in orthogonalize(torch.stack(list(group)))]


class Muon(torch.optim.Optimizer):
    """For weights of two or more dimensions; a convolution's (O, I, h, w) counts as (O, I h w).

    `lr` has the scale of AdamW's: a step changes the weights by about 0.2 lr, root mean square.
    """

    def __init__(self, params, lr: float, weight_decay: float = 0.01, momentum: float = 0.95):
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            used = [p for p in group["params"] if p.grad is not None]
            ahead = [self.look_ahead(p, group["momentum"]).flatten(1) for p in used]
            directions = parallel.share_out(orthogonalize_all, ahead)  # each (O, I h w)
            for p, direction in zip(used, directions, strict=True):
                scale = 0.2 * math.sqrt(max(direction.shape))  # its entries are about 1 / sqrt(max)
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.add_(direction.reshape(p.shape), alpha=-group["lr"] * scale)

    def look_ahead(self, p: nn.Parameter, momentum: float) -> Tensor:
        """Nesterov's momentum: the moving average of the gradients, and this gradient once more."""
        state = self.state[p]
        if not state:
            state["average"] = torch.zeros_like(p)
        average = state["average"].lerp_(p.grad, 1 - momentum)
        return p.grad.lerp(average, momentum)


def optimizers_for(model: nn.Module, learning_rate: float, weight_decay: float) -> list:
    """One or two optimizers for all weights that require gradients.

    Muon takes the model's `hidden_matrices()`, AdamW all other weights. Without that method AdamW
    takes the whole model.
    """
    trained = [p for p in model.parameters() if p.requires_grad]
    if not trained:
        raise ValueError("there is nothing to train: no weight of this model wants a gradient")
    chosen = {id(p) for p in getattr(model, "hidden_matrices", list)()}
    hidden = [p for p in trained if id(p) in chosen]
    hidden.sort(key=lambda p: tuple(p.shape))  # equal shapes are orthogonalized together
    rest = [p for p in trained if id(p) not in chosen]
    adam = {"betas": (0.9, 0.99), "weight_decay": weight_decay}
    adam["fused"] = trained[0].device.type != "mps"
    muons = [Muon(hidden, learning_rate, weight_decay)] if hidden else []
    return muons + ([torch.optim.AdamW(rest, learning_rate, **adam)] if rest else [])
