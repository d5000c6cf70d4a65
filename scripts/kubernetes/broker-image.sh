#!/usr/bin/env bash
# Packs a broker's binary as the image that deploy/Dockerfile makes, without a builder of images: the test
# cluster runs it.
#
#   broker-image.sh BINARY TAG [VERSION...]
#
# VERSIONs of etcd come from engines/. How it runs is what the last stage of the Dockerfile says. Unlike
# that one it has of Debian the libraries alone, and a busybox in the place of its tools.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR
source "$(dirname "${BASH_SOURCE[0]}")/bed.sh"

binary=$1 tag=$2
shift 2
[[ -x $binary ]] || die "$binary is not a program"
[[ -s $debian/.origin ]] || die "nothing is built in $kept: run scripts/kubernetes/build.sh"
tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT

# The last stage of the Dockerfile, each instruction in a line.
stage=$(sed -e ':next; /\\$/ { N; s/\\\n *//; b next }' "$root/deploy/Dockerfile" |
    awk '/^FROM / { stage = "" } { stage = stage $0 "\n" } END { printf "%s", stage }')
of_stage() { sed -n "s/^$1 //p" <<<"$stage"; }
place=$tree$(of_stage WORKDIR)
# shellcheck disable=SC2046 # settings, a word each
environment=$(printf '%s\n' PATH=/usr/bin:/bin $(of_stage ENV) | jq -R . | jq -s .)
config=$(jq -n --arg user "$(of_stage USER)" --arg place "$(of_stage WORKDIR)" --argjson env "$environment" \
    --argjson entry "$(of_stage ENTRYPOINT)" --argjson arguments "$(of_stage CMD)" \
    '{User: $user, WorkingDir: $place, Env: $env, Entrypoint: $entry, Cmd: $arguments}')

mkdir -p "$place/engines/etcd" "$tree"/{bin,usr/bin,etc/ssl/certs,data}
mkdir -m 1777 "$tree/tmp"
strip -o "$place/compose-broker" "$binary"
cp "$root/catalog.json" "$place/"
for version; do cp -rL "$engines/$version" "$place/engines/etcd/"; done
cp "$(PATH=$debian_path type -P tini-static)" "$tree/usr/bin/tini"
add_busybox "$tree/bin"
cp -L /etc/ssl/certs/ca-certificates.crt "$tree/etc/ssl/certs/"
echo 'compose-broker:x:10001:10001::/data:/usr/sbin/nologin' >"$tree/etc/passwd"
echo 'compose-broker:x:10001:' >"$tree/etc/group"
# What programs are linked with, at the places where they look for it.
find "$place" -type f -perm /111 -exec ldd {} \; 2>/dev/null |
    sed -nE 's/.* => (\/[^ ]+) .*|^\t(\/[^ ]+) \(.*/\1\2/p' | sort -u |
    while read -r library; do
        mkdir -p "$tree${library%/*}"
        cp -L "$library" "$tree$library"
    done
"$here/image.sh" "compose-broker:$tag" "$tree" "$config"
