#!/usr/bin/env bash
# Runs on a node: gives its containerd the images that are newer than those it has.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR
source "$(dirname "${BASH_SOURCE[0]}")/bed.sh"

export PATH=$debian_path:$PATH LD_LIBRARY_PATH=$debian_libraries
for archive in "$images"/*.tar; do
    # On the node's disk, so that one that boots again has what it had.
    mark=/var/lib/images/$(basename "$archive")
    if [[ $mark -nt $archive ]]; then continue; fi
    ctr --namespace k8s.io images import "$archive"
    mkdir -p "${mark%/*}"
    touch "$mark"
done
