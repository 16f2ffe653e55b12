# The commands of the book. Each one sets up what it needs; `make help` lists them.

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

VENV := .venv
INSTALLED := $(VENV)/.installed
# Commands that a command starts (a kernel, ruff) come from the environment too.
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
# One thread a process: sums of floats depend on the number of threads, and two notebooks run at a time.
export OMP_NUM_THREADS := 1
export MKL_NUM_THREADS := 1
export OPENBLAS_NUM_THREADS := 1

SITE := _build/html
SOURCES := _toc.yml $(wildcard chapters/*.ipynb) $(wildcard chapters/*.bib) lib/book/site.py \
	$(shell find chapters/_static -type f 2>/dev/null)
SITE_TESTS := lib/tests/test_site.py
SITE_TESTED := _build/site-tested
RUFF := ruff --config lib/pyproject.toml
PORT ?= 8000

.PHONY: help
help: ## list the commands
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

$(INSTALLED): requirements.txt lib/pyproject.toml
	@if [ ! -x $(VENV)/bin/python ]; then \
		for python in python3.11 python3 python3.12 python3.13 ""; do \
			if [ -z "$$python" ]; then \
				echo "The book needs Python 3.11, 3.12 or 3.13, and none of them was found (python3 is: $$(python3 --version 2>&1))." >&2; \
				exit 1; \
			fi; \
			if $$python -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; then break; fi; \
		done; \
		echo "creating $(VENV) with $$($$python --version)"; \
		$$python -m venv $(VENV); \
	fi
	@echo "installing requirements.txt into $(VENV) (minutes the first time)"
	@$(VENV)/bin/python -m pip install -qq --disable-pip-version-check -r requirements.txt
	@touch $@

.PHONY: book
book: $(SITE)/.finished ## build the website into _build/html
	@echo "the site is in $(SITE): open $(SITE)/index.html, or \`make serve\`"

# Written at each call, but touched only if its content changed.
_build/_config.yml: $(INSTALLED) FORCE
	@python -m book config $@

.PHONY: FORCE
FORCE:

# --all: a page that was read before keeps its warnings to itself, and a second build would pass.
$(SITE)/.finished: _build/_config.yml _config.yml $(SOURCES)
	@echo "building the site from the executed notebooks (nothing is run)"
	@jupyter-book build . --all -W -n --keep-going -q --config _build/_config.yml
	@python -m book finish $(SITE)
	@touch $@

# The chapters on text read a corpus made of the installed packages, and RealFormer one of three of them: half a minute
# the first time, then cached.
.PHONY: corpus
corpus: $(INSTALLED)
	@python -c "from explainers.corpus import load_docstrings; print(load_docstrings())"
	@python -c "from explainers import _realformer_record as record, corpus; corpus.load_docstrings(record.PACKAGES)"

.PHONY: run
run: corpus ## re-execute the chapters that a change reaches (CHAPTER=name for one)
	@python -m book run $(CHAPTER)

.PHONY: test
test: corpus ## style, unit tests, rules of the book, every notebook, the site in a browser
	@failed=""; \
	stage() { printf '\n== %s\n' "$$1"; }; \
	stage "1/4 style, unit tests, rules of the book"; \
	$(RUFF) check --quiet lib chapters && $(RUFF) format --quiet --check lib || failed+=" style"; \
	python -m pytest -q -n 2 --doctest-modules lib/explainers lib/book lib/tests --ignore=$(SITE_TESTS) || failed+=" tests"; \
	stage "2/4 notebooks: run each again, compare every output"; \
	python -m book validate || failed+=" notebooks"; \
	stage "3/4 the site"; \
	if $(MAKE) book; then \
		stage "4/4 the site in a browser"; \
		$(MAKE) $(SITE_TESTED) || failed+=" browser"; \
	else \
		failed+=" site"; \
	fi; \
	if [ -n "$$failed" ]; then printf '\nFAILED:%s\n' "$$failed"; exit 1; fi; \
	printf '\neverything passed\n'

# Done once for each site; a site that was built again is tested again.
$(SITE_TESTED): $(SITE)/.finished $(SITE_TESTS)
	@if command -v chromium chromium-browser google-chrome >/dev/null; then \
		python -m pytest -q -n 2 $(SITE_TESTS) && touch $@; \
	else \
		echo "skipped: no Chromium found; get one with: apt-get install chromium, or: $(VENV)/bin/playwright install chromium"; \
	fi

.PHONY: check
check: $(INSTALLED) ## style and the rules of the book, in seconds, without running anything
	@status=0; \
	$(RUFF) check lib chapters || status=1; \
	$(RUFF) format --check lib || status=1; \
	python -m book check || status=1; \
	exit $$status

.PHONY: doctor
doctor: $(INSTALLED) ## run a chapter here and say what differs from its stored outputs (CHAPTER=name)
	@test -n "$(CHAPTER)" || { echo "say which: make doctor CHAPTER=mitchell"; exit 2; }
	@python -m book doctor $(CHAPTER)

.PHONY: bench
bench: corpus ## time each core routine beside a peer
	@python -m pip install -qq --disable-pip-version-check -r lib/benchmarks/requirements.txt
	@for benchmark in lib/benchmarks/bench_*.py; do echo "== $$benchmark"; python "$$benchmark"; done

.PHONY: mutate
mutate: corpus ## break library, formulas and text on purpose and count what is caught (MODULE=mitchell: only that module; long)
	@PYTHONPATH=lib python -m mutate library $(MODULE)
	@if [ -z "$(MODULE)" ]; then PYTHONPATH=lib python -m mutate derivations; PYTHONPATH=lib python -m mutate text; fi

.PHONY: lab
lab: corpus ## open the chapters in JupyterLab, their .md files as notebooks
	@mkdir -p $(VENV)/share/jupyter/lab/settings
	@echo '{"@jupyterlab/docmanager-extension:plugin": {"defaultViewers": {"markdown": "Jupytext Notebook", "myst": "Jupytext Notebook"}}}' \
		> $(VENV)/share/jupyter/lab/settings/overrides.json
	@jupyter lab chapters

.PHONY: pdf
pdf: book ## print the whole book into _build/executable-explainers.pdf (needs a Chromium)
	@python -m book pdf $(SITE) _build/executable-explainers.pdf

.PHONY: serve
serve: book ## show the site on localhost (PORT=8000)
	@echo "http://localhost:$(PORT) (stop with Ctrl+C)"
	@python -m http.server $(PORT) --bind 127.0.0.1 --directory $(SITE)

.PHONY: clean
clean: ## remove the site and all caches
	@rm -rf _build .ruff_cache lib/.ruff_cache .pytest_cache lib/.pytest_cache lib/build
	@find lib chapters \( -name __pycache__ -o -name .ipynb_checkpoints \) -prune -exec rm -rf {} +

.PHONY: distclean
distclean: clean ## remove the environment too
	@rm -rf $(VENV)
