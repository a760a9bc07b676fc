# The same words locally and in CI. `make` alone lists them.

SHELL := /bin/bash
.DEFAULT_GOAL := help
# Two cargos at once would only wait for each other's lock.
.NOTPARALLEL:

export PATH := $(HOME)/.cargo/bin:$(PATH)

CARGO ?= cargo
# In CI a Cargo.lock that does not fit is an error; at home cargo brings it up to date.
LOCKED := $(if $(CI),--locked)

BROWSER := gateway/tests/browser
BENCH_ARGS ?=
GOOSE_ARGS ?=
CHAOS_ARGS ?=
K6_ARGS ?=
K6_SCRIPTS ?= $(wildcard loadtest/k6/*.js)

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: run
run: ## start one gateway, rooms in memory: http://127.0.0.1:8080/
	$(CARGO) run --release -p roomgate

.PHONY: demo
demo: release ## start a Redis and two gateways until Ctrl-C
	scripts/two-gateways.sh

.PHONY: test
test: deps check-k8s check-compose fmt-check clippy browser-deps ## everything CI checks
	$(CARGO) test --workspace $(LOCKED)

.PHONY: lint
lint: fmt-check clippy deny shellcheck ## format, clippy, licences and advisories, shell scripts

.PHONY: fmt
fmt: ## format the Rust code
	$(CARGO) fmt --all

.PHONY: fmt-check
fmt-check:
	$(CARGO) fmt --all --check

.PHONY: clippy
clippy:
	$(CARGO) clippy --workspace --all-targets $(LOCKED) -- -D warnings

.PHONY: deny
deny:
	@scripts/deny.sh

.PHONY: shellcheck
shellcheck:
	@if command -v shellcheck >/dev/null; then shellcheck -x scripts/*.sh docker/*.sh .ci/run; \
	else echo "shellcheck: SKIP: it is not installed (apt-get install shellcheck)"; fi

.PHONY: docs
docs: ## write docs/CONFIG.md and .env.example from the settings
	$(CARGO) run -q -p roomgate -- --write-docs

.PHONY: bench
bench: release ## run the benchmarks and write loadtest/RESULTS.md (BENCH_ARGS)
	$(CARGO) build --release -p roomgate-loadtest $(LOCKED)
	target/release/roomgate-loadtest bench $(BENCH_ARGS)

.PHONY: chaos
chaos: release ## break gateways, Redis and links under load, and judge what clients saw (CHAOS_ARGS)
	$(CARGO) build --release -p roomgate-loadtest $(LOCKED)
	target/release/roomgate-loadtest chaos $(CHAOS_ARGS)

.PHONY: goose
goose: release ## attack two gateways with goose (GOOSE_ARGS)
	$(CARGO) build --release -p roomgate-loadtest $(LOCKED)
	scripts/two-gateways.sh -- target/release/roomgate-loadtest attack $(GOOSE_ARGS)

.PHONY: k6
k6: release ## run loadtest/k6/*.js against two gateways (K6_SCRIPTS, K6_ARGS)
	@test -n "$(K6_SCRIPTS)" || { echo "k6: there is no script in loadtest/k6"; exit 1; }
	@k6="$$(scripts/install-k6.sh)" && for script in $(K6_SCRIPTS); do \
	  echo "k6 run $$script"; \
	  scripts/two-gateways.sh -- "$$k6" run $(K6_ARGS) "$$script" || exit; \
	done

.PHONY: autobahn
autobahn: ## run the Autobahn WebSocket suite against the echo route
	scripts/autobahn.sh

.PHONY: check-k8s
check-k8s: ## render k8s/ and compare its settings with the gateway's
	@scripts/check-k8s.sh

.PHONY: check-compose
check-compose: ## check docker-compose.yml and the load balancer's configuration
	@scripts/check-compose.sh

.PHONY: deps
deps: ## install what the tests need
	@scripts/install-test-deps.sh

.PHONY: browser-deps
browser-deps:
	@scripts/browser-deps.sh $(BROWSER)

.PHONY: release
release:
	$(CARGO) build --release -p roomgate $(LOCKED)
