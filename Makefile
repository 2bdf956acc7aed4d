# make demo   set up .venv and run the main job on real tissue
# make test   set up .venv and run everything that CI runs
# Both start in seconds once .venv is there.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ifeq ($(OS),Windows_NT)
BIN := $(VENV)/Scripts
endif

.PHONY: demo test clean

demo: $(VENV)/.demo
	"$(BIN)/wsisam-qupath" demo

test: $(VENV)/.dev
	"$(BIN)/python" scripts/check.py

$(VENV)/.demo: pyproject.toml | $(BIN)/python
	"$(BIN)/python" -m pip install --quiet --disable-pip-version-check --editable ".[demo]"
	@touch "$@"

$(VENV)/.dev: pyproject.toml | $(BIN)/python
	"$(BIN)/python" -m pip install --quiet --disable-pip-version-check --editable ".[dev]"
	@touch "$@"

$(BIN)/python:
	@echo "Setting up $(VENV): PyTorch with its libraries is large, the first time takes minutes."
	"$(PYTHON)" -m venv "$(VENV)"

clean:
	rm -rf "$(VENV)" demo-output build dist
