"""Who may import whom. The parts of minisd stay apart so that each can be read alone.

This reads every import in minisd/, also those inside functions and under `if TYPE_CHECKING`, and
holds it to the table below.
"""

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "minisd"

LEAVES = {"models", "diffusion", "data", "tokenizer", "machine"}  # they know nothing of one another
ALL = {"errors", "files", "pictures", "text"}  # what every part may import

# A part of minisd -> the other parts that it may import. A part may always import itself; "minisd"
# is the package's own __init__.py. A file may have a line of its own, which then counts instead of
# its part's.
MAY_IMPORT = {
    "models": set(),
    "diffusion": set(),
    "data": set(),
    "tokenizer": set(),
    "machine": set(),
    "errors": set(),
    "files": set(),
    "pictures": set(),
    "text": set(),
    "checkpoint": {"models", "tokenizer"},
    "audio": set(),
    "call": {"diffusion"},
    "pretrained": {"models", "diffusion", "tokenizer", "machine", "checkpoint", "call"},
    "pipeline": {"diffusion", "call", "pretrained"},
    "film": {"models", "pipeline"},
    "edit": {"call", "models", "diffusion", "pipeline"},
    "plots": {"data", "tokenizer"},  # it draws arrays and the words for them, whatever made them
    "evaluation": LEAVES | {"checkpoint", "pipeline", "minisd"},
    "evaluation.judge": {"data"},  # none of what it judges, not even by a detour
    "training": LEAVES | {"call", "checkpoint", "pipeline", "minisd"},  # never the judge
    "minisd": {"pipeline", "data"},
    "extensions": LEAVES | {"audio", "call", "checkpoint", "pipeline", "training"},
    "suites": LEAVES
    | {"call", "checkpoint", "edit", "evaluation", "extensions", "pipeline", "training"},
    "commands": LEAVES
    | {
        "checkpoint",
        "film",
        "pipeline",
        "plots",
        "pretrained",
        "evaluation",
        "suites",
        "training",
        "extensions",
        "minisd",
    },
    "__main__": LEAVES | {"commands", "pretrained", "evaluation", "suites", "training"},
}
# Nothing but __main__ imports commands, and nothing imports __main__.

# Nobody in minisd imports these: the libraries we are tested against, the tools around us, and
# pickle (a file of weights must not be able to run code).
FORBIDDEN = {
    "diffusers", "transformers", "open_clip", "torchvision", "accelerate",
    "nbgrader", "nbval", "jupyter", "pytest",
    "pickle", "_pickle", "cPickle", "cloudpickle", "dill",
}  # fmt: skip


