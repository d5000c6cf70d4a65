# Short names for what a developer does here; the work is in cargo and scripts/.

CARGO ?= cargo
CARGO_TARGET_DIR ?= target
debug := $(CARGO_TARGET_DIR)/debug
release := $(CARGO_TARGET_DIR)/release

.DEFAULT_GOAL := help
.PHONY: help setup build demo run test test-postgres test-postgres-versions test-minio chaos kubernetes fuzz bench bench-backup pictures fmt lint clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(firstword $(MAKEFILE_LIST)) | expand -t 24

setup: ## install what is missing, fetch the etcd binaries into engines/
	@scripts/setup.sh

build: setup ## the broker, as a release build
	$(CARGO) build --locked --release --bin compose-broker

# The unoptimised build: a first look should not wait twice as long for a compiler. What takes time
# in it, the C libraries and etcd itself, is optimised all the same.
demo: setup ## build the broker and watch it at work with real databases
	$(CARGO) build --locked --bin compose-broker --example demo
	@exec $(debug)/examples/demo --broker $(debug)/compose-broker

run: build ## build the broker and serve until interrupted
	@exec $(release)/compose-broker serve

test: ## everything that CI checks
	@scripts/test.sh

test-postgres: ## the tests of whole brokers once more, with their store in PostgreSQL
	@scripts/setup.sh --browser --postgres
	COMPOSE_BROKER_TEST_STORE=postgres $(CARGO) test --locked --test it

# What each version has to do alike: the store's contract, its schema, brokers, and what `make test` runs over
# PostgreSQL.
postgres_short := contract::store migrate:: store_copy:: brokers:: pooled:: osb::durability osb::update \
	osb::last_operation faults::in_memory story::

test-postgres-versions: ## some of them over the oldest and the newest PostgreSQL, and behind a pooler
	@scripts/setup.sh --postgres --postgres-versions
	for version in $(CURDIR)/tools/postgres/*/bin; do \
		COMPOSE_BROKER_TEST_STORE=postgres COMPOSE_BROKER_TEST_POSTGRES=$$version \
			$(CARGO) test --locked --test it -- $(postgres_short) || exit 1; \
	done
	COMPOSE_BROKER_TEST_STORE=pooled $(CARGO) test --locked --test it -- $(postgres_short)

test-minio: ## the tests of backups in S3 once more, with another server
	@scripts/setup.sh --s3 --minio
	@scripts/minio/test.sh

chaos: ## kill and cut off brokers while tenants ask for COMPOSE_BROKER_CHAOS_OPERATIONS things (1000)
	@scripts/setup.sh --postgres
	$(CARGO) test --locked --test it -- --ignored --nocapture --test-threads 1 chaos::

kubernetes: ## bring up a cluster of Kubernetes on this machine, run the tests that need one, take it down
	@scripts/setup.sh --kubernetes
	@scripts/kubernetes/test.sh

fuzz: ## send a broker thousands of requests made from its OpenAPI documents
	@scripts/setup.sh --fuzz
	$(CARGO) build --locked --bin compose-broker
	@scripts/fuzz.sh

bench: ## measure requests and the scheduler with up to a million instances, tenants beside each other, bursts
	@scripts/setup.sh --bench
	$(CARGO) bench --locked --bench requests
	$(CARGO) bench --locked --bench schedule
	$(CARGO) test --locked --release --test it -- --ignored --exact --nocapture \
		fair_shares::one_tenant_that_takes_all_it_can_holds_up_no_other
	$(CARGO) test --locked --release --test it -- --ignored --exact --nocapture \
		bursts::a_burst_of_one_tenant_goes_at_an_even_pace_and_holds_up_no_other

bench-backup: ## measure backup, restore and proof of a gigabyte beside the same by hand
	@scripts/setup.sh --bench
	$(CARGO) bench --locked --bench backup

pictures: ## take the pictures in docs/images anew, in a real browser
	@scripts/setup.sh --browser
	$(CARGO) test --locked --test it -- --ignored dashboard_pictures::

fmt: ## format the code
	$(CARGO) fmt

lint: setup ## the linter, with warnings as errors
	$(CARGO) clippy --all-targets --locked -- -D warnings

clean: ## remove what was built (engines/ and data/ stay)
	$(CARGO) clean
