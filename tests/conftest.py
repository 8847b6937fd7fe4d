"""What all tests share: quiet, offline, one thread each, here and in the notebooks' kernels."""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

# In the environment, where the notebooks' kernels find it; before torch, which reads it once.
os.environ.setdefault("OMP_NUM_THREADS", "1")  # two threads on a busy machine are slower than one
os.environ.setdefault("TQDM_DISABLE", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

# A kernel starts in notebooks/, where `import minisd` needs to be told the way.
PATHS = [str(ROOT), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(filter(None, PATHS)))

import pytest  # noqa: E402
import torch  # noqa: E402

torch.set_num_threads(1)

# Outputs of a notebook that are never compared: pictures (asserted on instead), progress bars.
NOT_COMPARED = ("stderr", "text/html", "image/svg+xml")


def pytest_collection_modifyitems(items):
    for item in items:
        if hasattr(item, "output_timeout"):  # a notebook's cell, as nbval makes it
            item.output_timeout = 60  # seconds for its last output to arrive; nbval says 5
            item.parent.skip_compare = tuple({*item.parent.skip_compare, *NOT_COMPARED})


@pytest.fixture(scope="session")
def tiny_pipe():
    """An untrained StableDiffusion, tiny, with our own tokenizer. Not to be changed."""
    from tests.helpers import make_tiny_pipe

    return make_tiny_pipe()


@pytest.fixture(scope="session")
def tiny_weights(tiny_pipe, tmp_path_factory):
    """The directory of that pipeline, as `save_pretrained` writes it. Not to be changed."""
    directory = tmp_path_factory.mktemp("weights") / "tiny"
    tiny_pipe.save_pretrained(directory)
    return directory
