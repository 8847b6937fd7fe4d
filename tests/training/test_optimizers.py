"""Muon: steps along orthogonal matrices, the same as PyTorch's own where that works."""

import pytest
import torch
from torch import nn

from minisd.models import (
    CLIP,
    Autoencoder,
    CLIPConfig,
    TextConfig,
    UNet,
    UNetConfig,
    VisionConfig,
)
from minisd.training.optimizers import Muon, optimizers_for, orthogonalize


@pytest.mark.parametrize("shape", [(24, 24), (12, 60), (60, 12)])
def test_the_singular_values_become_one_and_the_vectors_stay(shape):
    generator = torch.Generator().manual_seed(0)
    u, _, v = torch.linalg.svd(torch.randn(shape, generator=generator), full_matrices=False)
    values = torch.logspace(0, -2, 12 if 12 in shape else 24)  # a hundredfold range
    result = orthogonalize(u * values @ v)
    turned = u.mT @ result @ v.mT  # diagonal where the singular vectors are the same
    assert (turned - turned.diag().diag()).abs().max() < 1e-4
    assert ((turned.diag() > 0.6) & (turned.diag() < 1.3)).all()


def test_equal_to_pytorchs_muon_up_to_bfloat16():
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(8, 20, generator=generator)
    ours, theirs = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    optimizers = (
        Muon([ours], lr=0.1, weight_decay=0.2),
        torch.optim.Muon([theirs], lr=0.1, weight_decay=0.2, adjust_lr_fn="match_rms_adamw"),
    )
    for _ in range(5):
        ours.grad = torch.randn(8, 20, generator=generator)
        theirs.grad = ours.grad.clone()
        for optimizer in optimizers:
            optimizer.step()
    moved = (theirs - start).norm()
    assert (ours - theirs).norm() < 0.02 * moved


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("shape", [(4, 6, 3, 3), (9, 4, 1, 1)])  # wide, tall
def test_a_convolution_counts_as_the_matrix_of_its_kernels(shape, layout):
    generator = torch.Generator().manual_seed(0)
    weight, gradient = (torch.randn(shape, generator=generator) for _ in range(2))
    convolution = nn.Parameter(weight.to(memory_format=layout))
    matrix = nn.Parameter(weight.flatten(1).clone())
    convolution.grad, matrix.grad = gradient.to(memory_format=layout), gradient.flatten(1).clone()
    Muon([convolution], lr=0.1).step()
    Muon([matrix], lr=0.1).step()
    torch.testing.assert_close(convolution.flatten(1), matrix)


def test_a_rare_direction_is_learnt_as_fast_as_a_frequent_one():
    """The reason to have it: least squares, one gradient a hundredth."""
    inputs = torch.tensor([1.0, 0.1])
    weight = nn.Parameter(torch.zeros(2, 2))
    optimizer = Muon([weight], lr=0.05, weight_decay=0, momentum=0)
    for _ in range(100):
        weight.grad = (weight.detach() - torch.eye(2)) * inputs**2
        optimizer.step()
        if weight[0, 0] > 0.5:
            break
    assert weight[1, 1] > 0.4


def test_embeddings_and_the_first_and_last_convolutions_are_left_to_adam():
    unet = UNet(UNetConfig(block_out_channels=(8, 16), norm_num_groups=4, cross_attention_dim=8))
    clip = CLIP(CLIPConfig(TextConfig(40, 39), VisionConfig()))
    ends = {"conv_in.weight", "conv_out.weight"}
    times = {f"time_embedding.linear_{i}.weight" for i in (1, 2)}
    text, vision = "text_model.embeddings", "vision_model.embeddings"
    left = {
        unet: ends | times,
        Autoencoder(): {f"{half}.{end}" for half in ("encoder", "decoder") for end in ends},
        clip: {f"{tower}.position_embedding.weight" for tower in (text, vision)}
        | {f"{text}.token_embedding.weight", f"{vision}.patch_embedding.weight"},
    }
    for model, expected in left.items():
        muon, adamw = optimizers_for(model, 1e-3, 0.01)
        ours, rest = (optimizer.param_groups[0]["params"] for optimizer in (muon, adamw))
        assert len(ours) + len(rest) == len(list(model.parameters()))
        hidden = {id(p) for p in ours}
        named = [(name, p) for name, p in model.named_parameters() if p.ndim > 1]
        assert {name for name, p in named if id(p) not in hidden} == expected
        shapes = [tuple(p.shape) for p in ours]
        assert shapes == sorted(shapes)  # equal ones side by side


class Adapter(nn.Module):
    """Two low-rank matrices, and nothing else: LoRA."""

    def __init__(self):
        super().__init__()
        self.down, self.up = nn.Linear(6, 2, bias=False), nn.Linear(2, 6, bias=False)

    def hidden_matrices(self):
        return [self.down.weight, self.up.weight]

    def forward(self, x):
        return x + self.up(self.down(x))


def test_nothing_but_matrices_needs_no_adamw():
    (optimizer,) = optimizers_for(Adapter(), 1e-3, 0.0)
    assert isinstance(optimizer, Muon) and len(optimizer.param_groups[0]["params"]) == 2


def test_a_model_that_names_no_matrices_is_left_to_adamw():
    embedding = nn.Embedding(5, 3)  # textual inversion
    (optimizer,) = optimizers_for(embedding, 1e-3, 0.0)
    assert isinstance(optimizer, torch.optim.AdamW)
    assert optimizer.param_groups[0]["params"] == [embedding.weight]


def test_frozen_weights_belong_to_no_optimizer():
    model = Adapter()
    model.down.requires_grad_(False)
    (optimizer,) = optimizers_for(model, 1e-3, 0.0)
    assert [p is model.up.weight for p in optimizer.param_groups[0]["params"]] == [True]
    with pytest.raises(ValueError, match="nothing to train"):
        optimizers_for(model.requires_grad_(False), 1e-3, 0.0)


def test_a_weight_without_a_gradient_stays_as_it_is():
    used, unused = nn.Parameter(torch.ones(3, 3)), nn.Parameter(torch.ones(3, 3))
    used.grad = torch.eye(3)
    Muon([used, unused], lr=0.1).step()
    assert torch.equal(unused, torch.ones(3, 3)) and not torch.equal(used, torch.ones(3, 3))
