"""The shared blocks, each against a slow and obvious version of itself."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from minisd.models.layers import (
    Downsample,
    MultiHeadAttention,
    ResidualBlock,
    Upsample,
    parameter_count,
    picture,
    tokens,
)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def attend_slowly(q, k, v, heads, mask):
    """Attention one number at a time."""
    B, N, C = q.shape
    M, d = k.shape[1], C // heads
    out = torch.zeros(B, N, C)
    for b in range(B):
        for h in range(heads):
            part = slice(h * d, (h + 1) * d)
            for n in range(N):
                scores = [float(q[b, n, part] @ k[b, m, part]) / math.sqrt(d) for m in range(M)]
                scores = [score + float(mask[n, m]) for m, score in enumerate(scores)]
                total = sum(math.exp(score) for score in scores)
                for m, score in enumerate(scores):
                    out[b, n, part] += math.exp(score) / total * v[b, m, part]
    return out


@pytest.mark.parametrize("heads", [1, 2, 4])
@pytest.mark.parametrize("masked", [False, True])
def test_attention_equals_the_loop_over_its_definition(heads, masked):
    q, k, v = torch.randn(2, 3, 8), torch.randn(2, 5, 8), torch.randn(2, 5, 8)
    mask = torch.zeros(3, 5)
    if masked:
        mask[0, 1:], mask[1, 0], mask[2, 3] = -math.inf, -math.inf, 1.5
    ours = MultiHeadAttention(heads)(q, k, v, mask if masked else None)
    assert_close(ours, attend_slowly(q, k, v, heads, mask))


def test_attention_agrees_with_the_fused_kernel_of_pytorch():
    q, k, v = torch.randn(3, 2, 7, 12)
    split = [x.view(2, 7, 3, 4).transpose(1, 2) for x in (q, k, v)]
    expected = F.scaled_dot_product_attention(*split).transpose(1, 2).flatten(2)
    assert_close(MultiHeadAttention(3)(q, k, v), expected)


def test_tokens_run_along_the_rows_and_come_back_as_the_same_picture():
    x = torch.arange(2 * 3 * 2 * 4).view(2, 3, 2, 4)
    assert tokens(x).shape == (2, 8, 3)
    assert torch.equal(tokens(x)[:, 4 * 1 + 2], x[:, :, 1, 2])
    assert torch.equal(picture(tokens(x), like=x), x)


def corner(down):
    """Downsample whose kernel looks at its top left pixel only, applied to numbered pixels."""
    down.conv.weight.data.zero_()
    down.conv.bias.data.zero_()
    down.conv.weight.data[0, 0, 0, 0] = 1
    return down(torch.arange(1.0, 17.0).view(1, 1, 4, 4))[0, 0].tolist()


def test_the_unet_pads_every_side_before_it_halves():
    assert corner(Downsample(1, padding=1)) == [[0, 0], [0, 6]]  # one to the left, one above


def test_the_autoencoder_pads_right_and_bottom_only():
    assert corner(Downsample(1, padding=0)) == [[1, 3], [9, 11]]


def test_upsampling_repeats_each_pixel():
    up = Upsample(1)
    up.conv.weight.data.zero_()
    up.conv.bias.data.zero_()
    up.conv.weight.data[0, 0, 1, 1] = 1  # the convolution passes its middle on
    x = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
    expected = [[1, 1, 2, 2], [1, 1, 2, 2], [3, 3, 4, 4], [3, 3, 4, 4]]
    assert up(x)[0, 0].tolist() == expected


@pytest.mark.parametrize("shape", [(4, 4), (2, 6)])
def test_halving_and_doubling_keep_the_aspect(shape):
    x = torch.randn(1, 2, *shape)
    for padding in (0, 1):
        half = Downsample(2, padding)(x)
        assert half.shape[2:] == (shape[0] // 2, shape[1] // 2)
        assert Upsample(2)(half).shape == x.shape


def test_a_residual_block_without_its_second_convolution_is_its_shortcut():
    x, time = torch.randn(2, 4, 3, 3), torch.randn(2, 6)
    same, wider = ResidualBlock(4, 4, 2, 1e-5, 6), ResidualBlock(4, 8, 2, 1e-5, 6)
    for block in (same, wider):
        torch.nn.init.zeros_(block.conv2.weight)
        torch.nn.init.zeros_(block.conv2.bias)
    assert torch.equal(same(x, time), x)
    assert torch.equal(wider(x, time), wider.conv_shortcut(x))


def test_the_time_embedding_shifts_each_channel_between_the_convolutions():
    block, x = ResidualBlock(4, 4, 2, 1e-5, 6), torch.randn(2, 4, 3, 3)
    time = torch.randn(2, 6)
    h = block.conv1(F.silu(block.norm1(x)))
    h = h + block.time_emb_proj(F.silu(time)).view(2, 4, 1, 1)
    expected = x + block.conv2(F.silu(block.norm2(h)))
    assert_close(block(x, time), expected)
    assert (block(x, time) - block(x, 2 * time)).abs().max() > 1e-3


def test_parameter_count_of_a_block_by_hand():
    norms, convolutions, shortcut, time = (
        2 * 4 + 2 * 8,
        8 * 36 + 8 + 8 * 72 + 8,
        4 * 8 + 8,
        6 * 8 + 8,
    )
    block = ResidualBlock(4, 8, 2, 1e-5, time_channels=6)
    assert parameter_count(block) == norms + convolutions + shortcut + time
