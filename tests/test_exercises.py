"""Every exercise can be solved, and its check refuses no answer, the usual mistakes, and tricks."""

import re
from pathlib import Path

import matplotlib.pyplot as plt
import nbformat
import pytest

from notebooks.exercises import (
    EXERCISE,
    INSTRUCTOR,
    chapter_cells,
    clear,
    is_answer,
    is_check,
    put_exercises,
    tags,
    wait_for_an_answer,
)

NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"
SOLUTIONS = sorted((NOTEBOOKS / "solutions").glob("*.ipynb"))
CODE_BLOCK = re.compile(r"^```python\n(.*?)^```", re.M | re.S)


def refuses(check: str, answer: str, names: dict) -> bool:
    """Does the check raise after this answer? What the two define is forgotten."""
    names = dict(names)
    exec(answer, names)
    try:
        exec(check, names)
    except Exception:
        return True
    return False


@pytest.mark.parametrize("path", SOLUTIONS, ids=lambda path: path.stem)
def test_checks_accept_the_solution_and_refuse_the_rest(path):
    names, answers, checks, accepted = {"__name__": "__main__"}, "", 0, []
    cells = nbformat.read(path, as_version=4).cells
    for cell, following in zip(cells, [*cells[1:], None], strict=True):
        if is_answer(cell):
            answers = cell.source
        elif is_check(cell):
            checks += 1
            mistakes = CODE_BLOCK.findall(following.source)
            assert INSTRUCTOR in tags(following) and len(mistakes) >= 2
            for wrong in [clear(answers), *mistakes]:
                if not refuses(cell.source, wrong, names):
                    accepted.append(wrong)
            # So does what a student sees of it; but invented numbers only the hidden tests find.
            if "def " in mistakes[0] and not refuses(clear(cell.source), mistakes[0], names):
                accepted.append(f"without the hidden tests: {mistakes[0]}")
            exec(answers, names)
            exec(cell.source, names)
        elif cell.cell_type == "code":
            exec(cell.source, names)
        plt.close("all")
    assert 3 <= checks <= 6
    assert accepted == []


@pytest.mark.parametrize("path", SOLUTIONS, ids=lambda path: path.stem)
def test_a_chapter_shows_the_exercises_of_its_solutions_notebook(path):
    chapter = nbformat.read(NOTEBOOKS / path.name, as_version=4)
    shown = [cell for cell in chapter.cells if EXERCISE in tags(cell)]
    wanted = chapter_cells(nbformat.read(path, as_version=4))
    assert [cell.source for cell in shown] == [cell.source for cell in wanted]
    checks = [cell for cell in shown if 'print("right")' in cell.get("source", "")]
    for cell in checks:
        text = "".join(output.get("text", "") for output in cell.outputs)
        assert "not yet:" in text and "right" not in text.split("not yet:")[0].splitlines()


def test_every_chapter_has_solutions():
    chapters = {path.name for path in NOTEBOOKS.glob("[0-9]*.ipynb")}
    assert chapters == {path.name for path in SOLUTIONS}


def test_solutions_and_hidden_tests_are_cleared():
    head, mark = 'def f(x):\n    """Twice."""\n    ', "### {} SOLUTION"
    source = f"{head}{mark.format('BEGIN')}\n    return 2 * x\n    {mark.format('END')}"
    assert clear(source) == f"{head}# your code here"
    check = "assert f(1) == 2\n### BEGIN HIDDEN TESTS\nassert f(2) == 4\n### END HIDDEN TESTS\n"
    assert clear(check) == "assert f(1) == 2"


def test_a_mark_without_an_end_is_refused():
    with pytest.raises(ValueError, match="BEGIN SOLUTION has no end"):
        clear("### BEGIN SOLUTION\nx = 1")


def test_a_check_in_a_chapter_says_how_it_went(capsys):
    check = wait_for_an_answer('assert x == 2, "think again"')
    for x, said in ((2, "right\n"), (3, "not yet: think again\n")):
        exec(check, {"x": x})
        assert capsys.readouterr().out == said


def test_exercises_go_where_the_chapter_wants_them():
    new = nbformat.v4
    marked = new.new_markdown_cell("old", metadata={"tags": [EXERCISE]})
    chapter = new.new_notebook(cells=[new.new_markdown_cell("a"), marked])
    chapter.cells.append(new.new_markdown_cell("z"))
    solutions = new.new_notebook(cells=[new.new_markdown_cell(text) for text in "tbc"])
    solutions.cells[1].metadata.tags = [INSTRUCTOR]
    put_exercises(chapter, solutions)
    assert [cell.source for cell in chapter.cells] == ["a", "c", "z"]
    chapter.cells.append(chapter.cells[1])
    with pytest.raises(ValueError, match="one run of cells"):
        put_exercises(chapter, solutions)
