#!/usr/bin/env bash
# Packs a folder as an image, without a registry and without a builder: an archive in OCI's layout, which
# containerd imports.
#
#   image.sh NAME:TAG FOLDER CONFIG
#
# CONFIG says in JSON how it runs (Entrypoint, Cmd, Env, User, WorkingDir). Everything in it is root's.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR
source "$(dirname "${BASH_SOURCE[0]}")/bed.sh"

name=$1 folder=$2 config=$3
archive=$images/${name/:/-}.tar
mkdir -p "$images"
work=$(mktemp -d "$images/.new.XXXXXX")
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/blobs/sha256"

# keep FILE KIND: names a file after what is in it, and prints how others refer to it.
keep() {
    local digest size
    digest=$(sha256sum <"$1" | cut -d ' ' -f 1)
    size=$(stat -c %s "$1")
    mv "$1" "$work/blobs/sha256/$digest"
    jq -n --arg type "application/vnd.oci.image.$2" --arg digest "sha256:$digest" --argjson size "$size" \
        '{mediaType: $type, digest: $digest, size: $size}'
}

tar -C "$folder" --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner -cf "$work/layer" .
layer=$(keep "$work/layer" layer.v1.tar)
jq -n --arg architecture "$(dpkg --print-architecture)" --argjson config "$config" --argjson layer "$layer" \
    '{$architecture, os: "linux", $config, rootfs: {type: "layers", diff_ids: [$layer.digest]}}' >"$work/config"
config=$(keep "$work/config" config.v1+json)
jq -n --argjson config "$config" --argjson layer "$layer" \
    '{schemaVersion: 2, $config, layers: [$layer]}' >"$work/manifest"
manifest=$(keep "$work/manifest" manifest.v1+json)
jq -n --argjson manifest "$manifest" --arg name "$REGISTRY/$name" \
    '{schemaVersion: 2, manifests: [$manifest + {annotations: {"io.containerd.image.name": $name}}]}' \
    >"$work/index.json"
echo '{"imageLayoutVersion": "1.0.0"}' >"$work/oci-layout"
tar -C "$work" -cf "$work/archive" oci-layout index.json blobs
# Last, so that nobody loads half an image.
mv "$work/archive" "$archive"
say "image $REGISTRY/$name, $(($(stat -c %s "$archive") >> 20)) MiB"
