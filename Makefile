# Two commands matter: `make demo` and `make test`. Both do all their own set-up.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
OPA_VERSION := v1.22.2
PROTOS := $(wildcard proto/sidecar/v1/*.proto)
FOREIGN := $(wildcard proto/sidecar/enforce/envoy/v3/*.proto)  # messages alone: their services are served by name

# Thousands of processes of the tests import the same modules: compiled once, whatever the caller's environment says.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test check lint soak lock stubs opa spire helm clean

demo: $(VENV)/.installed
	$(BIN)/sidecar demo

# The types are checked beside other tests, by one of them.
test: $(VENV)/.installed opa spire helm lint
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/pytest -n 4 --dist loadfile --no-loadscope-reorder

check: lint
	$(BIN)/mypy

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

soak: $(VENV)/.installed opa
	PATH="$(CURDIR)/$(BIN):$$PATH" SIDECAR_SOAK=1 $(BIN)/pytest -m soak

$(VENV)/.installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Python 3.11 or later is needed; set PYTHON=/path/to/python3.11" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

# OPA from PATH if it is new enough, else built with Go; without Go the tests that need it say "skipped".
opa: $(VENV)/.installed
	@$(BIN)/python tests/find_opa.py --into $(BIN)/opa --build $(OPA_VERSION)

# SPIRE's server and agent, built with Go once a machine; without Go the tests that need them say "skipped".
spire: $(VENV)/.installed
	@$(BIN)/python tests/find_built.py --into $(BIN) spire

# Helm, likewise.
helm: $(VENV)/.installed
	@$(BIN)/python tests/find_built.py --into $(BIN) helm

stubs: $(VENV)/.installed
	$(BIN)/python -m grpc_tools.protoc -Iproto --python_out=. --grpc_python_out=. \
	  --plugin=protoc-gen-mypy=$(BIN)/protoc-gen-mypy --mypy_out=. \
	  --plugin=protoc-gen-mypy_grpc=$(BIN)/protoc-gen-mypy_grpc --mypy_grpc_out=. $(PROTOS)
	$(BIN)/python -m grpc_tools.protoc -Iproto --python_out=. \
	  --plugin=protoc-gen-mypy=$(BIN)/protoc-gen-mypy --mypy_out=. $(FOREIGN)

# What is developed and tested with; what the image holds, in the same versions; what the image is made with.
LOCK := $(BIN)/uv pip compile --quiet --universal --generate-hashes --python-version 3.11 --no-emit-index-url --no-header
lock:
	$(LOCK) --extra dev pyproject.toml -o requirements.lock
	$(LOCK) --extra authzen --extra git --extra mcp --extra spiffe --extra collector --extra otel -c requirements.lock pyproject.toml -o requirements-image.lock
	$(LOCK) --group image -c requirements.lock -o requirements-build.lock

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache
