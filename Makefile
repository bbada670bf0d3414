# make demo        set up and run the main job on embedded data
# make test        set up and run the fast tests;  make test-all: the slow ones too
# make lint        ruff, snakefmt, mypy, import-linter, snakemake --lint;  make lint-slow: docs, too
# make gate        train configs/ci.yaml anew and compare with the committed references
# make gate-reference  make new references from 10 seeds, and print what changed
# make study SHARD=1/4  train one part of configs/omniglot_study.yaml and commit its records
# make plan        measure here what configs/paper.yaml costs, and write it into docs/hardware.md
# make benchmark   compare the engine's speed with other libraries (on an idle machine)
# make docs        build the documentation as a site, site/index.html; a dead link is an error
# make traces      (re)generate the golden traces of new or changed methods
# TORCH_INDEX=URL  take torch from this index (the CPU wheels are 0.7 GB instead of 5.5 GB)
# ARGS=WORDS       further arguments for pytest or the benchmark
SHELL := /bin/bash
VENV ?= .venv
ifneq ($(words $(value VENV)),1)
$(error VENV is "$(value VENV)", and make cannot take a folder whose name has a space: name \
another. The path of the clone may have some)
endif
BIN := $(VENV)/bin
ifndef PYTHON
PYTHON := $(shell for p in python3.11 python3.12 python3.13 python3 python; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' 2>/dev/null \
	&& echo $$p && break; done)
endif
CORES ?= all
# $(call q,NAME) is the value of the variable NAME, quoted as one word of the shell.
q = '$(subst ','\'',$(value $1))'
# Modules are run by name. A script in $(BIN) has the path of its Python in its first line, where
# some paths do not work.
RUN := $(call q,BIN)/python -m
# A test process has one thread. Two processes with one thread are faster than one process with two,
# and the results do not depend on the machine.
# Python keeps what it has compiled: the tests start some hundred processes.
TEST_ENV := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE=
# A process takes a row of tests, so what the tests of a file share is mostly made once; a process
# that is done takes over some of the other's.
PYTEST := pytest -n 2 --dist worksteal

.PHONY: setup demo test test-slow test-gpu test-all gate gate-reference study plan benchmark lint \
	lint-slow format docs traces clean
setup: $(VENV)/.ready

NEEDS_PYTHON = @[ -n $(call q,PYTHON) ] || { echo "error: Python 3.11, 3.12 or 3.13 is needed;" \
	"none found on PATH. Set PYTHON=/path/to/python3.11"; exit 1; }
$(VENV)/.ready: requirements.txt pyproject.toml
	$(NEEDS_PYTHON)
	@echo setting up $(call q,VENV) "with $$($(call q,PYTHON) --version)" \
		"(torch with CUDA: 5.5 GB; see TORCH_INDEX)"
	$(call q,PYTHON) -m venv $(call q,VENV)
	$(if $(value TORCH_INDEX),$(RUN) pip install --quiet \
		$$(grep -E '^torch(vision)?==' requirements.txt) --index-url=$(call q,TORCH_INDEX))
	$(RUN) pip install --quiet -r requirements.txt
	$(RUN) pip install --quiet --no-deps --editable .
	@touch $(call q,@)

demo: setup
	$(RUN) snakemake --cores=$(call q,CORES) --configfile configs/demo.yaml

test: setup
	$(TEST_ENV) $(RUN) $(PYTEST) -m "not slow and not gpu" $(ARGS)

test-slow: setup
	$(TEST_ENV) $(RUN) $(PYTEST) -m "slow and not gpu" $(ARGS)

test-all: test test-slow

# This needs a GPU.
test-gpu: setup
	$(TEST_ENV) $(RUN) pytest -m gpu $(ARGS)

# The gate starts from an empty folder, since finished runs are never trained again.
# If a training fails, the check still runs and lists its cells as offenders.
gate: setup
	rm -rf results/gate
	failed=0; $(RUN) snakemake --cores=$(call q,CORES) \
		--configfile configs/ci.yaml --config results=results/gate || failed=1; \
		$(RUN) cml_bench check --results results/gate && exit $$failed

gate-reference: setup
	rm -rf results/gate
	$(RUN) snakemake --cores=$(call q,CORES) --configfile configs/ci.yaml \
		--config results=results/gate seeds=10
	$(RUN) cml_bench check --results results/gate --seeds 10 --update

# One sitting of a study that takes hours: trains part i of n and commits its records. LOCAL is a
# further configuration file, for example with your own copies of the data. After the last part:
# python -m cml_bench publish --config $(STUDY)
STUDY ?= configs/omniglot_study.yaml
SHARD ?= 1/4
study: setup
	$(RUN) snakemake --cores=$(call q,CORES) \
		--configfile $(call q,STUDY) $(if $(value LOCAL),$(call q,LOCAL)) \
		--config shard=$(call q,SHARD) -- trained
	$(RUN) cml_bench publish --partial --config=$(call q,STUDY)
	git add results/reference
	git commit --quiet --message "Records of "$(call q,STUDY)", part "$(call q,SHARD) \
		-- results/reference

# Measures here what the full grid costs, and writes it into docs/hardware.md.
PLAN := results/reference/paper_plan.txt
plan: setup
	$(RUN) cml_bench plan --config configs/paper.yaml > $(call q,PLAN).tmp \
		&& mv -- $(call q,PLAN).tmp $(call q,PLAN)
	$(call q,BIN)/python -c "from cml_bench.report import publish; publish.show_plan()"

# The other libraries have an environment of their own on top of this one. Those that cannot be
# installed are reported as missing.
PEERS := .venv-peers
benchmark: setup $(PEERS)/installed.json
	$(RUN) benchmarks run $(ARGS)
	$(RUN) benchmarks show --page

$(PEERS)/installed.json: $(VENV)/.ready benchmarks/peers/requirements.txt \
		benchmarks/peers/install.py
	$(call q,BIN)/python benchmarks/peers/install.py $(call q,PEERS)

lint: setup
	$(RUN) ruff check .
	$(RUN) ruff format --check .
	$(RUN) snakefmt --check Snakefile workflow
	$(RUN) mypy
	$(call q,BIN)/python -c 'from importlinter.cli import lint_imports_command as lint; lint()' \
		--no-cache
	$(RUN) snakemake --lint

# Its slow part needs an environment of its own, .venv-docs.
lint-slow: lint docs

format: setup
	$(RUN) ruff check --fix .
	$(RUN) ruff format .
	$(RUN) snakefmt Snakefile workflow

# The site needs no torch, so it has an environment of its own. ARGS: options of mkdocs build.
DOCS := .venv-docs
docs: $(DOCS)/.ready
	NO_MKDOCS_2_WARNING=1 $(call q,DOCS)/bin/python -m mkdocs build --strict $(ARGS)

$(DOCS)/.ready: requirements-docs.txt
	$(NEEDS_PYTHON)
	$(call q,PYTHON) -m venv $(call q,DOCS)
	$(call q,DOCS)/bin/python -m pip install --quiet -r requirements-docs.txt
	@touch $(call q,@)

traces: setup
	$(TEST_ENV) $(RUN) tests.make_traces

clean:
	rm -rf results/demo results/gate results/plans results/done .pytest_cache .ruff_cache .hypothesis
