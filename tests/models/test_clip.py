"""CLIP: who may look at whom, and how two towers are compared."""

import math

import pytest
import torch
from torch.testing import assert_close

from minisd.models import CLIP, CLIPConfig, TextConfig, TextEncoder, VisionConfig
from minisd.models.clip import quick_gelu

TOWER = {"hidden_size": 16, "intermediate_size": 32, "num_layers": 2, "num_heads": 2}
TEXT = TextConfig(vocab_size=20, end_id=19, max_length=8, **TOWER)
CONFIG = CLIPConfig(TEXT, VisionConfig(image_size=16, patch_size=8, **TOWER), projection_dim=6)
START, END = 18, 19


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.fixture
def text():
    return TextEncoder(TEXT).eval()


@pytest.fixture
def clip():
    return CLIP(CONFIG).eval()


def test_quick_gelu_by_hand():
    x = torch.tensor([-2.0, 0.0, 0.5, 3.0])
    expected = [v / (1 + math.exp(-1.702 * v)) for v in x.tolist()]
    assert_close(quick_gelu(x), torch.tensor(expected))
    assert (quick_gelu(x) - torch.nn.functional.gelu(x)).abs().max() > 0.005  # it is another one


@pytest.mark.parametrize("position", range(1, 8))
def test_a_token_changes_its_own_state_and_later_ones_never_earlier_ones(text, position):
    ids = torch.tensor([[START, 1, 2, 3, 4, 5, 6, END]])
    changed = ids.clone()
    changed[0, position] = 9
    before, after = text(ids)[0], text(changed)[0]
    assert_close(after[:position], before[:position], atol=1e-6, rtol=0)
    assert ((after - before)[position:].abs().amax(dim=1) > 1e-3).all()


def test_word_order_matters(text):
    one, other = text(torch.tensor([[START, 1, 2, END], [START, 2, 1, END]]))
    assert (one[3] - other[3]).abs().max() > 1e-3


def test_states_are_normalised(text):
    states = text(torch.tensor([[START, 1, 2, END]]))
    assert_close(states.mean(dim=-1), torch.zeros(1, 4), atol=1e-5, rtol=0)
    assert_close(states.var(dim=-1, unbiased=False), torch.ones(1, 4), atol=1e-3, rtol=0)


def test_the_pool_is_the_state_at_the_first_end_of_text(text):
    ids = torch.tensor([[START, 1, END, END, END], [START, 1, 2, 3, END]])
    states = torch.randn(2, 5, 16)
    assert torch.equal(text.pool(states, ids), torch.stack([states[0, 2], states[1, 4]]))


def test_padding_after_the_end_does_not_change_the_embedding(clip):
    short = torch.tensor([[START, 3, 4, END]])
    long = torch.tensor([[START, 3, 4, END, END, END, END, END]])
    assert_close(clip.encode_text(short), clip.encode_text(long))


def test_embeddings_are_unit_vectors(clip):
    images, ids = torch.randn(3, 3, 16, 16), torch.tensor([[START, 1, END], [START, 2, END]])
    assert_close(clip.encode_image(images).norm(dim=-1), torch.ones(3))
    assert_close(clip.encode_text(ids).norm(dim=-1), torch.ones(2))


def test_logits_are_cosines_over_the_temperature_pictures_down_texts_across(clip):
    images, ids = torch.randn(3, 3, 16, 16), torch.tensor([[START, 1, END], [START, 2, END]])
    logits = clip(images, ids)
    assert logits.shape == (3, 2)
    cosine = torch.cosine_similarity(clip.encode_image(images)[2], clip.encode_text(ids)[1], dim=0)
    assert_close(logits[2, 1], cosine / 0.07)  # the temperature that CLIP starts from


def test_a_picture_is_read_patch_by_patch_and_place_by_place(clip):
    images = torch.randn(1, 3, 16, 16)
    swapped = images.roll(8, dims=-1)  # the left patches change places with the right ones
    patches = clip.vision_model.embeddings.patch_embedding
    assert_close(patches(images).roll(1, dims=-1), patches(swapped))
    assert (clip.encode_image(images) - clip.encode_image(swapped)).abs().max() > 1e-4


def test_pictures_of_a_batch_do_not_see_one_another(clip):
    images = torch.randn(3, 3, 16, 16)
    assert_close(clip.encode_image(images)[1:2], clip.encode_image(images[1:2]))
