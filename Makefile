# make book   builds the book            make test   runs every check
# make lab    opens the chapters         make clean  removes what the build made
# make handouts   chapters for a class    make print   the book as one PDF (with Chromium)
# make publish-check  says what a publication still needs; links, colab-check, audit: the weekly checks
.DEFAULT_GOAL := help
.PHONY: help book handouts print test lab format clean distclean links colab-check publish-check lock audit

# The first of these that is Python 3.11 or newer. Choose your own with `make PYTHON=...`.
NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c '$(NEW_ENOUGH)' 2>/dev/null && echo $$p && break; done)
PIP := .venv/bin/python -m pip install --disable-pip-version-check -q

help:
	@sed -n '1,4s/^# //p' Makefile

# Before anything is made or downloaded: is the Python new enough, and is an environment here made with it?
.PHONY: python-check
python-check:
	@test ! -e .venv/bin/python || .venv/bin/python -c '$(NEW_ENOUGH)' || { \
		echo ".venv was made with a Python before 3.11: run make distclean first"; exit 1; }
ifneq ($(filter command environment,$(firstword $(origin PYTHON))),)
	@"$(PYTHON)" -c '$(NEW_ENOUGH)' || { echo "$(PYTHON) is not Python 3.11 or newer"; exit 1; }
	@test ! -e .venv/bin/python || test "$$("$(PYTHON)" -V)" = "$$(.venv/bin/python -V)" || { \
		echo ".venv was made with $$(.venv/bin/python -V), not $$("$(PYTHON)" -V): run make distclean first"; exit 1; }
endif
	@test -e .venv/bin/python || test -n "$(PYTHON)" || { \
		echo "No Python 3.11 or newer was found. Install one, or name it: make book PYTHON=/path/to/python3"; exit 1; }

# LOCKED=1 installs the versions of requirements.lock, and no file whose SHA-256 is not there.
ifdef LOCKED
NEEDS := requirements.lock
PIP_NEEDS := --require-hashes
PIP_OURS := --no-deps --no-build-isolation
else
NEEDS := requirements.txt
endif

.venv/bin/python: | python-check
	"$(PYTHON)" -m venv .venv
.venv/.book: $(NEEDS) pyproject.toml | python-check .venv/bin/python
	@echo "Installing what the book needs (a few minutes the first time) ..."
	$(PIP) $(PIP_NEEDS) -r $(NEEDS)
	$(PIP) $(PIP_OURS) -e .
	@touch $@

.venv/.dev: .venv/.book
	$(PIP) $(PIP_OURS) -e '.[dev]'
	@touch $@

book: .venv/.book
	@.venv/bin/python -u -m book.builder

handouts: .venv/.book
	@.venv/bin/python -m book.builder.handouts

print: .venv/.dev
	@.venv/bin/python -m book.builder.paper

# The book's own checks come after the others: they share the folder _build, and all wait for its pages.
BOOK_CHECKS := tests/test_notebooks.py tests/test_book.py tests/test_try_it.py

test: .venv/.dev
	.venv/bin/python -m ruff check .
	.venv/bin/python -m ruff format --check .
	.venv/bin/python -u -m pytest -n auto --maxprocesses=4 --dist=loadfile $(addprefix --ignore=,$(BOOK_CHECKS))
	.venv/bin/python -u -m pytest -n auto --maxprocesses=2 --dist=worksteal $(BOOK_CHECKS)

lab: .venv/.book
	.venv/bin/jupyter lab --ServerApp.root_dir=. --LabApp.default_url=/lab/tree/notebooks

# Outer links; inner ones are among the tests.
links: .venv/.book
	.venv/bin/jupyter-book build . -q --builder linkcheck

# Chapters opened alone: all where nothing but torch, torchvision and numpy is there, one beside what Colab has.
colab-check: .venv/.dev
	FERLIB_COLAB=bare .venv/bin/python -u -m pytest -s tests/test_colab.py
	FERLIB_COLAB=one .venv/bin/python -u -m pytest -s tests/test_colab.py

publish-check: .venv/.book
	@.venv/bin/python -m book.builder.address --check

# Tools for the list of versions, apart from what the book runs on.
.venv/tools/bin/uv: | .venv/bin/python
	.venv/bin/python -m venv .venv/tools
	.venv/tools/bin/python -m pip install --disable-pip-version-check -q uv pip-audit

lock: .venv/tools/bin/uv
	.venv/tools/bin/uv pip compile -q --universal --python-version 3.11 --extra dev --no-annotate --generate-hashes \
		--custom-compile-command "make lock" -o requirements.lock requirements.txt pyproject.toml

audit: .venv/tools/bin/uv
	.venv/tools/bin/pip-audit -r requirements.lock --no-deps --disable-pip --strict || { \
		echo "NOT PASSED: a known hole is listed above, or a package could not be looked up, and then nothing was audited."; exit 1; }

format: .venv/.dev
	.venv/bin/python -m ruff check --fix .
	.venv/bin/python -m ruff format .

clean:
	rm -rf _build book/static/mathjax book/static/try_it/made .pytest_cache .ruff_cache

distclean: clean
	rm -rf .venv *.egg-info
