#!/usr/bin/env bash
# Sends thousands of requests, good and bad ones, that schemathesis makes out of
# the OpenAPI documents which a broker serves, and fails on the first kind of
# answer that the documents do not tell of.
#
#   fuzz.sh [EXAMPLES]   requests made up for each operation (default: 20),
#                        beside the systematic ones
#
# The broker is the debug build's, on a free port, with a real database, a
# binding and a backup, so that requests get further than to a 404. The
# requests are the same in each run, as long as the documents are. Leaves
# nothing behind: neither the broker nor members nor the folder.
#
#   COMPOSE_BROKER   the broker's program (default: target/debug/compose-broker)
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
root=$PWD
broker=${COMPOSE_BROKER:-${CARGO_TARGET_DIR:-target}/debug/compose-broker}
st=$root/tools/schemathesis/bin/schemathesis
examples=${1:-20}

# The instance that everything happens to, and the one that may be deleted: both
# are what the documents' examples and the dictionaries below lead to.
readonly INSTANCE=fuzzed DOOMED=doomed GONE=gone BINDING=bound
# Members of four instances: the rest of what fuzzing provisions finds no port.
readonly PORTS=24

die() {
    echo "fuzz: $*" >&2
    exit 1
}

[[ -x $st ]] || die "no schemathesis; scripts/setup.sh --fuzz fetches it"
[[ -x $broker ]] || die "no broker; cargo build --bin compose-broker makes it"

work=$(mktemp -d)
pid=

# Processes whose command line names our folder: the members of our databases.
members() {
    local folder
    for folder in /proc/[0-9]*; do
        if tr '\0' '\n' 2>/dev/null <"$folder/cmdline" | grep -qF "$work/"; then
            echo "${folder#/proc/}"
        fi
    done
}

