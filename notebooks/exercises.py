"""From a solutions notebook to the exercises at the end of its chapter.

`solutions/NN_name.ipynb` is the only source of the exercises of `NN_name.ipynb`, with nbgrader's
marks. A chapter shows them without the solutions, and with checks that print what those of nbgrader
raise, so that a chapter can be run from top to bottom before anything is solved.
"""

import textwrap

import nbformat
from nbformat import NotebookNode

STUB = "# your code here"  # as in nbgrader_config.py
MARKS = {"SOLUTION": STUB, "HIDDEN TESTS": None}  # what stands in place of a marked region
INSTRUCTOR, EXERCISE = "instructor", "exercise"  # tags of cells


def tags(cell: NotebookNode) -> list[str]:
    return cell.metadata.get("tags", [])


def is_check(cell: NotebookNode) -> bool:
    return cell.metadata.get("nbgrader", {}).get("grade", False)


def is_answer(cell: NotebookNode) -> bool:
    return cell.metadata.get("nbgrader", {}).get("solution", False)


def clear(source: str) -> str:
    """A cell as the student gets it: solutions replaced by a stub, hidden tests gone."""
    lines, inside = [], None
    for line in source.split("\n"):
        begins = next((mark for mark in MARKS if f"### BEGIN {mark}" in line), None)
        if begins:
            inside = begins
            if MARKS[begins]:
                lines.append(line[: len(line) - len(line.lstrip())] + MARKS[begins])
        elif inside and f"### END {inside}" in line:
            inside = None
        elif not inside:
            lines.append(line)
    if inside:
        raise ValueError(f"### BEGIN {inside} has no end in a cell that begins: {source[:60]!r}")
    return "\n".join(lines).rstrip()


def without_raising(check: str) -> str:
    """A check that prints how it went. An error in the answer's own code keeps its traceback."""
    body = textwrap.indent(f'{check}\nprint("✓ right")', "    ")
    return f"""try:
{body}
except AssertionError as reason:
    print("✗", *(reason.args or ["an assert in your code failed"]))
except Exception:
    print("✗ your code stops with an error")
    get_ipython().showtraceback()"""


def chapter_cells(solutions: NotebookNode) -> list[NotebookNode]:
    """The cells that end a chapter, made from those of its solutions notebook."""
    cells = []
    for cell in solutions.cells[1:]:
        if INSTRUCTOR in tags(cell):
            continue
        if cell.cell_type == "markdown":
            new = nbformat.v4.new_markdown_cell(cell.source)
        else:
            source = clear(cell.source)
            source = without_raising(source) if is_check(cell) else source
            new = nbformat.v4.new_code_cell(source)
        new.metadata.tags = [EXERCISE]
        cells.append(new)
    return cells


def put_exercises(chapter: NotebookNode, solutions: NotebookNode) -> None:
    """Replace the exercises of a chapter, which are the cells with that tag, in place."""
    places = [i for i, cell in enumerate(chapter.cells) if EXERCISE in tags(cell)]
    if not places or places != list(range(places[0], places[-1] + 1)):
        raise ValueError(f"a chapter needs one run of cells tagged {EXERCISE!r}, not {places}")
    chapter.cells[places[0] : places[-1] + 1] = chapter_cells(solutions)
