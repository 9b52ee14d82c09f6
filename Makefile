# highwater: the two commands of the README and their parts. `make help` lists them.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

DENY_VERSION := 0.20.2
TOOLS := .devstack/tools
# OpenSSL, for Kafka under TLS, is the system's where it has the headers (libssl-dev), else built from source, which needs
# perl and some minutes.
FEATURES := $(shell pkg-config --exists 'openssl >= 1.1.1' 2>/dev/null || echo --features vendored-openssl)
DENY := $(TOOLS)/bin/cargo-deny

.PHONY: help
help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "make %-12s %s\n", $$1, $$2}'

.PHONY: demo
demo: release ## real Kafka, real ClickHouse, traffic, numbers, alerts and their proof; ONCE=1 ends by itself, INPUT=file.csv replays a file
	target/release/devstack demo $(if $(ONCE),--once) $(if $(INPUT),--input "$(INPUT)")

.PHONY: test
test: check unit integration ## everything: formatting, lints, docs, licences, unit tests, simulation, real servers

.PHONY: check
check: deny ## formatting, lints, documentation, licences
	cargo fmt --all --check
	cargo clippy --workspace --all-targets $(FEATURES) -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --quiet $(FEATURES)

.PHONY: unit
unit: ## tests that need no server, the simulation among them
	cargo test --workspace --lib --bins $(FEATURES)
	cargo test --test simulation --test avro --test deploy --test check --test runbook $(FEATURES)

# The binary as tests of the whole workspace have it: by itself its libraries would be built once more, with fewer features.
.PHONY: fetch
fetch: ## download the real servers, once
	cargo build --workspace --test program $(FEATURES)
	target/debug/devstack fetch

.PHONY: integration
integration: fetch ## tests against real Kafka and ClickHouse
	cargo test --workspace --test program --test proxy --test servers $(FEATURES)
	# Most of these mostly wait. ALERTMANAGER=path/of/alertmanager for one more of alerts_commands.
	cargo test --test connections --test alerts_commands $(FEATURES) -- --test-threads=4
	cargo test --no-fail-fast --test clickhouse --test kafka --test delivery $(FEATURES) -- --test-threads=3
	cargo test --test alerts $(FEATURES) -- --test-threads=4
	$(MAKE) --no-print-directory chaos-short

.PHONY: alerts
alerts: fetch ## alerts held against a list, whoever judges killed and frozen in mid-publish: make alerts KILLS=50
	ALERTS_KILLS=$(or $(KILLS),0) cargo test --test alerts $(FEATURES) -- --nocapture --test-threads=1

.PHONY: truth-alerts
truth-alerts: fetch ## a day of known history the whole way: the topic is the list that was worked out, also with whoever judges killed
	cargo test --test alerts $(FEATURES) history -- --nocapture --test-threads=1

.PHONY: cost-alerts
cost-alerts: fetch ## what a round of 1,000 rules over 10,000 series costs, with the real ClickHouse
	cargo test --release --test alerts $(FEATURES) cost -- --ignored --nocapture

.PHONY: chaos
chaos: fetch ## real servers and replicas killed, frozen and cut off at random, then every number checked: make chaos MINUTES=20; SEED, PROTOCOL=classic|consumer and RATE as it prints them
	CHAOS_MINUTES=$(or $(MINUTES),20) CHAOS_SEED=$(SEED) CHAOS_PROTOCOL=$(PROTOCOL) CHAOS_RATE=$(RATE) \
		cargo test --test chaos $(FEATURES) -- --nocapture

# A minute of it for each group protocol, start and verification included three in all; SEED=n for other draws.
.PHONY: chaos-short
chaos-short: fetch ## the same for three minutes, both group protocols
	for protocol in classic consumer; do \
		CHAOS_MINUTES=$(or $(MINUTES),1) CHAOS_SEED=$(or $(SEED),1) CHAOS_PROTOCOL=$$protocol CHAOS_RATE=$(or $(RATE),1000) \
			cargo test --test chaos $(FEATURES) -- --nocapture || exit 1; \
	done

.PHONY: recovery
recovery: fetch ## how soon partitions flow again after kill -9 and SIGTERM of one of two replicas: make recovery ROUNDS=5 PARTITIONS=64
	cargo build --release --package devstack
	RECOVERY_ROUNDS=$(or $(ROUNDS),5) RECOVERY_PARTITIONS=$(or $(PARTITIONS),64) \
		cargo test --release --test recovery $(FEATURES) -- --nocapture

