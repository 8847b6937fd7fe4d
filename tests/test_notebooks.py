"""What nbval does not notice: a notebook that was stripped, run out of order, or stored broken."""

from pathlib import Path

import nbformat
import pytest

from notebooks.refresh import fingerprint

FOLDER = Path(__file__).resolve().parents[1] / "notebooks"
CHAPTERS = sorted(FOLDER.glob("[0-9]*.ipynb"))
NOTEBOOKS = sorted(FOLDER.rglob("[0-9]*.ipynb"))


def faults(notebook) -> list[str]:
    """Everything wrong with the stored outputs of a notebook."""
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    outputs = [output for cell in code for output in cell.outputs]
    found = []
    if [cell.execution_count for cell in code] != list(range(1, len(code) + 1)):
        found.append("its cells were not run once, in order")
    if not outputs:
        found.append("its outputs were stripped")
    if any(output.output_type == "error" for output in outputs):
        found.append("it stores an error")
    if any(output.get("name") == "stderr" for output in outputs):
        found.append("it stores a warning")
    if notebook.metadata.get("minisd", {}).get("ran") != fingerprint(notebook):
        found.append("its code was changed after it ran: make notebooks")
    return found


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_notebook_is_stored_as_it_ran(path):
    assert faults(nbformat.read(path, as_version=4)) == []
    assert path.stat().st_size < 1_000_000


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_a_chapter_keeps_to_the_template(path):
    notebook = nbformat.read(path, as_version=4)
    prose = [cell for cell in notebook.cells if cell.cell_type == "markdown"]
    code = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    assert 30 <= len(notebook.cells) <= 45
    assert len(prose) > len(notebook.cells) / 2
    assert max(source.count("\n") + 1 for source in code) <= 30
    assert sum("assert" in source for source in code) >= 4
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 5
    assert any("# NBVAL_CHECK_OUTPUT" in source for source in code)


def broken(**change):
    """A notebook of one good cell, with something changed."""
    cell = nbformat.v4.new_code_cell("print(1)", execution_count=1)
    cell.outputs = [nbformat.v4.new_output("stream", name="stdout", text="1\n")]
    notebook = nbformat.v4.new_notebook(cells=[cell])
    notebook.metadata["minisd"] = {"ran": fingerprint(notebook)}
    cell.update(change)
    return notebook


def test_a_good_notebook_has_no_faults():
    assert faults(broken()) == []


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"execution_count": None}, "its cells were not run once, in order"),
        ({"execution_count": 7}, "its cells were not run once, in order"),
        ({"outputs": []}, "its outputs were stripped"),
        (
            {"outputs": [nbformat.v4.new_output("error", ename="E", evalue="", traceback=[])]},
            "it stores an error",
        ),
        (
            {"outputs": [nbformat.v4.new_output("stream", name="stderr", text="careful")]},
            "it stores a warning",
        ),
        ({"source": "print(2)"}, "its code was changed after it ran: make notebooks"),
    ],
)
def test_a_broken_notebook_is_noticed(change, fault):
    assert fault in faults(broken(**change))
