# Muster. `make` alone lists what there is.

PORT ?= 8787
DATA ?= ./data
UNSIGNED ?= refuse
HOST ?= 127.0.0.1

BIN := .venv/bin
SOURCES := app.py capsules muster chalicelib infra tools tests
# What was installed: pins for running, pins for everything else, the checkout itself, Node's packages.
RUN_PINS := .venv/.ready-run
TEST_PINS := .venv/.ready-test
CHECKOUT := .venv/.ready-checkout
RUN_READY := $(RUN_PINS) $(CHECKOUT)
PYTHON_READY := $(TEST_PINS) $(CHECKOUT)
NODE_READY := tests/node_modules/.ready
MINISTACK_READY := build/ministack/.ready

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules --no-print-directory
# Set-up has an order: pins, then the checkout.
.NOTPARALLEL:

.PHONY: help
help: ## list these targets
	@echo 'make run     starts the service on http://$(HOST):$(PORT); make test tests everything'
	@echo
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

## Setting up

.PHONY: setup
setup: $(PYTHON_READY) node ministack chromium firefox coturn nginx caddy tmux networks ## install everything: .venv, Node packages and, as root on Debian, chromium, firefox, coturn, nginx, caddy, tmux, ip and nft
	@echo "==> everything is set up: make run, make test"

$(RUN_PINS): requirements-serve.txt
	@.ci/setup run
	@touch $@

$(TEST_PINS): requirements-dev.txt
	@.ci/setup test
	@touch $(RUN_PINS) $@

$(CHECKOUT): pyproject.toml
	@.ci/setup checkout
	@touch $@

$(NODE_READY): tests/package-lock.json | $(PYTHON_READY)
	@.ci/setup node
	@touch $@

$(MINISTACK_READY): tests/ministack.txt | $(PYTHON_READY)
	@.ci/setup ministack
	@touch $@

# What only some suites need; tests/suites.py asks for it.
.PHONY: node ministack chromium firefox coturn nginx caddy tmux networks
node: $(NODE_READY)
ministack: $(MINISTACK_READY)
chromium firefox coturn nginx caddy tmux networks:
	@.ci/setup $@

.PHONY: pins
pins: $(PYTHON_READY) ## resolve requirements*.in again and rewrite the pins (minutes)
	@for name in requirements requirements-dev requirements-client requirements-pack requirements-serve tests/ministack; do \
		CUSTOM_COMPILE_COMMAND='make pins' $(BIN)/pip-compile --quiet --upgrade --strip-extras --generate-hashes --allow-unsafe \
			--no-emit-index-url --no-emit-find-links --output-file=$$name.txt $$name.in; \
	done

## Running

.PHONY: run
run: serve ## set up what is missing and start the service; PORT=8787 HOST=127.0.0.1 DATA=./data UNSIGNED=refuse

.PHONY: serve
serve: $(RUN_READY) ## the same as run
	@exec $(BIN)/muster serve --host $(HOST) --port $(PORT) --data $(DATA) --unsigned $(UNSIGNED)

.PHONY: chat
chat: $(RUN_READY) ## set up what is missing and open the chat; PROFILE=DIR for another person
	@$(if $(PROFILE),MUSTER_HOME=$(PROFILE)) $(BIN)/muster chat

## Testing

.PHONY: quick
quick: $(PYTHON_READY) ## what one who changes a rule wants, in half a minute: lint, imports, unit and golden tests
	@$(BIN)/ruff check --quiet $(SOURCES)
	@mkdir -p build; $(BIN)/lint-imports >build/imports.txt 2>&1 || { cat build/imports.txt; exit 1; }
	@$(BIN)/python -m pytest -q --numprocesses=2 tests/unit tests/golden $(ARGS)

.PHONY: test
test: $(PYTHON_READY) ## set up and run every test suite; SUITES="unit cli" chooses, ARGS=... goes to pytest
	@$(BIN)/python tests/suites.py $(SUITES) $(if $(ARGS),-- $(ARGS))

.PHONY: browser
browser: $(PYTHON_READY) ## run the browser tests alone
	@$(BIN)/python tests/suites.py browser

.PHONY: deep
deep: $(PYTHON_READY) ## run the generated tests long, with the deep hypothesis profile
	@HYPOTHESIS_PROFILE=deep $(BIN)/python tests/suites.py property attack -- --timeout=1800

