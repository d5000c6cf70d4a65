#!/usr/bin/env bash
# Runs the tests that need Kubernetes on a cluster of their own: builds it, brings it up, takes it down again,
# and says what took how long.
#
#   test.sh [FILTER...]     default: kubernetes::, without what only measures (kubernetes::figures::)
#
#   COMPOSE_BROKER_TEST_KUBECONFIG  a test cluster that is up already (up.sh): it is used, and left up
set -euo pipefail
# shellcheck source-path=SCRIPTDIR
source "$(dirname "${BASH_SOURCE[0]}")/bed.sh"

cd "$root"
((EUID == 0)) || die 'the test cluster needs root, for namespaces, mounts and control groups'
summary=()

# stage NAME COMMAND...
stage() {
    local name=$1 start=$SECONDS status=0
    shift
    printf '\n== %s\n' "$name"
    "$@" || status=$?
    summary+=("$(printf '%5d s  %-8s %s' $((SECONDS - start)) "$name" "$( ((status)) && echo FAILED || echo ok)")")
    return "$status"
}

ours=
report() {
    local status=$?
    if [[ -n $ours ]]; then stage down "$here/down.sh" || status=1; fi
    printf '\n== durations\n'
    printf '%s\n' "${summary[@]}"
    exit "$status"
}
trap report EXIT
# Also then the cluster goes.
trap 'exit 130' INT
trap 'exit 143' TERM

built=${CARGO_TARGET_DIR:-target}/debug/compose-broker
stage build "$here/build.sh"
stage broker cargo build --locked --bin compose-broker
stage tests cargo test --locked --no-run --test it
filters=("${@:-kubernetes::}")
found=$(cargo test --locked --quiet --test it -- --ignored --list "${filters[@]}" | sed -n 's/: test$//p')
# What measures runs when it is asked for.
if (($# == 0)); then found=$(grep -v kubernetes::figures:: <<<"$found"); fi
[[ -n $found ]] || die "no test that needs a cluster has ${filters[*]} in its name"
# Those that end nodes or have the API server away, and those that measure, run alone, on the cluster that the scripts
# know.
lonely='kubernetes::(outages|figures)::'
mapfile -t alone < <(grep -E "$lonely" <<<"$found")
mapfile -t others < <(grep -Ev "$lonely" <<<"$found")
stage image "$here/broker-image.sh" "$built" test "${ETCD[@]}"
if [[ -z ${COMPOSE_BROKER_TEST_KUBECONFIG:-} ]]; then
    ours=yes
    export COMPOSE_BROKER_TEST_KUBECONFIG=$bed/admin.conf
fi
# One that is up already gets the new image.
if [[ $COMPOSE_BROKER_TEST_KUBECONFIG == "$bed/admin.conf" ]]; then stage up "$here/up.sh"; fi
# An address of the cluster that is reached from here.
export COMPOSE_BROKER_TEST_NODE_HOST=${COMPOSE_BROKER_TEST_NODE_HOST:-$(node_address n1)}
export PATH=$bin/kubernetes:$PATH KUBECACHEDIR=$bed/cache RUST_BACKTRACE=0 MALLOC_ARENA_MAX=2
run() { cargo test --locked --test it -- --ignored --nocapture --test-threads "$1" --exact "${@:2}"; }
if ((${#others[@]})); then stage run run 2 "${others[@]}"; fi
if [[ $COMPOSE_BROKER_TEST_KUBECONFIG == "$bed/admin.conf" ]] && ((${#alone[@]})); then
    stage alone run 1 "${alone[@]}"
fi
