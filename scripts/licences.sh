#!/usr/bin/env bash
# Holds the dependencies to deny.toml: allowed licences for all that is built
# into the broker, and no banned crate anywhere. Needs cargo and jq alone, since
# cargo-deny is not on every machine; where it is, it runs as well.
#
# Uses no network once the crates are downloaded. The database of security
# advisories is a repository that has to be fetched, so advisories are checked
# only where cargo-deny and a copy of that database are present.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."

# list SECTION KEY: the strings of an array in deny.toml, as a JSON array. An
# empty one is an error, for then nothing would be checked.
list() {
    local strings
    strings=$(awk -v section="[$1]" -v key="$2" '
        { sub(/#.*/, "") }
        /^\[/ { here = ($1 == section) }
        here && $1 == key { inside = 1 }
        inside { print }
        inside && /\]/ { exit }
    ' deny.toml | grep -o '"[^"]*"') || {
        echo "licences: deny.toml has no list '$2' in [$1]" >&2
        return 1
    }
    jq -cs . <<<"$strings"
}

# The crates of one platform: those of others are neither built nor, on most
# machines, downloaded.
host=$(rustc -vV | sed -n 's/^host: //p')
metadata() {
    cargo metadata --locked --filter-platform "$host" --format-version 1
}

# Reads cargo's metadata. Two lists come out, one crate per line:
#   licence NAME VERSION EXPRESSION   built in, but not allowed
#   banned NAME VERSION               in the graph, tests included
# and a last line "checked COUNT".
# shellcheck disable=SC2016 # $names are those of jq
findings='
    # "T&F|T" for what stands between two parentheses; AND binds before OR
    def flat:
        test("^[TF]([&|][TF])*$") and (split("|") | any(split("&") | all(. == "T")));
    # innermost parentheses first
    def truth:
        if test("[()]")
        then (sub("\\((?<inner>[^()]*)\\)"; if .inner | flat then "T" else "F" end)) as $next
            | if $next == . then false else $next | truth end
        else flat end;

    # An SPDX expression, or the older form "A/B" which means OR. Whatever is
    # not understood counts as not allowed.
    def permitted:
        gsub("/"; " OR ")
        | [scan("[()]|[^\\s()]+(?:\\s+WITH\\s+[^\\s()]+)?")
            | if . == "(" or . == ")" then .
              elif . == "AND" then "&"
              elif . == "OR" then "|"
              elif (gsub("\\s+"; " ")) as $id | any($allow[]; . == $id) then "T"
              else "F" end]
        | join("") | truth;

    def ids($kinds; $nodes):
        def grow:
            . as $have
            | (. + [.[] | $nodes[.].deps[]
                | select(any(.dep_kinds[].kind; . as $kind | any($kinds[]; . == $kind)))
                | .pkg] | unique)
            | if . == $have then . else grow end;
        grow;

    (.packages | map({key: .id, value: .}) | from_entries) as $packages
    | (.resolve.nodes | map({key: .id, value: .}) | from_entries) as $nodes
    | ([.resolve.root] | ids([null, "build"]; $nodes)) as $built
    | ([.resolve.root] | ids([null, "build", "dev"]; $nodes)) as $all
    | ($built[] | $packages[.] | select(.license // "" | permitted | not)
        | "licence \(.name) \(.version) \(.license // "no licence named")"),
      ($all[] | $packages[.] | select(.name as $name | any($deny[]; . == $name))
        | "banned \(.name) \(.version)"),
      "checked \($built | length)"
'

has_advisories() { compgen -G "${CARGO_HOME:-$HOME/.cargo}/advisory-dbs/*/" >/dev/null; }

failed=0
allow=$(list licenses allow)
deny=$(list bans deny)
found=$(metadata | jq -r --argjson allow "$allow" --argjson deny "$deny" "$findings")
while read -r kind name rest; do
    case $kind in
        licence)
            echo "licences: not allowed: $name $rest" >&2
            failed=1
            ;;
        banned)
            echo "licences: banned crate $name $rest is wanted by:" >&2
            cargo tree --locked --offline --invert "$name@$rest" >&2 || true
            failed=1
            ;;
        checked) echo "licences: $name crates are built in, allowed: $(jq -r 'join(", ")' <<<"$allow")" ;;
    esac
done <<<"$found"

if command -v cargo-deny >/dev/null; then
    cargo deny --offline check licenses bans sources || failed=1
    if has_advisories; then
        cargo deny --offline check advisories || failed=1
    fi
fi
exit "$failed"
