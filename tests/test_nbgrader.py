"""A teacher's way through a course: the real nbgrader makes an assignment of a solutions notebook,
and grades what students hand in."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import nbformat
import pytest

from notebooks.exercises import INSTRUCTOR, MARKS, clear, is_answer, is_check, tags
from tests.test_exercises import CODE_BLOCK

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = ROOT / "notebooks"
NAMES = ("00_start_here", "04_forward_noising")  # half a minute of work each, so not all
MARKED = re.compile(r"### BEGIN ({})\n(.*?)\n *### END \1".format("|".join(MARKS)), re.S)

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of nbgrader's own making


class Course:
    """A teacher's course folder with one assignment in it."""

    def __init__(self, folder: Path, name: str):
        self.folder, self.name = folder, name
        shutil.copy(NOTEBOOKS / "nbgrader_config.py", folder)
        self.path("source").parent.mkdir(parents=True)
        shutil.copy(NOTEBOOKS / "solutions" / f"{name}.ipynb", self.path("source"))

    def path(self, step: str) -> Path:
        return self.folder / step / self.name / f"{self.name}.ipynb"

    def read(self, step: str):
        return nbformat.read(self.path(step), as_version=4)

    def nbgrader(self, command: str) -> None:
        """The command line, with the settings of the folder and of nobody's home."""
        home = {name: str(self.folder / "jupyter") for name in ("JUPYTER_CONFIG_DIR", "IPYTHONDIR")}
        programs = [sysconfig.get_path("scripts"), os.environ["PATH"]]  # it calls alembic by name
        env = {"PATH": os.pathsep.join(programs), "PYTHONPATH": str(ROOT)} | home
        words = [sys.executable, "-m", "nbgrader", command, self.name]
        options = {"capture_output": True, "text": True, "encoding": "utf-8", "errors": "replace"}
        done = subprocess.run(words, cwd=self.folder, env=os.environ | env, **options)
        assert done.returncode == 0, done.stderr

    def hand_in(self, student: str, answers: list[str], checks: list[str] | None) -> None:
        """A student fills in the released notebook, and may write over the checks as well."""
        notebook = self.read("release")
        for texts, kind in ((answers, is_answer), (checks, is_check)):
            cells = [cell for cell in notebook.cells if kind(cell)]
            for cell, text in zip(cells, texts or [cell.source for cell in cells], strict=True):
                cell.source = text
        path = self.path(f"submitted/{student}")
        path.parent.mkdir(parents=True)
        nbformat.write(notebook, path)

    def points(self) -> dict[str, dict[str, float]]:
        """{student: {check: points}}, as the gradebook has them."""
        from nbgrader.api import Gradebook  # seconds, which only the worker that needs it pays

        with Gradebook(f"sqlite:///{self.folder / 'gradebook.db'}") as book:
            return {
                submission.student.id: {
                    grade.name: grade.score for grade in submission.notebooks[0].grades
                }
                for submission in book.assignment_submissions(self.name)
            }


@pytest.fixture(scope="module", params=NAMES)
def course(request, tmp_path_factory):
    """A course whose assignment is released. Not to be changed."""
    course = Course(tmp_path_factory.mktemp("course"), request.param)
    course.nbgrader("generate_assignment")
    return course


def graded(notebook) -> dict:
    """The answer and check cells by their names."""
    return {
        cell.metadata.nbgrader.grade_id: cell
        for cell in notebook.cells
        if is_answer(cell) or is_check(cell)
    }


def test_students_get_the_exercises_and_nothing_else(course):
    source, release = course.read("source"), course.read("release")
    for_students = [cell for cell in source.cells if INSTRUCTOR not in tags(cell)]
    assert len(for_students) < len(source.cells)
    assert [cell.source for cell in release.cells] == [
        clear(cell.source) if cell.cell_type == "code" else cell.source for cell in for_students
    ]
    text = "\n".join(cell.source for cell in release.cells)
    secrets = [secret for cell in source.cells for _, secret in MARKED.findall(cell.source)]
    assert len(secrets) >= len(graded(source)) / 2
    assert not any(secret.strip() in text for secret in secrets)
    assert not any(mark in text for mark in ("### BEGIN", "### END"))
    assert not any(cell.get("outputs") for cell in release.cells)


def test_a_released_check_is_locked_and_keeps_its_points(course):
    source, release = graded(course.read("source")), graded(course.read("release"))
    assert list(release) == list(source)
    for name, cell in release.items():
        was, now = source[name].metadata.nbgrader, cell.metadata.nbgrader
        assert {**now, "checksum": None} == {**was, "checksum": None}
        assert is_answer(cell) or (now.locked and now.points > 0 and not cell.metadata.editable)


def test_the_right_answers_get_all_points_and_the_others_none(course):
    """The others: made up for what the checks show, with the checks themselves written over.

    Points for all would mean that nbgrader left the checks so, points for some that it did not put
    the hidden tests back.
    """
    source = course.read("source").cells
    solutions = [re.sub(r" *### .*\n?", "", cell.source) for cell in source if is_answer(cell)]
    notes = [CODE_BLOCK.findall(cell.source) for cell in source if INSTRUCTOR in tags(cell)]
    checks = [cell.metadata.nbgrader for cell in source if is_check(cell)]

    course.hand_in("right", solutions, None)
    made_up = [mistakes[-1] for mistakes in notes if mistakes]
    course.hand_in("cheat", made_up, ["assert True"] * len(checks))
    course.nbgrader("autograde")

    everything = {check.grade_id: check.points for check in checks}
    assert course.points() == {"right": everything, "cheat": dict.fromkeys(everything, 0)}
