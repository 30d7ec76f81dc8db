# Everything a person or a machine runs on this repository. `make help` lists it.
#
# Built files, test clients and tools live in one folder outside the clone, so that a fresh clone starts warm:
TIDELOG_CACHE ?= $(HOME)/.cache/tidelog
CARGO_TARGET_DIR ?= $(TIDELOG_CACHE)/target
export TIDELOG_CACHE CARGO_TARGET_DIR

# One profile for binary, tests and lints: dependencies (RocksDB above all) are compiled once.
CARGO_FLAGS = --release --locked
# rskafka's tests are a workspace of their own (tests/rskafka/Cargo.toml says why).
RSKAFKA = --manifest-path tests/rskafka/Cargo.toml
BINARY = $(CARGO_TARGET_DIR)/release/tidelog
CARGO_DENY = $(TIDELOG_CACHE)/tools/bin/cargo-deny

# Narrow a run: make test-foreign ARGS='-k kcat', make test-rust ARGS=tidy, make run ARGS='--data-dir /srv/tidelog'.
ARGS ?=

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help run cluster build previous deps deps-build deps-test deps-soak deps-verify test test-rust test-rskafka test-foreign soak soak-day soak-topics chaos simulation figures bench-micro bench-kafka bench-failover bench-hibernation verify fmt clean distclean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: deps-build build ## install what is missing, build, start a broker on an embedded default (data in ./data)
	@exec ./bin/tidelog serve $(ARGS)

cluster: deps-build build ## three brokers as one cluster until Ctrl-C: clients at 127.0.0.1:9092, 9192, 9292 (data in ./data/cluster)
	@exec scripts/cluster.sh $(ARGS)

build: ## the release binary, at bin/tidelog
	cargo build $(CARGO_FLAGS) --workspace
	@mkdir -p bin
	@cmp -s $(BINARY) bin/tidelog || { cp -f $(BINARY) bin/tidelog.new && mv -f bin/tidelog.new bin/tidelog; }

previous: ## the binary of the previous commit, from which the tests upgrade; TIDELOG_PREVIOUS=<revision> names another
	@scripts/previous.sh build

deps: ## install what a fresh Debian or Ubuntu lacks (seconds when nothing is missing)
	@scripts/deps.sh

deps-build:
	@scripts/deps.sh build

deps-test:
	@scripts/deps.sh test

deps-soak:
	@scripts/deps.sh soak

deps-verify:
	@scripts/deps.sh verify

test: deps-test test-rust test-rskafka test-foreign ## all tests: Rust, then foreign clients against a real broker process

test-rust: build ## unit and integration tests of the workspace
	cargo test $(CARGO_FLAGS) --workspace $(ARGS)

test-rskafka: build ## a client in Rust that is not ours
	cargo test $(CARGO_FLAGS) $(RSKAFKA) $(ARGS)

# Apache Kafka in Tidelog's place needs no binary of ours.
test-foreign: deps-test $(if $(filter kafka,$(TIDELOG_TEST_BROKER)),,previous build) ## foreign clients only; TIDELOG_TEST_BROKER=kafka drives Apache Kafka instead
	$(TIDELOG_CACHE)/venv/bin/python -m pytest tests/foreign $(ARGS)

soak: deps-test build ## storage under power loss, hostile bytes everywhere and simulated clusters, up to a hundred times as many cases as in `make test`, and 55 power losses of a broker under load
	TIDELOG_SOAK=100 cargo test $(CARGO_FLAGS) --workspace --lib $(ARGS) -- power_loss model:: torn_sectors left_out::with_all_syncs
	TIDELOG_SOAK=100 cargo test $(CARGO_FLAGS) --workspace --lib $(ARGS) -- hostile:: mutated_
	TIDELOG_SOAK=5 cargo test $(CARGO_FLAGS) --workspace --lib $(ARGS) -- simulation::clusters
	TIDELOG_SOAK=10 cargo test $(CARGO_FLAGS) --workspace --test it $(ARGS) -- hostile::
	TIDELOG_SOAK=100 $(TIDELOG_CACHE)/venv/bin/python -m pytest tests/foreign/test_power_loss.py

soak: soak-day soak-topics

soak-day: deps-soak build ## all clients, retention, compaction, groups and topics that come and go, for a quarter of an hour
	TIDELOG_TEST_SOAK_SECONDS=900 $(TIDELOG_CACHE)/venv/bin/python -m pytest tests/foreign/soak -s

soak-topics: build ## 10,000 topics created, used and deleted, and what that leaves behind
	TIDELOG_SOAK=20 cargo test $(CARGO_FLAGS) --workspace --test it -- topic_churn --nocapture

# Another seed each time, unless one is named.
SEED ?= $(shell date +%s)

chaos: deps-test build ## three brokers that are killed, paused, cut off, filled up and stopped under load, a quarter of an hour of faults; prints its seed, SEED=... does it again
	TIDELOG_TEST_CHAOS_SECONDS=900 TIDELOG_TEST_SEED=$(SEED) $(TIDELOG_CACHE)/venv/bin/python -m pytest tests/foreign/chaos -s $(ARGS)

simulation: deps-build ## one simulated cluster, by the seed of its schedule: SEED=...; what happened, if something is wrong
	TIDELOG_TEST_SEED=$(SEED) cargo test $(CARGO_FLAGS) --workspace --lib -- --nocapture simulation::clusters

figures: deps-test build ## the figures of one broker, as benches/RESULTS.md has them; run it on a quiet machine
	$(TIDELOG_CACHE)/venv/bin/python benches/figures.py $(ARGS)

bench-micro: deps-build ## what validation, append and fetch cost on their own
	cargo bench --profile release --locked --workspace --bench micro

bench-kafka: deps-test build ## Tidelog and Apache Kafka side by side, as benches/RESULTS.md has them: 12 minutes, 20 GiB of disk, a quiet machine
	$(TIDELOG_CACHE)/venv/bin/python benches/bench_kafka.py $(ARGS)

bench-failover: deps-test build ## three brokers killed, paused and stopped under load, idle replicas, CPU beside Apache Kafka: 15 minutes, 25 GiB of disk, a quiet machine
	$(TIDELOG_CACHE)/venv/bin/python benches/bench_failover.py $(ARGS)

bench-hibernation: deps-test build ## 50,000 partitions that sleep, consumers parked on them, one broker killed: 25 minutes, 10 GiB of disk, a quiet machine
	$(TIDELOG_CACHE)/venv/bin/python benches/bench_hibernation.py $(ARGS)

verify: deps-verify ## formatting, lints, licences, documentation; changes no file
	cargo fmt --all --check
	cargo fmt $(RSKAFKA) --check
	cargo clippy $(CARGO_FLAGS) --workspace --all-targets -- -D warnings
	cargo clippy $(CARGO_FLAGS) $(RSKAFKA) --all-targets -- -D warnings
	$(CARGO_DENY) --locked check licenses bans sources
	$(CARGO_DENY) --locked $(RSKAFKA) --config deny.toml check bans sources
	RUSTDOCFLAGS='-D warnings' cargo doc $(CARGO_FLAGS) --workspace --no-deps

fmt: ## format the sources
	cargo fmt --all
	cargo fmt $(RSKAFKA)

clean: ## forget what this clone built; the cache stays
	rm -rf bin

distclean: clean ## forget the cache too: the next build starts from nothing
	rm -rf $(CARGO_TARGET_DIR) $(TIDELOG_CACHE)