def module_name(file):
    """`models/unet.py` (relative to minisd/) -> `models.unet`; `models/__init__.py` -> `models`."""
    parts = Path(file).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(source, file):
    """Yields (line, absolute dotted name) for each import; `from a import b` gives `a.b`."""
    package = ["minisd", *Path(file).parts[:-1]]  # what one leading dot stands for
    for node in ast.walk(ast.parse(source, file)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            base = base + (node.module.split(".") if node.module else [])
            for alias in node.names:
                yield node.lineno, ".".join([*base, alias.name])
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            function = getattr(node.func, "attr", getattr(node.func, "id", None))
            if function in ("import_module", "__import__"):
                name = str(node.args[0].value)
                yield node.lineno, "minisd" + name if name.startswith(".") else name


def part_of(name):
    """`minisd.models.unet.UNet` -> `models`; `minisd` or `minisd.StableDiffusion` -> `minisd`."""
    _, _, rest = name.partition(".")
    part = rest.split(".")[0]
    here = part and ((PACKAGE / part).is_dir() or (PACKAGE / f"{part}.py").is_file())
    return part if here or part in MAY_IMPORT else "minisd"


def violations(source, file):
    """What is wrong with the imports of `file` (relative to minisd/), one readable line each."""
    module = module_name(file)
    own = module.split(".")[0] or "minisd"
    row = module if module in MAY_IMPORT else own
    if row not in MAY_IMPORT:
        return [f"minisd/{file}: `{row}` has no line in MAY_IMPORT; say what it may import"]

    allowed = MAY_IMPORT[row] | ALL | ({own} if row == own else set())
    wrong = []
    for line, name in imported(source, file):
        top = name.split(".")[0]
        if top in FORBIDDEN:
            wrong.append(f"minisd/{file}:{line}: imports `{name}`; minisd never imports `{top}`")
        elif top == "minisd" and part_of(name) not in allowed:
            may = ", ".join(sorted(allowed - ALL - {row})) or "no other part of minisd"
            wrong.append(f"minisd/{file}:{line}: imports `{name}`; `{row}` may import only: {may}")
    return wrong


FILES = sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("file", FILES)
def test_imports_follow_the_table(file):
    wrong = violations((PACKAGE / file).read_text(encoding="utf-8"), file)
    assert not wrong, "\n" + "\n".join(wrong)


EXTENSIONS = [file for file in FILES if file.startswith("extensions/") and "__" not in file]


@pytest.mark.parametrize("file", EXTENSIONS)
def test_no_extension_imports_another(file):
    source = (PACKAGE / file).read_text(encoding="utf-8")
    others = {f"minisd.{module_name(f)}." for f in EXTENSIONS}
    names = [f"{name}." for _, name in imported(source, file)]
    assert not [name for name in names if any(map(name.startswith, others))]


def test_an_extension_can_be_deleted(tmp_path):
    """With its suite. The rest is imported, and the command no longer offers it."""
    for name in [path.stem for path in (PACKAGE / "extensions").glob("[!_]*.py")]:
        copy = shutil.copytree(PACKAGE, tmp_path / name / "minisd")
        (copy / "extensions" / f"{name}.py").unlink()
        (copy / "suites" / f"{name}.py").unlink(missing_ok=True)
        modules = [f"minisd.{module_name(p.relative_to(copy))}" for p in copy.rglob("[!_]*.py")]
        script = f"import {', '.join(modules)}\nprint(minisd.commands.EXTENSIONS)"
        words = [sys.executable, "-c", script]
        done = subprocess.run(words, cwd=tmp_path / name, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert name.replace("_", "-") not in done.stdout


def test_every_file_in_the_table_is_there():
    """Renaming a part leaves it without a line, which fails; renaming a file must fail as well."""
    files = {name for name in MAY_IMPORT if "." in name}
    missing = files - {module_name(file) for file in FILES}
    assert not missing, f"in MAY_IMPORT, but not in minisd/: {sorted(missing)}"


@pytest.mark.parametrize(
    ("file", "source", "culprit"),
    [
        ("models/unet.py", "from minisd.diffusion import schedule", "minisd.diffusion.schedule"),
        ("models/unet.py", "from ..diffusion.schedule import add", "minisd.diffusion.schedule.add"),
        ("models/unet.py", "from .. import data", "minisd.data"),
        ("models/__init__.py", "from ..tokenizer import Tokenizer", "minisd.tokenizer.Tokenizer"),
        ("models/unet.py", "import minisd", "minisd"),
        ("diffusion/samplers.py", "import minisd.models.unet as unet", "minisd.models.unet"),
        ("data/scenes.py", "def f():\n    from minisd import tokenizer", "minisd.tokenizer"),
        ("tokenizer.py", "from .data import scenes", "minisd.data.scenes"),
        ("checkpoint/files.py", "from .. import diffusion", "minisd.diffusion"),
        ("pipeline.py", "from .training.loop import train", "minisd.training.loop.train"),
        ("pipeline.py", "from . import plots", "minisd.plots"),
        ("plots.py", "from .models.unet import UNet", "minisd.models.unet.UNet"),
        ("evaluation/metrics.py", "from ..training import loop", "minisd.training.loop"),
        ("evaluation/metrics.py", "from .. import plots", "minisd.plots"),
        ("evaluation/judge.py", "from ..models.clip import CLIP", "minisd.models.clip.CLIP"),
        ("evaluation/judge.py", "from .metrics import psnr", "minisd.evaluation.metrics.psnr"),
        ("evaluation/judge.py", "from minisd import StableDiffusion", "minisd.StableDiffusion"),
        ("training/stages.py", "from minisd.__main__ import main", "minisd.__main__.main"),
        ("training/stages.py", "import minisd.__main__", "minisd.__main__"),
        ("training/stages.py", "from .. import commands", "minisd.commands"),
        ("training/stages.py", "from ..evaluation import Judge", "minisd.evaluation.Judge"),
        ("__init__.py", "from .training import stages", "minisd.training.stages"),
        ("checkpoint/files.py", "import pickle", "pickle"),
        ("checkpoint/configs.py", "from diffusers import UNet2DConditionModel", "diffusers"),
        ("__main__.py", "import json, transformers.models.clip", "transformers.models.clip"),
        ("training/loop.py", "importlib.import_module('torchvision')", "torchvision"),
        ("models/clip.py", "importlib.import_module('.data', 'minisd')", "minisd.data"),
        ("gadgets.py", "import torch", "no line in MAY_IMPORT"),
    ],
)
def test_a_forbidden_import_is_caught(file, source, culprit):
    wrong = violations(source, file)
    assert len(wrong) == 1 and culprit in wrong[0], wrong
    if file != "gadgets.py":
        line = source.count("\n") + 1  # the culprit stands on the last line of each source
        assert wrong[0].startswith(f"minisd/{file}:{line}: imports "), wrong


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("models/unet.py", "import torch\nfrom torch import nn\nfrom .layers import Attention"),
        ("models/unet.py", "from minisd.models.layers import Attention\nfrom . import layers"),
        ("checkpoint/configs.py", "import json\nfrom ..models import clip, unet"),
        ("checkpoint/tokenizers.py", "from ..tokenizer import Tokenizer\nfrom . import files"),
        ("pretrained.py", "from . import checkpoint, models\nfrom .tokenizer import Tokenizer"),
        ("evaluation/judge.py", "from ..data import draw_batch"),
        ("evaluation/metrics.py", "from .judge import Judge\nfrom ..models import clip"),
        (
            "training/stages.py",
            "from ..pipeline import StableDiffusion\nfrom minisd import data, models",
        ),
        ("__init__.py", "from . import data\nfrom .pipeline import StableDiffusion"),
        ("commands.py", "from . import StableDiffusion, plots\nfrom .training import stages"),
        ("__main__.py", "from . import commands, data\nfrom .errors import InputError"),
        ("data/scenes.py", "import picklejar  # forbidden names are whole names"),
    ],
)
def test_an_allowed_import_passes(file, source):
    assert violations(source, file) == []
