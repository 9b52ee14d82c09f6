# highwater: the two commands of the README and their parts. `make help` lists them.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

DENY_VERSION := 0.20.2
TOOLS := .devstack/tools
DENY := $(TOOLS)/bin/cargo-deny

.PHONY: help
help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "make %-12s %s\n", $$1, $$2}'

.PHONY: demo
demo: release ## real Kafka, real ClickHouse, traffic, numbers and their proof; ONCE=1 ends by itself, INPUT=file.csv replays a file
	target/release/devstack demo $(if $(ONCE),--once) $(if $(INPUT),--input "$(INPUT)")

.PHONY: test
test: check unit integration ## everything: formatting, lints, docs, licences, unit tests, simulation, real servers

.PHONY: check
check: deny ## formatting, lints, documentation, licences
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --quiet

.PHONY: unit
unit: ## tests that need no server, the simulation among them
	cargo test --workspace --lib --bins
	cargo test --test simulation --test avro

.PHONY: fetch
fetch: ## download the real servers, once
	cargo build --package devstack
	target/debug/devstack fetch

.PHONY: integration
integration: fetch ## tests against real Kafka and ClickHouse
	cargo build --workspace
	cargo test --package devstack --tests
	cargo test --test clickhouse --test kafka --test delivery -- --test-threads=2

.PHONY: simulate
simulate: ## the delivery protocol under random faults: make simulate SCHEDULES=1000000
	SIMULATION_SCHEDULES=$(or $(SCHEDULES),1000000) cargo test --release --test simulation -- --nocapture

.PHONY: fuzz
fuzz: ## damaged messages of random schemas, against the Avro library: make fuzz MINUTES=60 SEED=1
	FUZZ_MINUTES=$(or $(MINUTES),10) FUZZ_SEED=$(or $(SEED),1) cargo test --release --test avro fuzz -- --nocapture

.PHONY: oracle
oracle: ## pairs of random schemas, against the Avro library: make oracle CASES=1000000
	AVRO_CASES=$(or $(CASES),1000000) cargo test --release --test avro oracle -- --nocapture

.PHONY: release
release: ## the binaries, optimised
	cargo build --release --workspace --bins

.PHONY: deny
deny: $(DENY) ## licences, bans and sources of all dependencies
	$(DENY) --log-level error check bans licenses sources

.PHONY: advisories
advisories: $(DENY) ## known vulnerabilities; needs the advisory database from the network
	$(DENY) check advisories

$(DENY):
	cargo install cargo-deny --version $(DENY_VERSION) --locked --root $(TOOLS)

.PHONY: clean
clean: ## what was built; the downloaded servers stay (.devstack)
	cargo clean
