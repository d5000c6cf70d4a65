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

# What tests went without on this machine: they pass all the same, and what they print is not shown.
skipped=$(mktemp)
export COMPOSE_BROKER_TEST_SKIPPED=$skipped

# has PART: whether the machine has what a test said that it went without. Who goes without all the same has tried
# nothing where it could have. What a machine may lack: rights to make namespaces and to mount, and what setup.sh
# says itself that it could not fetch or build.
has() {
    case $1 in
        'network namespaces') unshare --net true || unshare --user --map-root-user --net true ;;
        'a volume of its own' | 'a small store' | 'a full mirror' | 'a file that cannot be removed') mounts ;;
        age) command -v age ;;
        promtool) command -v promtool || [[ -x tools/promtool/promtool ]] ;;
        S3) [[ -x tools/versitygw/versitygw ]] ;;
        'object lock') [[ -z ${COMPOSE_BROKER_TEST_S3:-} ]] ;;
        PostgreSQL | 'a pooler of PostgreSQL') true ;;
        *) true ;;
    esac >/dev/null 2>&1
}

mounts() {
    local folder status=0
    folder=$(mktemp -d)
    { mount -t tmpfs tmpfs "$folder" && umount "$folder"; } || status=1
    rmdir "$folder"
    return "$status"
}

# The lines of what was skipped though the machine has it; all of them where FAIL_ON_SKIPPED says that it has to.
untried() {
    local line part
    while IFS= read -r line; do
        part=${line#SKIPPED: }
        part=${part%% (*}
        if [[ -n ${FAIL_ON_SKIPPED:-} && $part != promtool ]] || has "$part"; then printf '%s\n' "$line"; fi
    done
}

report() {
    local status=$? untried
    if ((status)); then
        printf '\n== what fell\n'
        grep -A 6 'panicked at ' "$told" || grep -A 40 '= FAILURES =' "$told" || tail -n 40 "$told"
    fi
    printf '\n== durations\n'
    printf '%s\n' "${summary[@]}"
    if [[ -s $skipped ]]; then
        printf '\n== skipped\n'
        sort -u "$skipped"
        untried=$(sort -u "$skipped" | untried)
        if [[ -n $untried ]]; then
            printf '\n== skipped, and this machine has what it takes\n%s\n' "$untried"
            ((status)) || status=1
        fi
    fi
    rm -f "$told" "$skipped"
    exit "$status"
}

# stage NAME COMMAND...
stage() {
    local name=$1 start=$SECONDS status=0
    shift
    printf '\n== %s\n' "$name"
    : >"$told"
    "$@" 2>&1 | tee "$told" || status=$?
    summary+=("$(printf '%5d s  %-10s %s' $((SECONDS - start)) "$name" "$( ((status)) && echo FAILED || echo ok)")")
    return "$status"
}

# What only the tests need comes over the network.
tools() { scripts/setup.sh --browser --fuzz --rules --age --s3 --postgres; }

# It waits most of the time.
demo() { "$built/examples/demo" --broker "$built/compose-broker" --plain; }

# beside NAME COMMAND...: runs the command while the function of that name runs, which takes little of the
# processors from it. Both have to succeed.
beside() {
    local other=$1 said status=0
    shift
    said=$(mktemp)
    "$other" >"$said" 2>&1 &
    "$@" || status=$?
    wait $! || status=$?
    cat "$said"
    rm "$said"
    return "$status"
}

# Takes what tests leave of the processors, and nothing of theirs: they wait for databases much of their time.
# What builds keeps others from it, so this begins when the tests have begun.
lint() {
    local given_up=$((SECONDS + 60))
    until grep -q '^running [0-9]* tests' "$told" || ((SECONDS > given_up)); do sleep 1; done
    chrt --idle 0 cargo clippy --all-targets --locked -- -D warnings &&
        # Links of private items too: the map and the comments name them.
        RUSTDOCFLAGS='-D warnings' chrt --idle 0 cargo doc --no-deps --document-private-items --locked --quiet
}

trap report EXIT
stage setup scripts/setup.sh
stage format cargo fmt --check
# All targets but benchmarks: the broker and the demo, too.
stage build beside tools cargo test --locked --no-run
# The tests' brokers start hundreds of processes out of one: each costs a copy of its map of memory, which
# is three times as large with an arena for each thread.
export MALLOC_ARENA_MAX=${MALLOC_ARENA_MAX:-2}
# The first lines of a panic say more than where it came through.
export RUST_BACKTRACE=0
# Those of one part wait for a process of its own most of the time. With ten of them for two processors, or five
# of a whole broker, these have little time left over.
stage units+demo beside demo env RUST_TEST_THREADS="${RUST_TEST_THREADS:-$((5 * $(nproc)))}" \
    cargo test --locked --no-fail-fast --lib
export RUST_TEST_THREADS=${RUST_TEST_THREADS:-$((5 * $(nproc) / 2))}
stage suite+lint beside lint cargo test --locked --no-fail-fast --test it
# The rules of OSB and the failing steps of operations once more, in brokers over PostgreSQL. The whole suite:
# make test-postgres.
stage postgres+fuzz beside scripts/fuzz.sh env COMPOSE_BROKER_TEST_STORE=postgres cargo test --locked --test it -- \
    osb::durability osb::update osb::last_operation faults::in_memory story::
stage licences scripts/licences.sh
