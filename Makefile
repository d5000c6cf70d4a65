# Short names for what a developer does here; the work is in cargo and scripts/.

CARGO ?= cargo
CARGO_TARGET_DIR ?= target
release := $(CARGO_TARGET_DIR)/release

.DEFAULT_GOAL := help
.PHONY: help setup build demo run test fmt lint clean

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(firstword $(MAKEFILE_LIST)) | expand -t 8

setup: ## install what is missing, fetch the etcd binaries into engines/
	@scripts/setup.sh

build: setup ## the broker, as a release build
	$(CARGO) build --locked --release --bin compose-broker

demo: setup ## build the broker and watch it at work with real databases
	$(CARGO) build --locked --release --bin compose-broker --example demo
	@exec $(release)/examples/demo --broker $(release)/compose-broker

run: build ## build the broker and serve until interrupted
	@exec $(release)/compose-broker serve

test: ## everything that CI checks
	@scripts/test.sh

fmt: ## format the code
	$(CARGO) fmt

lint: setup ## the linter, with warnings as errors
	$(CARGO) clippy --all-targets --all-features --locked -- -D warnings

clean: ## remove what was built (engines/ and data/ stay)
	$(CARGO) clean
