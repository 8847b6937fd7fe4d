"""Run every notebook anew and store its outputs, so that an unchanged tree gives unchanged files.

make notebooks, or: python notebooks/refresh.py [NAME.ipynb ...]
"""

import os
import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from tqdm import tqdm

HERE = Path(__file__).resolve().parent


def refresh(path: Path) -> None:
    """Execute one notebook in its own folder, on one thread, and write it back if all went well."""
    notebook = nbformat.read(path, as_version=4)
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number:02d}"
    folder = {"metadata": {"path": str(path.parent)}}
    NotebookClient(notebook, timeout=300, record_timing=False, resources=folder).execute()
    notebook.metadata.pop("language_info", None)  # it names the Python that ran it
    nbformat.write(notebook, path)


if __name__ == "__main__":
    os.environ |= {"OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1", "PYTHONPATH": str(HERE.parent)}
    chosen = [Path(name) for name in sys.argv[1:]] or sorted(HERE.rglob("[0-9]*.ipynb"))
    for path in tqdm(chosen, desc="notebooks", unit="notebook"):
        refresh(path)
