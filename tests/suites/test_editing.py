"""The suite editing, on pictures whose edits are known."""

import pytest
import torch

from minisd import StableDiffusion, data
from minisd.evaluation import Judge
from minisd.suites import Asked, editing


@pytest.fixture(scope="module")
def judge():
    return Judge.load()


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_another_value_is_never_the_same():
    values = torch.arange(8).repeat(50)
    found = editing.other(values, 8, seeded())
    assert not (found == values).any() and set(found.tolist()) == set(range(8))


def test_the_same_strokes_in_another_colour_count_as_the_same():
    wanted = torch.tensor([[7, 0, 1, 0], [7, 3, 1, 0], [7, 0, 1, 3]])
    red, green, moved = (data.render(row[None], "test", seeded()) for row in wanted)
    other = data.render(wanted[:1], "test", seeded(5))
    assert editing.correlation(red, green).item() > 0.99
    assert editing.correlation(red, moved).item() < 0.5
    assert editing.correlation(red, other).item() < editing.SAME


def test_rates_count_what_changed_and_what_was_kept(judge):
    wanted = torch.tensor([[7, 0, 1, 0], [2, 3, 0, 4], [3, 5, 1, 1], [0, 2, 0, 3]])
    images = data.render(wanted, "test", seeded()) / 2 + 0.5
    shown = wanted.clone()
    shown[0, editing.COLOUR] = 4  # not the colour that was asked for
    shown[1, editing.POSITION] = 0  # moved, which it should not be
    cells = editing.rates(judge, data.render(shown, "test", seeded()) / 2 + 0.5, wanted, 1, images)
    assert {name: cell["right"] for name, cell in cells.items()} == {
        "all": 2,
        "changed": 3,
        "kept": 3,
        "same strokes": 3,
    }


def test_the_hole_holds_the_digit():
    batch = data.draw_batch(200, "test", seeded())
    ink = batch.images.amax(dim=1, keepdim=True) / 2 + 0.5
    mask = editing.around(batch.attributes)
    assert ((ink * mask).sum() / ink.sum()).item() > 0.97
    assert mask.mean().item() < 0.7


def test_what_is_measured_has_its_tables(judge, monkeypatch):
    pipe = StableDiffusion.from_pretrained()
    for name, value in {"STEPS": 2, "BACK": 2, "STRENGTHS": (0.5,), "TIMES": 1}.items():
        monkeypatch.setattr(editing, name, value)
    results = editing.measure(pipe, judge, Asked(4))
    tables = editing.tables(results)
    assert set(tables) >= {"recolour", "exchange", "move", "best", "inpainting"}
    for table in tables.values():
        assert len({len(row) for row in table}) == 1
    assert results["inpainting"]["all other pixels as they were"]["rate"] == 1


@pytest.mark.parametrize("way", editing.WAYS)
def test_a_way_repeats_its_bits(way, tiny_pipe):
    images, attributes, _ = editing.scenes(2, seed=0)
    captions = editing.say(attributes, editing.DIGIT, editing.COLOUR)
    arguments = tiny_pipe, images, captions, captions[::-1], 0.5
    assert torch.equal(*(editing.run(editing.WAYS[way], *arguments) for _ in range(2)))
