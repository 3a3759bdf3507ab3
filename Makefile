# make demo    environment, small training on drawn scenes, results in demo/
# make test    environment with what tests need, checks, pages, pytest
# PYTHON=python3.12 chooses the Python that .venv is made with (3.10 or newer).
PYTHON ?= python3
VENV   ?= .venv
PY     := $(VENV)/bin/python
PIP    := $(PY) -m pip install --quiet --no-input --disable-pip-version-check
STATED := settings.ini setup.py pyproject.toml

# One thread per page and test: several run beside each other. Nothing is downloaded while testing.
QUIET  := NO_ALBUMENTATIONS_UPDATE=1
TESTED := $(QUIET) OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1

# A folder that was moved or copied would go on running the package of its old place: its set-up is done again
$(shell [ "$$(cat $(VENV)/.python 2>&1)" = '$(CURDIR)' ] || rm -f $(VENV)/.python $(VENV)/.installed $(VENV)/.developed)

.PHONY: help demo test check pages pytest export readme docs clean
.DEFAULT_GOAL := help

help:
	@echo 'make demo     set up .venv, train a small network on drawn scenes, leave the results in demo/'
	@echo 'make test     set up .venv for development, then run every check, page and test'
	@echo 'make export   pages -> drone_seg/'
	@echo 'make readme   nbs/index.ipynb -> README.md'
	@echo 'make docs     pages -> _docs/, the documentation site'
	@echo 'make clean    remove what was built; .venv, demo/ and runs/ stay'

# Set-up: stamps in .venv, made again only after a change in what they were made from
$(VENV)/.python:
	@$(PY) -m pip --version >/dev/null 2>&1 || { \
	  $(PYTHON) -c 'import sys; sys.exit(sys.version_info<(3,10))' || \
	  { echo "drone_seg needs Python 3.10 or newer, and '$(PYTHON)' is not; name one: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }; \
	  echo "Making $(VENV) with $$($(PYTHON) --version)" && $(PYTHON) -m venv --clear $(VENV); }
	@echo '$(CURDIR)' > $@

$(VENV)/.installed: $(STATED) | $(VENV)/.python
	@echo 'Installing drone_seg into $(VENV): the first time some minutes, 3 GB to fetch and 7 GB on disk with the usual torch'
	@$(PIP) -e '.[offline]'
	@touch $@

$(VENV)/.developed: $(STATED) | $(VENV)/.python
	@echo 'Installing drone_seg and what its tests need into $(VENV): the first time some minutes, 3 GB to fetch and 7 GB on disk with the usual torch'
	@$(PIP) -e '.[offline,dev]'
	@touch $(VENV)/.installed $@

demo: $(VENV)/.installed
	@$(QUIET) $(PY) $(VENV)/bin/drone_seg demo --out demo

# One after the other, also under make -j; pytest comes last, as its last line is the count
test: $(VENV)/.developed
	@$(MAKE) --no-print-directory check
	@$(MAKE) --no-print-directory pages
	@$(MAKE) --no-print-directory pytest

check: $(VENV)/.developed
	@$(PY) .ci/readme.py --check
	@$(PY) .ci/exports.py
	@$(PY) .ci/links.py

# Their processes end without tidying up: what they leave goes with a temporary folder made for this run
pages: $(VENV)/.developed
	@echo 'Running the pages'
	@TMPDIR=$$(mktemp -d) && export TMPDIR && trap 'rm -rf "$$TMPDIR"' EXIT && \
	  $(TESTED) $(PY) .ci/pages.py --n-workers 2 --do-print --timing

pytest: $(VENV)/.developed
	@$(TESTED) $(PY) -m pytest -n 2 --dist worksteal

export: $(VENV)/.developed
	@$(PY) $(VENV)/bin/nbdev-export
	@$(PY) $(VENV)/bin/nbdev-clean

readme: $(VENV)/.developed
	@$(PY) .ci/readme.py

docs: $(VENV)/.developed
	@$(QUIET) $(PY) .ci/docs.py

clean:
	rm -rf build dist _docs _proc *.egg-info .pytest_cache
	find drone_seg nbs tests -name __pycache__ -type d -prune -exec rm -rf {} +
