"""Each suite has what `evaluate --suite` and the front page ask of it."""

from pathlib import Path

import pytest

from minisd.checkpoint import read_json
from minisd.commands import SUITES

MEASURED = sorted((Path(__file__).resolve().parents[2] / "benchmarks/suites").glob("*.json"))


@pytest.mark.parametrize("suite", [s for s in SUITES.values() if hasattr(s, "measure")])
def test_a_suite_has_everything(suite):
    assert suite.SAMPLES >= 2
    assert all(map(callable, (suite.measure, suite.tables, suite.headlines)))


@pytest.mark.parametrize("file", MEASURED, ids=lambda file: file.stem)
def test_what_was_measured_makes_tables_and_headlines(file):
    about = read_json(file)
    suite, results = SUITES[about["suite"]], about["results"]
    for table in suite.tables(results).values():
        assert len(table) > 1 and len({len(row) for row in table}) == 1
    for what, number in suite.headlines(results).items():
        assert what and any(character.isdigit() for character in number)
