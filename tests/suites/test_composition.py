"""The suite of combined prompts, with pipelines whose answers are known."""

from types import SimpleNamespace

import pytest
import torch

from minisd.data import ONE, TWO, all_combinations
from minisd.evaluation import Judge
from minisd.suites import Asked, composition
from tests.helpers import read_caption


class Stub:
    """Draws real renders: of all that the prompts say, or of the first prompt only."""

    data = ONE.about

    def __init__(self, listens: bool):
        self.listens = listens

    def __call__(self, prompts, combine, generator, **options):
        chance = torch.randint(800, (len(prompts),), generator=generator)
        shown = all_combinations()[chance]
        for texts, weight in [(prompts, 1.0), *(combine if self.listens else [])]:
            said = torch.tensor([read_caption(text) for text in texts])
            other = (said + 1) % torch.tensor([10, 8, 2, 5])
            shown = torch.where(said >= 0, said if weight > 0 else other, shown)
        images = ONE.batch(len(shown), "test", generator, attributes=shown).images
        return SimpleNamespace(images=images / 2 + 0.5)


@pytest.fixture(scope="module", params=[True, False])
def results(request):
    return request.param, composition.measure(Stub(request.param), Judge.load(), Asked(30))


def test_and_counts_the_pictures_that_show_all_parts(results):
    listens, found = results
    for row in found[composition.AND_ALL]:
        heard = listens or row["way"] == "one caption"
        assert (row["rates"]["all"]["rate"] > 0.8) == heard
        assert row["rates"]["colour"]["rate"] > 0.9  # the first prompt's


def test_not_counts_the_pictures_that_show_what_they_must_not(results):
    listens, found = results
    for row in found[composition.NOT_SEVEN]:
        red, seven = (cell["rate"] for cell in row["rates"].values())
        assert red > 0.9 and seven < 0.4
        if listens and row["way"] != "weight of NOT 0":
            assert seven < 0.05


def test_of_two_digits_either_may_be_the_forbidden_one():
    asked = []

    def pipe(prompts, combine, generator, **options):
        asked.append((prompts[1], combine[0][0][1], combine[0][1]) if combine else (prompts[1],))
        shown = torch.tensor([[3, 0, 0, 1, 5]]) if not combine else torch.tensor([[1, 6, 2, 3, 0]])
        images = TWO.batch(8, "test", generator, attributes=shown.repeat(8, 1)).images
        return SimpleNamespace(images=images.repeat(len(prompts) // 8, 1, 1, 1) / 2 + 0.5)

    (rows,) = composition.two_digits(pipe, Judge.load(), Asked(16)).values()
    for row in rows:
        three, one, blue = (cell["rate"] for cell in row["rates"].values())
        assert (blue > 0.7) == row["way"].endswith(" 0") and one > 0.7 and three > 0.7
    words = "a red three right of a one", "a three right of a blue one", -0.25
    assert words in asked and ("a red three", "a blue one", -1.0) in asked


def test_a_table_has_a_row_for_every_way_and_scale(results):
    tables = composition.tables(results[1])
    assert set(tables) == {composition.AND_ALL, composition.NOT_SEVEN}
    table = tables[composition.AND_ALL]
    assert len(table) == 1 + 2 * len(composition.SCALES)
    assert table[0] == ["", "guidance", "all, %", "digit, %", "colour, %", "position, %"]
