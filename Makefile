# make demo        set up and run the main job on embedded data
# make test        set up and run the fast tests;  make test-all: the slow ones too
# make lint        ruff, snakefmt, snakemake --lint
# make gate        train configs/ci.yaml anew and compare with the committed references
# make gate-reference  make new references from 10 seeds, and print what moved
# make study SHARD=1/4  one sitting of configs/omniglot_study.yaml, with a commit of its records
# make plan        what configs/paper.yaml costs, measured on this machine, into docs/hardware.md
# make benchmark   the engine's speed beside other libraries, into benchmarks/ (leave the machine idle)
# make traces      (re)generate the golden traces of new or changed methods
# TORCH_INDEX=URL  take torch from this index (the CPU wheels are 0.7 GB instead of 5.5 GB)
SHELL := /bin/bash
VENV ?= .venv
BIN := $(VENV)/bin
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3 python; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' 2>/dev/null && echo $$p && break; done)
CORES ?= all
export PATH := $(CURDIR)/$(BIN):$(PATH)
# A test process has one thread: two processes of one beat one process of two, and results do not depend on the machine.
TEST_ENV := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1

.PHONY: setup demo test test-slow test-gpu test-all gate gate-reference study plan benchmark lint format traces clean
setup: $(VENV)/.ready

$(VENV)/.ready: requirements.txt pyproject.toml
	@[ -n "$(PYTHON)" ] || { echo "error: Python 3.11, 3.12 or 3.13 is needed; none found on PATH. Set PYTHON=/path/to/python3.11"; exit 1; }
	@echo "setting up $(VENV) with $$($(PYTHON) --version) (torch with CUDA: 5.5 GB; see TORCH_INDEX)"
	$(PYTHON) -m venv $(VENV)
	$(if $(TORCH_INDEX),$(BIN)/pip install --quiet $$(grep -E '^torch(vision)?==' requirements.txt) --index-url $(TORCH_INDEX))
	$(BIN)/pip install --quiet -r requirements.txt
	$(BIN)/pip install --quiet --no-deps --editable .
	@touch $@

demo: setup
	snakemake --cores $(CORES) --configfile configs/demo.yaml

test: setup
	$(TEST_ENV) pytest -n 2 -m "not slow and not gpu" $(ARGS)

test-slow: setup
	$(TEST_ENV) pytest -n 2 -m "slow and not gpu" $(ARGS)

test-all: test test-slow

# Where a GPU is.
test-gpu: setup
	$(TEST_ENV) pytest -m gpu $(ARGS)

# Finished runs are never trained again, so the gate starts from an empty folder.
# When a training fails, the check still runs and lists its cells as offenders.
gate: setup
	rm -rf results/gate
	failed=0; snakemake --quiet all --cores $(CORES) --configfile configs/ci.yaml --config results=results/gate \
		|| failed=1; python -m cml_bench check --results results/gate && exit $$failed

gate-reference: setup
	rm -rf results/gate
	snakemake --quiet all --cores $(CORES) --configfile configs/ci.yaml --config results=results/gate seeds=10
	python -m cml_bench check --results results/gate --seeds 10 --update

# One sitting of a study that takes hours: part i of n, and a commit of its records. LOCAL: a further configuration
# file, say with your own copies of the data. After the last part: python -m cml_bench publish --config $(STUDY)
STUDY ?= configs/omniglot_study.yaml
SHARD ?= 1/4
study: setup
	snakemake --cores $(CORES) --configfile $(STUDY) $(LOCAL) --config shard=$(SHARD) -- trained
	python -m cml_bench publish --partial --config $(STUDY)
	git add results/reference
	git commit --quiet --message "Records of $(STUDY), part $(SHARD)" -- results/reference

# What the full grid costs, measured here, into docs/hardware.md.
PLAN := results/reference/paper_plan.txt
plan: setup
	python -m cml_bench plan --config configs/paper.yaml > $(PLAN).tmp && mv $(PLAN).tmp $(PLAN)
	python -c "from cml_bench import publish; publish.show_plan()"

# The peers have an environment of their own on top of this one; what cannot be installed is reported as missing.
PEERS := .venv-peers
benchmark: setup $(PEERS)/installed.json
	python -m benchmarks run $(ARGS)
	python -m benchmarks show --page

$(PEERS)/installed.json: benchmarks/peers/requirements.txt benchmarks/peers/install.py $(VENV)/.ready
	python benchmarks/peers/install.py $(PEERS)

lint: setup
	ruff check .
	ruff format --check .
	snakefmt --check Snakefile workflow
	snakemake --lint

format: setup
	ruff check --fix .
	ruff format .
	snakefmt Snakefile workflow

traces: setup
	$(TEST_ENV) python -m tests.make_traces

clean:
	rm -rf results/demo results/gate results/plans results/done .pytest_cache .ruff_cache .hypothesis
