"""Every exercise can be solved, and its check takes every right answer and refuses all others.

`answers/NN_name.md` has answers to the exercises of a chapter, each under a heading such as
"## 2 wrong: the softmax over the other axis". The usual mistakes, which a solutions notebook lists
for teachers, are wrong answers, too.
"""

import ast
import re
import traceback
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
    without_raising,
)

ANSWERS = Path(__file__).resolve().parent / "answers"
NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"
SOLUTIONS = sorted((NOTEBOOKS / "solutions").glob("*.ipynb"))
CODE_BLOCK = re.compile(r"^```python\n(.*?)^```", re.M | re.S)
ANSWER = re.compile(r"^## (\d) (right|wrong): ([^\n]+)\n+```python\n(.*?)^```$", re.M | re.S)
NOT_DONE = "not done yet"


def complaint(check: str, answer: str, names: dict) -> str | None:
    """What the check, or an error of the answer itself, says; None if it is taken as right."""
    names = dict(names)  # what the two define is forgotten
    try:
        exec(answer, names)
        exec(check, names)
    except Exception as error:
        return f"{error}" if isinstance(error, AssertionError) else f"{type(error)}: {error}"
    finally:
        plt.close("all")
    return None


def has_messages(check: str) -> bool:
    return all(x.msg for x in ast.walk(ast.parse(check)) if isinstance(x, ast.Assert))


@pytest.mark.parametrize("path", SOLUTIONS, ids=lambda path: path.stem)
def test_checks_take_what_is_right_and_refuse_the_rest(path):
    names, answer, number, misjudged = {"__name__": "__main__"}, "", 0, []
    others = ANSWER.findall((ANSWERS / f"{path.stem}.md").read_text("utf-8"))
    cells = nbformat.read(path, as_version=4).cells
    for cell, following in zip(cells, [*cells[1:], None], strict=True):
        if is_answer(cell):
            answer = cell.source
        elif is_check(cell):
            number, check = number + 1, cell.source
            assert INSTRUCTOR in tags(following) and has_messages(check)
            mistakes = CODE_BLOCK.findall(following.source)
            mine = [other[1:] for other in others if int(other[0]) == number]
            right = [(why, code) for kind, why, code in mine if kind == "right"]
            wrong = [(why, code) for kind, why, code in mine if kind == "wrong"]
            wrong += [(f"usual mistake {i + 1}", code) for i, code in enumerate(mistakes)]
            assert len(mistakes) >= 2 and len(right) >= 2 and len(wrong) >= 5, f"exercise {number}"
            assert complaint(check, clear(answer), names) == NOT_DONE
            assert complaint(clear(check), clear(answer), names) == NOT_DONE
            for why, code in right:
                if said := complaint(check, code, names):
                    misjudged.append(f"{number}, {why}: refused, {said}")
            for why, code in wrong:
                if complaint(check, code, names) is None:
                    misjudged.append(f"{number}, {why}: taken")
            # What a student sees of the check suffices for the first mistake, if it is in the code.
            if "def " in mistakes[0] and complaint(clear(check), mistakes[0], names) is None:
                misjudged.append(f"{number}, usual mistake 1: taken without the hidden tests")
            exec(answer, names)
            exec(check, names)
        elif cell.cell_type == "code":
            exec(cell.source, names)
        plt.close("all")
    assert 3 <= number <= 6
    assert misjudged == []


def test_every_answer_is_read():
    for path in ANSWERS.glob("*.md"):
        text = path.read_text("utf-8")
        assert len(ANSWER.findall(text)) == text.count("\n## ") == text.count("```python"), (
            path.name
        )


@pytest.mark.parametrize("path", SOLUTIONS, ids=lambda path: path.stem)
def test_a_chapter_shows_the_exercises_of_its_solutions_notebook(path):
    chapter = nbformat.read(NOTEBOOKS / path.name, as_version=4)
    shown = [cell for cell in chapter.cells if EXERCISE in tags(cell)]
    wanted = chapter_cells(nbformat.read(path, as_version=4))
    assert [cell.source for cell in shown] == [cell.source for cell in wanted]
    checks = [cell for cell in shown if 'print("✓ right")' in cell.get("source", "")]
    for cell in checks:
        assert cell.outputs[-1].get("text", "").splitlines()[-1] == f"✗ {NOT_DONE}"


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
    check = without_raising('assert x() == 2, "think again"')
    ours = "✗ an assert in your code failed\n"
    for x, said in (("2", "✓ right\n"), ("3", "✗ think again\n"), ("exec('assert 0')", ours)):
        exec(check, {"x": eval(f"lambda: {x}")})
        assert capsys.readouterr().out == said


def test_an_error_in_an_answer_keeps_its_traceback(capsys):
    class Shell:
        def showtraceback(self):
            print(traceback.format_exc())

    def answer():
        return gues  # noqa: F821

    exec(without_raising("assert answer()"), {"answer": answer, "get_ipython": Shell})
    said = capsys.readouterr().out
    assert said.startswith("✗ your code stops with an error\n")
    assert "return gues" in said and "name 'gues' is not defined" in said


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
