#!/usr/bin/env bash
# Everything that must hold before a change lands, cheapest first. Stops at the
# first stage that fails; the durations are printed either way.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
built=${CARGO_TARGET_DIR:-target}/debug
summary=()

# What the stage that runs has printed. What fell in it is told once more at the end: the whole output
# may be too long to be kept.
told=$(mktemp)

report() {
    local status=$?
    if ((status)); then
        printf '\n== what fell\n'
        grep -A 6 'panicked at ' "$told" || grep -A 40 '= FAILURES =' "$told" || tail -n 40 "$told"
    fi
    rm -f "$told"
    printf '\n== durations\n'
    printf '%s\n' "${summary[@]}"
    exit "$status"
}

# stage NAME COMMAND...
stage() {
    local name=$1 start=$SECONDS status=0
    shift
    printf '\n== %s\n' "$name"
    "$@" 2>&1 | tee "$told" || status=$?
    summary+=("$(printf '%5d s  %-10s %s' $((SECONDS - start)) "$name" "$( ((status)) && echo FAILED || echo ok)")")
    return "$status"
}

trap report EXIT
stage setup scripts/setup.sh --browser --fuzz --rules --postgres
stage format cargo fmt --check
stage lint cargo clippy --all-targets --locked -- -D warnings
# Links of private items too: the map and the comments name them.
stage pages env RUSTDOCFLAGS='-D warnings' cargo doc --no-deps --document-private-items --locked --quiet
# With five tests for two processors these have little time left over.
export RUST_TEST_THREADS=${RUST_TEST_THREADS:-$((5 * $(nproc) / 2))}
# The tests' brokers start hundreds of processes out of one: each costs a copy of its map of memory, which
# is three times as large with an arena for each thread.
export MALLOC_ARENA_MAX=${MALLOC_ARENA_MAX:-2}
# The first lines of a panic say more than where it came through.
stage tests env RUST_BACKTRACE=0 cargo test --locked --no-fail-fast
# The rules of OSB and the failing steps of operations once more, in brokers over PostgreSQL. The whole suite:
# make test-postgres.
stage postgres env COMPOSE_BROKER_TEST_STORE=postgres RUST_BACKTRACE=0 cargo test --locked --test it -- \
    osb::durability osb::update osb::last_operation faults::in_memory story::
stage binaries cargo build --locked --bin compose-broker --example demo
stage demo "$built/examples/demo" --broker "$built/compose-broker" --plain
stage fuzz scripts/fuzz.sh
stage licences scripts/licences.sh
