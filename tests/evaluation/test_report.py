"""The report has a row for everything measured, the same in text and in Markdown."""

import re

import pytest

from minisd.data import ATTRIBUTES
from minisd.evaluation import Settings, evaluate, format_results, percent

from .stubs import WORLD


@pytest.fixture(scope="module")
def results(tiny_pipe, judge):
    return evaluate(tiny_pipe, judge, WORLD, Settings(samples=40, steps=2))


ROWS = (
    "seen, drawn",
    "seen, guidance 1",
    "seen, real renders",
    "held out, drawn",
    "held out, guidance 1",
    "held out, real renders",
    "autoencoder keeps",
    "CLIP zero-shot",
    "digit, colour, position",
    "nothing",
    "Frechet distance",
    "the same, guidance 1",
    "reconstruction",
    "CLIP score",
    "CLIP retrieval, seen, recall@1,",
    "CLIP retrieval, held out, recall@10",
    "copies",
)


def test_every_row_stands_there_once(results):
    text = format_results(results)
    for row in ROWS:
        assert sum(line.startswith(row) for line in text.splitlines()) == 1, row
    assert all(name in text.splitlines()[0] for name in ("joint", *ATTRIBUTES))


def test_text_and_markdown_have_the_same_cells(results):
    text = [re.split(" {2,}", line.strip()) for line in format_results(results).splitlines()]
    lines = format_results(results, markdown=True).splitlines()
    markdown = [[c for c in line.strip("| ").split(" | ") if c] for line in lines]
    markdown = [cells for cells in markdown if cells[:1] != ["---"]]
    assert [[c for c in row if c] for row in text] == markdown


def test_columns_of_the_text_are_aligned(results):
    head, *rows = format_results(results).split("\n\n")[0].splitlines()
    assert {len(row) for row in rows} == {len(head)}


def test_each_classifier_has_its_row(listening):
    lines = [x for x in format_results(listening[1]).splitlines() if "classification" in x]
    for name, line in zip(("classification_accuracy", "plain_classification"), lines, strict=True):
        assert percent(listening[1][name]) in line and "1,000 drawn pictures" in line
    assert "no tricks" not in lines[0] and "no tricks" in lines[1]


def test_the_settings_are_told(results):
    assert "40 pictures, 2 steps of ddim, guidance 3, guidance_rescale 0.9" in format_results(
        results
    )
