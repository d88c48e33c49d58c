# make demo    the main job on real recordings; KEEP=1 leaves it running
# make test    linters, types, layers, freshness of generated code, tests; TORCH=1 adds the comparison with torch
# make check   the linters of `make test` alone
# make slow    what needs minutes and downloads: the device's part, and its packages, on emulated arm64 boards; the
#              installed agent on an emulated machine whose power is cut (root; apt install qemu-system-x86 mmdebstrap)
# make machines  the installed packages on machines with a systemd (root; apt install mmdebstrap systemd-container)
# make bench   every benchmark beside its peer
# make fuzz    every parser under coverage guidance for SECONDS=10 each, or PARSER=frames SECONDS=60
# make deb     Debian packages into dist/; TARGETS="bookworm-amd64" PARTS="agent" REVISION=2 for some of them
# make locks   resolve packaging/locks again
# make release KEY=release.key    the wheel too, and signed SHA256SUMS over all of dist/
# make proto   regenerate the code beside protos/**/*.proto
# make clean   remove what the others made
# PYTHON=python3.12 chooses the interpreter (3.11 or later) that .venv is made from.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEB := .venv-deb
PIP := $(BIN)/python -m pip install --quiet
PROTOS := $(wildcard protos/bedside/proto/v1/*.proto)
SEGLEARN := seglearn==1.2.5
TORCH_VERSION := 2.13.0

export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help demo test check slow machines bench fuzz deb locks release proto clean

help:
	@sed -n '/^#/!q; s/^# //p' Makefile

# The stamps change with pyproject.toml only, so that a second run needs no network.
$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "Bedside needs Python 3.11 or later as '$(PYTHON)'; name one: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: pyproject.toml | $(BIN)/python
	@echo "Installing Bedside for the demo into $(VENV) (about 400 MB on disk; only the first time)"
	@$(PIP) -e '.[demo]'
	@$(PIP) --no-deps $(SEGLEARN)
	@touch $@

$(VENV)/.dev: pyproject.toml | $(BIN)/python
	@echo "Installing Bedside for development into $(VENV)"
	@$(PIP) -e '.[dev]'
	@$(PIP) --no-deps $(SEGLEARN)
	@touch $@ $(VENV)/.demo

$(VENV)/.torch: $(VENV)/.dev
	@$(PIP) torch==$(TORCH_VERSION)
	@touch $@

demo: $(VENV)/.demo
	@$(BIN)/bedside demo $(if $(KEEP),--keep)

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest -q tests/layout

test: check $(if $(TORCH),$(VENV)/.torch)
	$(BIN)/pytest -q --ignore=tests/layout
	@echo "all tests passed"

slow: $(VENV)/.dev $(DEB)/.tools
	BEDSIDE_SLOW=1 $(BIN)/pytest -q -s -m slow

machines: $(VENV)/.dev $(DEB)/.tools
	BEDSIDE_MACHINES=1 $(BIN)/pytest -q -raP tests/packaging/test_services.py tests/packaging/test_lab.py

# The peers live in an environment of their own: their pins would bend ours.
.venv-flwr/bin/flwr:
	$(PYTHON) -m venv .venv-flwr
	.venv-flwr/bin/python -m pip install --quiet flwr==1.41.0

bench: $(VENV)/.dev .venv-flwr/bin/flwr
	@for file in benchmarks/*.py; do echo "== $$file"; $(BIN)/python "$$file" || exit 1; done

$(VENV)/.fuzz: $(VENV)/.dev
	@$(PIP) -e '.[fuzz]'
	@touch $@

fuzz: $(VENV)/.fuzz
	$(BIN)/python tests/fuzz/cover.py --seconds $(or $(SECONDS),10) $(PARSER)

# What builds packages is pinned, so that the same commit gives the same bytes wherever it is built.
$(DEB)/.tools: packaging/locks/tools.txt
	$(PYTHON) -m venv $(DEB)
	@$(DEB)/bin/python -m pip install --quiet --require-hashes -r packaging/locks/tools.txt
	@touch $@

deb: $(DEB)/.tools
	$(DEB)/bin/python packaging/deb/build_debs.py --targets "$(TARGETS)" --parts "$(PARTS)" --revision $(or $(REVISION),1)

release: $(DEB)/.tools
	@test -n "$(KEY)" || { echo "name the key: make release KEY=release.key" >&2; exit 1; }
	@$(DEB)/bin/python packaging/deb/release.py --check "$(KEY)"
	rm -rf dist
	$(MAKE) deb
	$(DEB)/bin/python packaging/deb/release.py "$(KEY)"

locks: $(DEB)/.tools
	$(DEB)/bin/python packaging/deb/locks.py

proto: $(VENV)/.dev
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m grpc_tools.protoc -Iprotos --python_out=protos --grpc_python_out=protos \
	  --mypy_out=quiet:protos --mypy_grpc_out=quiet:protos $(PROTOS)

clean:
	rm -rf $(VENV) $(DEB) .venv-flwr demo-out fuzz-out dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