.PHONY: outage
outage: fetch ## ClickHouse away under load: memory, catching up, exactness: make outage MINUTES=10 RATE=5000 MEMORY=256 (MiB)
	cargo build --release --package devstack
	OUTAGE_MINUTES=$(or $(MINUTES),10) OUTAGE_RATE=$(or $(RATE),5000) OUTAGE_MEMORY=$(or $(MEMORY),256) OUTAGE_PARTITIONS=16 \
		cargo test --release --test delivery $(FEATURES) outage -- --nocapture

.PHONY: simulate
simulate: ## the delivery protocol under random faults: make simulate SCHEDULES=1000000
	SIMULATION_SCHEDULES=$(or $(SCHEDULES),1000000) cargo test --release --test simulation $(FEATURES) -- --nocapture

.PHONY: memcheck
memcheck: fetch ## the unsafe code around librdkafka under valgrind, against a real broker
	cargo test --test kafka $(FEATURES) --config 'target."cfg(unix)".runner = ["valgrind", "--quiet", "--error-exitcode=9"]' \
		-- --test-threads=1 positions:: identities::a_topic_made_anew_is_another questions::a_partition

.PHONY: fuzz
fuzz: ## damaged messages of random schemas, against the Avro library: make fuzz MINUTES=60 SEED=1
	FUZZ_MINUTES=$(or $(MINUTES),10) FUZZ_SEED=$(or $(SEED),1) cargo test --release --test avro fuzz -- --nocapture

.PHONY: oracle
oracle: ## pairs of random schemas, against the Avro library: make oracle CASES=1000000
	AVRO_CASES=$(or $(CASES),1000000) cargo test --release --test avro oracle -- --nocapture

.PHONY: bench
bench: release ## what a million events cost: highwater, a floor and its peers; make bench EVENTS=3000000 SYSTEMS=highwater,naive
	cargo build --release --package throughput
	EVENTS=$(EVENTS) SYSTEMS=$(SYSTEMS) TIMEOUT=$(TIMEOUT) target/release/throughput

.PHONY: bench-scale
bench-scale: release ## cost, memory and parts as workers, partitions, series, types, fields and backlog grow; freshness; idle: make bench-scale CURVES=workers,idle
	cargo build --release --package throughput
	SCALE=$(SCALE) CURVES=$(CURVES) CAPACITY=$(CAPACITY) target/release/throughput scale

.PHONY: soak
soak: release ## events at half load for long, then an audit: make soak MINUTES=30 CAPACITY=100000 (events a second)
	cargo build --release --package throughput
	MINUTES=$(MINUTES) CAPACITY=$(CAPACITY) target/release/throughput soak

.PHONY: profile
profile: release ## where highwater's processor time goes, by thread and function (needs perf); with inferno a flame graph
	cargo build --release --package throughput
	SYSTEMS=highwater EVENTS=$(EVENTS) target/release/throughput & bench=$$!; trap 'kill $$bench 2>/dev/null || true' EXIT; pid=; \
	until [ -n "$$pid" ]; do \
		kill -0 $$bench; sleep 0.05; pid=$$(pgrep -P $$bench -a highwater | awk '$$NF == "run" {print $$1; exit}' || true); \
	done; \
	until grep -qsx worker-0 /proc/$$pid/task/*/comm; do kill -0 $$bench; sleep 0.02; done; \
	perf record --quiet --event cpu-clock --freq 999 --call-graph dwarf,16384 --output target/perf.data --pid $$pid; wait $$bench; trap - EXIT
	perf report --no-inline --input target/perf.data --stdio --no-children --call-graph none --sort comm,dso,symbol 2>/dev/null \
		| grep -v '^#' | grep -v '^$$' | head -60 | tee target/profile.txt
	if command -v inferno-flamegraph >/dev/null; then \
		perf script --input target/perf.data | inferno-collapse-perf | inferno-flamegraph > target/flame.svg; \
		echo "flame graph: target/flame.svg"; \
	else echo "for a flame graph: cargo install inferno, then make profile again"; fi

.PHONY: stages
stages: ## what each stage of the way costs: make stages STAGE=decode
	cargo bench --bench stages $(FEATURES) -- $(STAGE)

.PHONY: release
release: ## the binaries, optimised
	cargo build --release --package highwater --package devstack --bins $(FEATURES)

.PHONY: deny
deny: $(DENY) ## licences, bans and sources of all dependencies
	$(DENY) --log-level error check bans licenses sources

.PHONY: advisories
advisories: $(DENY) ## known vulnerabilities; needs the advisory database from the network
	$(DENY) check advisories

$(DENY):
	cargo install cargo-deny --version $(DENY_VERSION) --locked --debug --root $(TOOLS) # it is built for longer than it runs

.PHONY: clean
clean: ## what was built; the downloaded servers stay (.devstack)
	cargo clean
