"""Run every notebook anew and store its outputs, so that an unchanged tree gives unchanged files.

make notebooks, or: python notebooks/refresh.py [NAME.ipynb ...]

A chapter first gets its exercises from its solutions notebook (see exercises.py).
"""

import hashlib
import os
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from tqdm import tqdm

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from notebooks.exercises import put_exercises  # noqa: E402


def fingerprint(notebook: nbformat.NotebookNode) -> str:
    """Of the code, in order: what was run, so that a change after the run can be noticed."""
    code = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    return hashlib.sha256("\0".join(code).encode()).hexdigest()[:16]


def refresh(path: Path) -> float:
    """Execute one notebook in its own folder, on one thread, and write it back if all went well.

    Returns the seconds that it took.
    """
    notebook = nbformat.read(path, as_version=4)
    solutions = path.parent / "solutions" / path.name
    if solutions.exists():
        put_exercises(notebook, nbformat.read(solutions, as_version=4))
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number:02d}"
    start = time.monotonic()
    folder = {"metadata": {"path": str(path.parent)}}
    settings = {"timeout": 300, "record_timing": False, "coalesce_streams": True}
    NotebookClient(notebook, resources=folder, **settings).execute()
    notebook.metadata.pop("language_info", None)  # it names the Python that ran it
    notebook.metadata["minisd"] = {"ran": fingerprint(notebook)}
    nbformat.write(notebook, path)
    return time.monotonic() - start


if __name__ == "__main__":
    os.environ |= {"OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1", "PYTHONPATH": str(HERE.parent)}
    os.environ.pop("MPLBACKEND", None)  # with one of the caller's, no picture would be stored
    chosen = [Path(name).resolve() for name in sys.argv[1:]] or sorted(HERE.rglob("[0-9]*.ipynb"))
    for path in (bar := tqdm(chosen, desc="notebooks", unit="notebook")):
        bar.write(f"{refresh(path):5.0f} s  {path.relative_to(HERE)}")
