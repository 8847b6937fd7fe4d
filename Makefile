# Everything a fresh machine needs comes from here: each target first makes .venv, once, with the pinned
# requirements. On Windows, see INSTALL.md for the same in plain pip.
PYTHON ?= python3
VENV ?= .venv
ARGS ?=
PY := $(VENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check install
PROMPTS := "a large red seven at the top left" "a small cyan three at the bottom right" \
	"a large purple eight in the center" "a small yellow two at the top right"

RUN := $(PY) -m minisd
# Training in several processes: one for every GPU; without any two, which share the cores.
PROCESSES ?= $$($(PY) -c "import torch; print(torch.cuda.device_count() or 2 - torch.backends.mps.is_available())")

.PHONY: help demo train judge lab notebooks test lint clean

help:  ## this list
	@echo "minisd: Stable Diffusion in miniature"
	@sed -n 's/^\([a-z]*\):.*## */  make \1|/p' $(firstword $(MAKEFILE_LIST)) | awk -F'|' '{printf "%-16s %s\n", $$1, $$2}'
	@echo 'More options: make train ARGS="--out runs/mine --resume"   Another Python: make demo PYTHON=python3.12'

demo: $(VENV)/.ready  ## draw four captions with the shipped weights into demo.png
	$(RUN) sample $(PROMPTS) --out demo.png $(ARGS)

train: $(VENV)/.ready  ## train all three networks from nothing, with two processes
	$(RUN) train --processes $(PROCESSES) $(ARGS)

judge: $(VENV)/.ready  ## train the judge's digit reader anew
	$(PY) -c "from minisd.evaluation import train_judge; train_judge().save()"

lab: $(VENV)/.ready  ## open the notebooks
	$(PY) -m jupyter lab notebooks $(ARGS)

notebooks: $(VENV)/.ready-test  ## run every notebook anew and store its outputs
	$(PY) notebooks/refresh.py $(ARGS)

test: lint  ## lint, then every test and every notebook
	OMP_NUM_THREADS=1 $(PY) -m pytest -n 2 --dist loadscope $(ARGS)

lint: $(VENV)/.ready-test  ## style and format only
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

clean:  ## remove .venv, caches and demo.png; never runs/ or weights
	rm -rf "$(VENV)" .pytest_cache .ruff_cache build minisd.egg-info demo.png
	find minisd tests notebooks benchmarks -name __pycache__ -o -name .ipynb_checkpoints 2>/dev/null | xargs rm -rf

# A stamp is written last, so an installation that was cut short is taken up again. A .venv that is already
# there is kept, with what it holds: put a torch of your choice (the same version, another build) in first.
$(VENV)/.ready: requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 14))' 2>/dev/null || \
	{ echo "minisd needs Python 3.10 to 3.14, and $(PYTHON) is: $$($(PYTHON) --version 2>&1). Name another one, as in: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@echo "Setting up $(VENV), once; this takes some minutes."
	$(PYTHON) -m venv "$(VENV)"
	$(PIP) -r requirements.txt
	$(PIP) --no-deps -e .
	@touch $@

# open-clip-torch goes in alone: the tests read one file of it, and its dependencies would bring torchvision,
# which has no CPU build to match torch.
$(VENV)/.ready-test: requirements-test.txt $(VENV)/.ready
	$(PIP) -r requirements-test.txt
	$(PIP) --no-deps open-clip-torch==3.3.0
	@touch $@
