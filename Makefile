# Everything a person or the CI runs. `make` alone lists the targets.
#
#   make test PYTHON=python3.11            another interpreter for the virtual environment
#   make test VENV=/some/venv              another place for it
#   make test VENV=/some/venv SKIP_INSTALL=1   use it as it stands, and install nothing
#   make test PYTEST_ARGS="-k space"       more arguments for pytest
#   make slow SLOW="tests/execution"       the slow tests of some folders

PYTHON ?= python3
VENV ?= .venv
SKIP_INSTALL ?=
PYTEST_ARGS ?=

RUN := $(VENV)/bin/python

export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help install demo fast test test-device slow coverage test-oldest benchmark strategies lint style types format clean

# A stamp says what is installed, and for which checkout. It is redone when pyproject.toml or constraints.txt is newer;
# a folder that was moved, or an interpreter that is gone, voids it.
ifeq ($(SKIP_INSTALL),)
DEMO_READY := $(VENV)/.ready-demo
DEV_READY := $(VENV)/.ready-dev
installed_for := $(shell $(RUN) -c 'import pip; print(open("$(DEMO_READY)").read())' 2>/dev/null)
ifneq ($(installed_for),$(CURDIR))
$(shell rm -f $(DEMO_READY) $(DEV_READY))
endif
else
export PYTHONPATH := $(CURDIR)
endif

help:
	@echo "make demo       install what the demo needs and run examples/digits.py"
	@echo "make fast       the tests of the inner loop: under 3 minutes on 2 cores"
	@echo "make test       the tests, and the doctests of the package: under 6 minutes on 2 cores"
	@echo "make slow       what takes longer than that"
	@echo "make coverage   the tests, and which lines and branches they reach"
	@echo "make test-device  one-shot search, evaluators and the zoo on a CUDA device; without one on a stand-in"
	@echo "make test-oldest  the tests of the core on the oldest versions that pyproject.toml allows"
	@echo "make benchmark  framework time, as ratios within one run"
	@echo "make strategies how well the strategies search: docs/benchmark"
	@echo "make lint       ruff, and mypy over every file"
	@echo "make format     let ruff mend what it can"
	@echo "make install    the development environment alone, in $(VENV)"
	@echo "make clean      remove the environment and the caches (never your experiments)"

define install
	@$(RUN) -c 'import pip' 2>/dev/null || $(PYTHON) -m venv --clear $(VENV)
	$(RUN) -m pip install -c constraints.txt $(1)
endef

$(VENV)/.ready-demo: pyproject.toml constraints.txt
	$(call install,-e . scikit-learn onnxruntime)
	@printf '%s\n' '$(CURDIR)' > $@

$(VENV)/.ready-dev: pyproject.toml constraints.txt
	$(call install,-e ".[dev]")
	@printf '%s\n' '$(CURDIR)' | tee $(DEMO_READY) > $@

install: $(DEV_READY)

demo: $(DEMO_READY)
	$(RUN) examples/digits.py

# One thread per worker, and a worker more than there are cores: tests of processes wait much of their time.
WORKERS ?= $(shell expr $$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2) + 1)
fast test slow coverage: export OMP_NUM_THREADS ?= 1
TESTS := $(RUN) -m pytest -n $(WORKERS) --dist worksteal tests --doctest-modules nas

fast: $(DEV_READY)
	$(TESTS) -m "not slow and not long" $(PYTEST_ARGS)

test: $(DEV_READY)
	$(TESTS) $(PYTEST_ARGS)

# One-shot search, evaluators and the zoo on a CUDA device; without one, whole searches on a stand-in for it.
HAS_CUDA := $(RUN) -c "import sys, torch; sys.exit(not torch.cuda.is_available())"
SPREAD := -n $(WORKERS) --dist worksteal $(PYTEST_ARGS)
ON_STAND_IN := There is no CUDA device here: searches run on a stand-in, which shows what a move leaves behind, and no speed.

test-device: export OMP_NUM_THREADS ?= 1
test-device: $(DEV_READY)
	@if $(HAS_CUDA); then set -ex; export NAS_TEST_DEVICE=cuda; \
	  $(RUN) -m pytest tests/oneshot tests/evaluators tests/model_zoo $(SPREAD); \
	  $(RUN) -m pytest -m slow tests/oneshot/test_second_device.py tests/oneshot/speed tests/_compat/test_compiler.py $(SPREAD); \
	else set -e; echo "$(ON_STAND_IN)"; \
	  $(RUN) -m pytest -m "slow or not slow" tests/oneshot/test_second_device.py $(SPREAD); fi

SLOW ?= tests

slow: $(DEV_READY)
	$(RUN) -m pytest -m slow $(SLOW) $(PYTEST_ARGS)

coverage: $(DEV_READY)
	$(TESTS) --cov $(PYTEST_ARGS)

# In an environment of its own, about 6 GB. Old libraries warn of themselves, so there warnings are no errors.
CORE := _compat domains space protocols execution records search profile export strategies evaluators
OLDEST := .venv-oldest

test-oldest: export OMP_NUM_THREADS ?= 1
test-oldest:
	@$(OLDEST)/bin/python -c 'import pip' 2>/dev/null || $(PYTHON) -m venv --clear $(OLDEST)
	$(OLDEST)/bin/python -m pip install -c constraints-oldest.txt -e ".[dev]"
	$(OLDEST)/bin/python -m pytest -n auto --dist worksteal -W default $(addprefix tests/,$(CORE)) $(PYTEST_ARGS)

benchmark: $(DEV_READY)
	$(RUN) -m pytest tests/benchmarks --benchmark-only $(PYTEST_ARGS)

# Resumable; --gp plays Optuna's Gaussian process too, which takes an hour more.
strategies: $(DEV_READY)
	$(RUN) docs/benchmark/strategies.py --gp

lint: style types

style: $(DEV_READY)
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .

types: $(DEV_READY)
	$(RUN) -m mypy nas
	MYPYPATH=.:docs/benchmark $(RUN) -m mypy examples
	MYPYPATH=.:docs/benchmark:docs $(RUN) -m mypy docs

format: $(DEV_READY)
	$(RUN) -m ruff check --fix .
	$(RUN) -m ruff format .

clean:
	rm -rf .venv $(OLDEST) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .benchmarks .coverage .coverage.*
	find nas tests examples docs -name __pycache__ -type d -prune -exec rm -rf {} +
