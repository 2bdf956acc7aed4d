# make demo   set up .venv and run the main job on real tissue
# make test   set up .venv and run the checks and tests; with WALKS=1 the longest too, as CI does
# make docs   set up what it needs and build the documentation into docs/_build
# All start in seconds once .venv is there. For Linux and macOS; on Windows see docs/install-windows.md.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
IS_NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 10))

.PHONY: demo test docs clean FORCE

demo: $(VENV)/.demo
	"$(BIN)/wsisam-qupath" demo

test: $(VENV)/.dev
	"$(BIN)/python" scripts/check.py $(if $(WALKS),--walks)

docs: $(VENV)/.dev
	"$(BIN)/python" -m sphinx -W docs docs/_build

$(VENV)/.demo: pyproject.toml | $(BIN)/python
	"$(BIN)/python" -m pip install --quiet --disable-pip-version-check --editable ".[demo]"
	@touch "$@"

$(VENV)/.dev: pyproject.toml | $(BIN)/python
	"$(BIN)/python" -m pip install --quiet --disable-pip-version-check --editable ".[dev]"
	@touch "$@"

# Checked each time: an environment of an older Python, or one that was half made, is made again.
$(BIN)/python: FORCE
	@"$@" -c '$(IS_NEW_ENOUGH)' 2>/dev/null && "$@" -m pip --version >/dev/null 2>&1 || { \
	    "$(PYTHON)" -c '$(IS_NEW_ENOUGH)' || { \
	        echo "This needs Python 3.10 or newer, and $(PYTHON) is older or missing." \
	            "Name a newer one, for example: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }; \
	    echo "Setting up $(VENV): the first time takes minutes."; \
	    "$(PYTHON)" -m venv --clear "$(VENV)" || { rm -rf "$(VENV)"; exit 1; }; }

FORCE:

clean:
	rm -rf "$(VENV)" demo-output build dist docs/_build
