# `make quickstart` and `make test` do everything on a fresh machine; later runs reuse the environment in .venv.
PYTHON ?= python3
PIP = .venv/bin/pip --disable-pip-version-check --quiet
TEST = OMP_NUM_THREADS=1 .venv/bin/python -m pytest
# These must also pass where a GPU is visible, and then use it. Left out are tests without tensors (readers and ingest, CSV files,
# recipes, study records and reports, texts), of arrays on the CPU alone (other measures, imports and exports of weights), and of
# commands and processes, which have no pretend GPU (the command line, ranks, clusters, docs, notebooks, quickstart). Of the
# rankings, which solve many probes, those with a path of their own are run.
WITH_TENSORS = tests/training tests/pretraining tests/methods tests/models --ignore=tests/models/importing \
  tests/evaluation tests/prediction tests/analysis tests/verification \
  $(addprefix tests/ranking/test_,groups.py multilabel.py contamination.py source_classifier.py) \
  $(addprefix tests/measures/test_,neighbors.py neighborhood.py) tests/export/test_model_card.py tests/cli/test_faults.py \
  $(addprefix tests/data/test_,views.py training_set.py positives.py altered.py intensity.py store_watch.py task_cards.py) \
  $(addprefix tests/test_,features.py front_door.py kept.py numerics.py privacy.py)

.PHONY: quickstart test test-long lint

quickstart: .venv/.ready
	.venv/bin/ssl-transfer quickstart

test: .venv/.ready
	$(TEST) --numprocesses 2 --dist loadfile --no-loadscope-reorder

test-long: .venv/.ready
	$(TEST) -m long
	$(TEST) --pretend-gpu $(WITH_TENSORS) --numprocesses 2 --dist loadfile --no-loadscope-reorder

lint: .venv/.ready
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/pyright --pythonpath .venv/bin/python
	.venv/bin/lint-imports

# An environment of its own: a CPU-only torch that is already on the machine has no torchvision that fits.
.venv/.ready: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("ssl_transfer needs Python 3.10 or newer; found %d.%d. Set PYTHON=…" % sys.version_info[:2] if sys.version_info < (3, 10) else 0)'
	test -x .venv/bin/python || $(PYTHON) -m venv .venv
	@echo "installing into .venv (torch is several GB; a few minutes the first time) …"
	$(PIP) install --upgrade pip
	$(PIP) install torch torchvision
	@.venv/bin/python -c 'import torch, torchvision; torchvision.ops.nms' || \
	  { echo "torch and torchvision in .venv do not fit each other: rm -rf .venv, then run make again" >&2; exit 1; }
	$(PIP) install --editable '.[dev]'
	touch $@
