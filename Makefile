# Two commands: `make lab` opens the workbench, `make test` checks everything.

# The one place where torch's version is pinned (binder/postBuild uses it through `make torch`).
TORCH_VERSION := 2.13.0
TORCH_CPU_INDEX := https://download.pytorch.org/whl/cpu

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP ?= $(BIN)/python -m pip
NOTEBOOK ?= notebooks/01_first_run.ipynb
LAB_ARGS ?=
DEMO_ARGS ?=
BENCH_ARGS ?=
PYTEST_ARGS ?=
WORKERS ?= 2

export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_ROOT_USER_ACTION := ignore

# Jupyter refuses to serve root unless told.
AS_ROOT := $(if $(filter 0,$(shell id -u)),--allow-root)
# A change to any of these needs another install: the editable install is what builds the front end.
SOURCES := pyproject.toml constraints.txt hatch_build.py \
  $(shell find widgets \( -name node_modules -o -name tests \) -prune -o -type f ! -name '*.tsbuildinfo' -print 2>/dev/null)

.PHONY: help lab test demo lint format bench lock clean torch browser
.DELETE_ON_ERROR:

help:
	@echo "make lab     install and open JupyterLab on the workbench   (LAB_ARGS='--no-browser --port 8889')"
	@echo "make test    install and check everything: lint, unit, contracts, notebooks, browser   (PYTEST_ARGS=...)"
	@echo "make demo    the same training job in a terminal   (DEMO_ARGS='--loss hinge --steps 100')"
	@echo "make lint    formatting, ruff, types, import layers"
	@echo "make format  mend formatting and what ruff can mend"
	@echo "make bench   speed, beside its peers   (BENCH_ARGS=...)"
	@echo "make lock    the newest version of everything that is installed, written to constraints.txt"
	@echo "make clean   remove .venv and everything built"

lab: $(VENV)/.lab
	$(BIN)/jupyter-lab --ServerApp.root_dir='$(CURDIR)' --LabApp.default_url=/lab/tree/$(NOTEBOOK) $(AS_ROOT) $(LAB_ARGS)

demo: $(VENV)/.lab
	$(BIN)/mint-lab demo $(DEMO_ARGS)

# One pytest, so that its last line says how all of it went. A file is one worker's, and files are begun in their order: the
# browser tests come last.
test: $(VENV)/.test browser lint
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder \
	  --nbval --nbval-current-env --nbval-sanitize-with notebooks/nbval_sanitize.cfg $(PYTEST_ARGS)

lint: $(VENV)/.test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/basedpyright
	$(BIN)/lint-imports --no-cache
	$(BIN)/python hatch_build.py run --silent typecheck
	$(BIN)/python hatch_build.py run --silent lint
	$(BIN)/python hatch_build.py run --silent test

format: $(VENV)/.test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.test
	$(BIN)/python -m tests.benchmarks $(BENCH_ARGS)
	$(if $(BENCH_ARGS),,$(BIN)/python -m tests.benchmarks page)

# pip is told to take nothing but these versions, so that what was green stays so.
lock: $(VENV)/.test
	$(PIP) install --quiet --upgrade --upgrade-strategy eager --editable '.[test,lint]' torch==$(TORCH_VERSION)
	$(PIP) freeze --exclude-editable | grep -v '^torch==' > constraints.txt

clean:
	rm -rf $(VENV) .cache dist build mint_lab/labextension mint_lab/ui/static widgets/node_modules .pytest_cache .ruff_cache .hypothesis
	find mint_lab tests -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.lab: $(VENV)/.torch-$(TORCH_VERSION) $(SOURCES)
	$(PIP) install --quiet --constraint constraints.txt --editable '.[notebook]'
	@touch $@

# The test install includes the other one, which is therefore done too.
$(VENV)/.test: $(VENV)/.torch-$(TORCH_VERSION) $(SOURCES)
	$(PIP) install --quiet --constraint constraints.txt --editable '.[test,lint]'
	@touch $(VENV)/.lab $@

$(VENV)/.torch-$(TORCH_VERSION): $(VENV)/.python
	$(MAKE) --no-print-directory torch
	@touch $@

# Torch goes first and alone, so that nothing later pulls its CUDA build (several GB). Without a GPU the small build comes
# from PyTorch's own index when that answers; otherwise the default index decides.
torch:
	@index=; \
	if [ "$$(uname)" != Darwin ] && ! nvidia-smi -L >/dev/null 2>&1; then \
	  $(firstword $(PIP)) -c "import urllib.request as u; u.urlopen('$(TORCH_CPU_INDEX)/torch/', timeout=5).read(64)" \
	    2>/dev/null && index="--index-url $(TORCH_CPU_INDEX)"; \
	fi; \
	echo "torch $(TORCH_VERSION) $$index"; \
	$(PIP) install --quiet $$index torch==$(TORCH_VERSION)

# Where Debian's python3 comes without ensurepip, its pip can still fill the new environment.
$(VENV)/.python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "mint_lab needs Python 3.11 or newer, and $(PYTHON) is $$($(PYTHON) --version 2>&1);" \
	         "say which to use: make PYTHON=/path/to/python3"; exit 1; }
	$(PYTHON) -m venv $(VENV) >/dev/null 2>&1 || \
	  { $(PYTHON) -m venv --without-pip $(VENV) && $(PYTHON) -m pip --quiet --python $(BIN)/python install pip; }
	@touch $@

# The browser tests drive the system's chromium; CHROMIUM=/path names another one.
browser:
	@if [ -n "$$CHROMIUM" ] || command -v chromium >/dev/null; then exit 0; fi; \
	if [ "$$(id -u)" = 0 ]; then as=; \
	elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then as=sudo; \
	else as=none; fi; \
	if [ "$$as" = none ] || ! command -v apt-get >/dev/null; then \
	  echo "make test needs chromium: install it (Debian: sudo apt-get install chromium)," \
	       "or say where it is: make test CHROMIUM=/path/to/chromium"; exit 1; \
	fi; \
	echo "installing chromium for the browser tests"; \
	$$as apt-get update -qq && DEBIAN_FRONTEND=noninteractive $$as apt-get install -y -qq --no-install-recommends chromium