clean_up() {
    local status=$? left
    trap - EXIT INT TERM
    if [[ -n $pid ]]; then
        # First the broker, which would start members again.
        kill "$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
    fi
    mapfile -t left < <(members)
    if ((${#left[@]})); then kill -KILL "${left[@]}" 2>/dev/null || true; fi
    if ((status)) && [[ -f $work/log ]]; then
        echo "fuzz: what the broker logged as errors:" >&2
        grep -w ERROR "$work/log" | tail -n 20 >&2 || true
    fi
    rm -rf "$work"
    exit "$status"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# until_true SECONDS COMMAND...
until_true() {
    local end=$((SECONDS + $1))
    shift
    until "$@"; do
        kill -0 "$pid" 2>/dev/null || die "the broker has ended: $(tail -n 5 "$work/log")"
        ((SECONDS < end)) || die "waited in vain for: $*"
        sleep 0.2
    done
}

is_taken() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

free_ports() {
    local first port
    for _ in {1..50}; do
        # Above those that the tests take, which may run meanwhile.
        first=$((28000 + RANDOM % 190 * PORTS))
        for ((port = first; port < first + PORTS; port++)); do
            if is_taken "$port"; then continue 2; fi
        done
        echo "$first-$((first + PORTS - 1))"
        return
    done
    die "no $PORTS free ports in a row"
}

# osb METHOD PATH [BODY]
osb() {
    curl -sS --fail-with-body -X "$1" -u "$username:$password" \
        -H 'X-Broker-API-Version: 2.17' ${3:+--data "$3"} "$url/v2/$2"
}

# compose METHOD PATH [BODY]
compose() {
    curl -sS --fail-with-body -X "$1" -H "Authorization: Bearer $token" ${3:+--data "$3"} \
        "$url/api/2016-07/instances/$INSTANCE/$2"
}

# ---- a broker with something to fuzz --------------------------------------

# A backup is pushed out by those that fuzzing takes, unless all are kept.
jq '.services[].plans[].broker.on_demand_backups_kept = 1000' catalog.json >"$work/catalog.json"
# What databases may become need not fit on this disk.
echo '[{"id":"local","name":"This machine","capacity_units":1000}]' >"$work/clusters.json"
ports=$(free_ports)
# Requests come faster here than from any one client that is let in.
"$broker" serve --listen 127.0.0.1:0 --data-dir "$work/data" --port-range "$ports" \
    --catalog "$work/catalog.json" --clusters "$work/clusters.json" --requests-per-second 0 \
    --backup-pause 0 --failed-sign-ins 0 --backup-mirror "file://$work/mirror" >"$work/log" 2>&1 </dev/null &
pid=$!
serves() { grep -q 'compose-broker serves ' "$work/log"; }
until_true 60 serves
url=$(sed -n 's/.*compose-broker serves //p' "$work/log")
username=$(<"$work/data/username")
password=$(<"$work/data/password")

catalog=$(osb GET catalog)
service=$(jq -r '.services[0].id' <<<"$catalog")
plan=$(jq -r '.services[0].plans[0].id' <<<"$catalog")
ids="\"service_id\":\"$service\",\"plan_id\":\"$plan\""

is_ready() { osb GET "service_instances/$1/last_operation" | grep -q '"succeeded"'; }
for id in "$INSTANCE" "$DOOMED" "$GONE"; do
    # An older version, so that there is one to upgrade to.
    osb PUT "service_instances/$id?accepts_incomplete=true" \
        "{$ids,\"organization_guid\":\"o\",\"space_guid\":\"s\",\"parameters\":{\"db_version\":\"3.5.16\"}}" >/dev/null
done
until_true 120 is_ready "$INSTANCE"
until_true 120 is_ready "$DOOMED"
until_true 120 is_ready "$GONE"
# Its last backup is kept.
osb DELETE "service_instances/$GONE?service_id=$service&plan_id=$plan&accepts_incomplete=true" >/dev/null
deleted() {
    curl -sS --fail-with-body -u "$username:$password" "$url/operator/deleted_instances" |
        jq -er '.deleted_instances[0].deployment_id'
}
until_true 120 deleted >/dev/null
osb PUT "service_instances/$INSTANCE/service_bindings/$BINDING" "{$ids}" >/dev/null
# The token is another binding's, since that one will be unbound.
osb PUT "service_instances/$INSTANCE/service_bindings/kept" "{$ids}" >"$work/binding"
token=$(jq -r '.credentials.instance_administration_api.token' "$work/binding")
deployment=$(jq -r '.credentials.deployment_id' "$work/binding")
recipe=$(compose POST "deployments/$deployment/backups" | jq -r .id)
is_complete() { compose GET "recipes/$recipe" | grep -q '"complete"'; }
until_true 120 is_complete
backup=$(compose GET "recipes/$recipe" | jq -r .backup_id)
link=$(compose GET "deployments/$deployment/backups/$backup" | jq -r .download_link)
logfile=$(compose GET "deployments/$deployment/logfiles" | jq -r '._embedded.logfiles[0].id')
upload=$(compose POST "deployments/$deployment/uploads" '{"upload":{"bytes":1000}}' | jq -r .id)
log_link=$(compose GET "deployments/$deployment/logfiles/$logfile" | jq -r .download_link)

# ---- the two documents ----------------------------------------------------

cp scripts/schemathesis.toml "$work/"
cd "$work"
# entry NAME VALUE: a dictionary of one value
entry() { printf '"%s"\n' "$2" >"$1"; }
entry instance "$INSTANCE"
entry binding "$BINDING"
entry service "$service"
entry plan "$plan"
entry deployment "$deployment"
entry backup "$backup"
entry recipe "$recipe"
entry upload "$upload"
entry logfile "$logfile"
entry deleted "$(deleted)"
# of NAME LINK: a field of the link's query
of() { sed "s/.*[?&]$1=\([^&]*\).*/\1/" <<<"$2"; }
entry expires "$(of expires "$link")"
entry signature "$(of signature "$link")"
entry log_expires "$(of expires "$log_link")"
entry log_signature "$(of signature "$log_link")"
export FUZZ_USERNAME=$username FUZZ_PASSWORD=$password FUZZ_TOKEN=$token

# fuzz NAME: a document with the ids of what is there as its examples, which
# systematic requests are made of; dictionaries are for those that are made up.
# The version of OSB is one of a list, since systematic requests do not know how
# to make a header that fits a pattern with a dot.
fuzz() {
    curl -sS --fail "$url/openapi/$1.json" |
        jq --arg instance "$INSTANCE" --arg binding "$BINDING" --arg deployment "$deployment" \
            --arg backup "$backup" --arg recipe "$recipe" \
            --arg operation "$recipe" --arg logfile "$logfile" --arg cluster local '
            $ARGS.named as $there
            | .components.parameters |= with_entries(
                if $there[.key] then .value.example = $there[.key]
                elif .key == "X-Broker-API-Version" then
                    .value.schema = { type: "string", enum: ["2.17", "2.16", "2.15", "2.13"] }
                else . end)' >"$1.json"
    printf '\nfuzz: %s\n' "$1"
    "$st" --config-file schemathesis.toml run --url "$url" --max-examples "$examples" \
        --no-color "$1.json"
}

status=0
# OSB last: there things are deleted.
for document in compose operator osb; do
    fuzz "$document" || status=1
done
exit "$status"