.PHONY: bench
bench: $(PYTHON_READY) ## measure the service on this machine and print JSON
	@$(BIN)/python -m tools.bench $(ARGS)

.PHONY: bench-cold
bench-cold: $(PYTHON_READY) $(NODE_READY) ## measure cold starts of the packaged zip beside an ordinary variant
	@$(BIN)/python -m tools.bench.cold $(ARGS)

.PHONY: smoke
smoke: $(PYTHON_READY) ## let 200 clients start again while a third of all sources fail; draw how long it took
	@$(BIN)/python -m tools.smoke $(ARGS)

.PHONY: golden
golden: $(PYTHON_READY) ## rewrite the golden files and show what changed
	@$(BIN)/python -m pytest -q tests/golden --rewrite-golden
	@git --no-pager diff --stat -- tests/golden

## Keeping the code in order

.PHONY: format
format: $(PYTHON_READY) ## rewrite the code as ruff formats it
	@$(BIN)/ruff check --quiet --fix $(SOURCES) || true
	@$(BIN)/ruff format $(SOURCES)

.PHONY: lint
lint: $(PYTHON_READY) ## look for mistakes and misspellings
	@$(BIN)/ruff check $(SOURCES)
	@$(BIN)/ruff format --check $(SOURCES)
	@$(BIN)/codespell

.PHONY: types
types: $(PYTHON_READY) ## check the types, strictly
	@$(BIN)/mypy

.PHONY: javascript
javascript: $(NODE_READY) ## check the types of the browser library, and look for faults in all JavaScript
	@node=$$($(BIN)/python tests/support/node.py) && \
		$$node tests/node_modules/typescript/bin/tsc -p web/tsconfig.json && \
		$$node tests/node_modules/typescript/bin/tsc -p web/tsconfig.examples.json && \
		$$node tests/node_modules/typescript/bin/tsc -p web/tsconfig.app.json && \
		$$node tests/vendor.mjs --check && \
		$$node tests/app.mjs --check && $(BIN)/python -m infra.app_files --check && \
		$$node tests/node_modules/eslint/bin/eslint.js --config tests/eslint.config.mjs web tests tools

.PHONY: imports
imports: $(PYTHON_READY) ## check who imports whom
	@$(BIN)/lint-imports

.PHONY: openapi
openapi: $(PYTHON_READY) ## write docs/openapi.json and docs/asyncapi.json
	@$(BIN)/python -m tools.openapi

.PHONY: openapi-check
openapi-check: $(PYTHON_READY) ## check that the API documents are current
	@$(BIN)/python -m tools.openapi --check

.PHONY: static
static: lint types javascript imports openapi-check ## everything that runs no test: lint types javascript imports openapi-check

.PHONY: check
check: static test ## everything that must be clean before a change goes in

## Packaging

.PHONY: vendor
vendor: $(NODE_READY) ## bundle the libraries that the app ships, from their pins, into web/app/vendor
	@$$($(BIN)/python tests/support/node.py) tests/vendor.mjs

.PHONY: app
app: $(NODE_READY) $(PYTHON_READY) ## pack the app for AWS and the image into web/app/packed
	@$$($(BIN)/python tests/support/node.py) tests/app.mjs && $(BIN)/python -m infra.app_files --write

.PHONY: npm
npm: $(NODE_READY) ## pack the browser library for npm into build/npm
	@mkdir -p build/npm
	@cd web/muster && ../../$(BIN)/python ../../tests/support/node.py npm pack --loglevel=error --pack-destination ../../build/npm

.PHONY: package
package: $(PYTHON_READY) ## pack the AWS side into build/aws
	@rm -rf build/aws
	@$(BIN)/python -m infra.packing $(ARGS) build/aws

.PHONY: dist
dist: $(PYTHON_READY) ## make a release of the last commit in dist/: wheel, sdist, changes, checksums
	@.ci/dist

.PHONY: plan
plan: $(PYTHON_READY) ## say what deploying to AWS would change and cost; ARGS="--stage prod"
	@$(BIN)/muster plan $(ARGS)

.PHONY: deploy
deploy: $(PYTHON_READY) ## put the service on your AWS account; ARGS="--stage prod"
	@$(BIN)/muster deploy $(ARGS)

.PHONY: clean
clean: ## remove everything that was made, except data
	rm -rf .venv tests/node_modules build dist *.egg-info
	rm -rf .coverage .coverage.* htmlcov .hypothesis .schemathesis .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
