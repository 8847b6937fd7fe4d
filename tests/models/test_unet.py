"""The U-Net: what it starts as, what it listens to, and how its attention maps are read."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from minisd.models import UNet, UNetConfig, cross_attention_maps
from minisd.models.unet import GEGLU, Attention, timestep_features
from tests.helpers import wake

TINY = UNetConfig(
    block_out_channels=(8, 16),
    cross_attention=(True, True),
    num_heads=2,
    cross_attention_dim=12,
    norm_num_groups=4,
)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.fixture
def unet():
    return wake(UNet(TINY)).eval()


@pytest.fixture
def inputs():
    return torch.randn(2, 4, 8, 4), torch.tensor([3, 700]), torch.randn(2, 5, 12)


def test_a_fresh_unet_answers_zero(inputs):
    assert torch.equal(UNet(TINY)(*inputs), torch.zeros(2, 4, 8, 4))


def test_a_fresh_unet_learns_all_the_same(inputs):
    """Zero weights must not mean zero gradients: the last layer moves first, then the others."""
    unet = UNet(TINY)
    optimizer = torch.optim.SGD(unet.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        (unet(*inputs) - 1).square().mean().backward()
        optimizer.step()
    still = [name for name, p in unet.named_parameters() if not p.grad.any()]
    assert not still, f"no gradient reaches {still}"


@torch.no_grad()
def test_the_answer_depends_on_picture_time_and_prompt(unet, inputs):
    x, t, context = inputs
    before = unet(x, t, context)
    for other in ((x + 0.1, t, context), (x, t + 50, context), (x, t, context + 0.5)):
        assert (unet(*other) - before).abs().max() > 1e-3


@torch.no_grad()
def test_one_timestep_serves_the_whole_batch(unet, inputs):
    x, _, context = inputs
    one, each = torch.tensor(7), torch.tensor([7, 7])
    assert torch.equal(unet(x, one, context), unet(x, each, context))


@torch.no_grad()
def test_rows_of_a_batch_do_not_see_one_another(unet, inputs):
    alone = unet(*(value[1:] for value in inputs))
    assert_close(unet(*inputs)[1:], alone, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_the_order_of_the_prompt_tokens_is_in_their_states_alone(unet, inputs):
    """Attention itself has no order: shuffled keys with their values give the same answer."""
    x, t, context = inputs
    assert_close(unet(x, t, context), unet(x, t, context.flip(1)), atol=1e-5, rtol=1e-4)


def test_time_features_by_hand():
    t, channels = 5, 6
    angles = [t * 10_000 ** (-i / 3) for i in range(3)]
    expected = [math.cos(a) for a in angles] + [math.sin(a) for a in angles]
    assert_close(timestep_features(torch.tensor([t]), channels), torch.tensor([expected]))


def test_geglu_gates_with_its_second_half():
    geglu, x = GEGLU(3), torch.randn(2, 5, 3)
    value, gate = geglu.proj(x)[..., :12], geglu.proj(x)[..., 12:]
    exact = 0.5 * gate * (1 + torch.erf(gate / math.sqrt(2)))
    assert_close(geglu(x), value * exact)


def test_attention_without_context_looks_at_itself():
    attention, x = Attention(8, 8, heads=2), torch.randn(2, 5, 8)
    assert_close(attention(x), attention(x, x))
    assert [name for name, _ in attention.named_parameters() if "bias" in name] == ["to_out.0.bias"]


# The maps


def attention_names(unet):
    return {name for name, _ in unet.named_modules() if name.endswith("attn2")}


@torch.no_grad()
def test_maps_are_softmaxes_of_queries_and_keys(unet, inputs):
    name = "mid_block.attentions.0.transformer_blocks.0.attn2"
    layer, seen = unet.get_submodule(name), []
    handle = layer.register_forward_pre_hook(lambda _, arguments: seen.append(arguments))
    with cross_attention_maps(unet) as maps:
        unet(*inputs)
    handle.remove()
    ((x, context),) = seen
    q, k = (part.view(2, -1, 2, 8) for part in (layer.to_q(x), layer.to_k(context)))
    scores = torch.einsum("bnhd,blhd->bhnl", q, k) / math.sqrt(8)
    assert_close(maps[name][0], F.softmax(scores, dim=-1))


@torch.no_grad()
def test_every_cross_attention_gives_one_map_a_call_and_maps_sum_to_one(unet, inputs):
    with cross_attention_maps(unet) as maps:
        unet(*inputs)
        unet(*inputs)
    assert maps.keys() == attention_names(unet) and len(maps) == 2 + 1 + 4  # down, middle, up
    for name, seen in maps.items():
        pixels = 8 * 4 if name.startswith(("down_blocks.0", "up_blocks.1")) else 4 * 2
        assert [tuple(m.shape) for m in seen] == [(2, 2, pixels, 5)] * 2, name
        assert_close(seen[0].sum(dim=-1), torch.ones(2, 2, pixels))


def test_only_levels_with_cross_attention_have_maps(inputs):
    unet = UNet(UNetConfig(**(vars(TINY) | {"cross_attention": (False, True)})))
    with cross_attention_maps(unet) as maps, torch.no_grad():
        unet(*inputs)
    assert not any(name.startswith(("down_blocks.0", "up_blocks.1")) for name in maps)
    assert maps.keys() == attention_names(unet) and len(maps) == 1 + 1 + 2


@torch.no_grad()
def test_looking_at_the_maps_does_not_change_a_bit(unet, inputs):
    before = unet(*inputs)
    with cross_attention_maps(unet):
        during = unet(*inputs)
    assert torch.equal(during, before) and torch.equal(unet(*inputs), before)


def hooks(unet):
    return sum(len(module._forward_hooks) for module in unet.modules())


def test_the_hooks_are_gone_afterwards_even_after_an_error(unet, inputs):
    with cross_attention_maps(unet) as maps:
        assert hooks(unet) == 7
    assert hooks(unet) == 0
    unet(*inputs)
    assert not any(maps.values())  # nothing is collected any more

    with pytest.raises(RuntimeError), cross_attention_maps(unet):
        raise RuntimeError
    assert hooks(unet) == 0


def test_maps_hold_no_graph(unet, inputs):
    with cross_attention_maps(unet) as maps:
        unet(*inputs).sum().backward()
    assert not any(m.requires_grad for seen in maps.values() for m in seen)
