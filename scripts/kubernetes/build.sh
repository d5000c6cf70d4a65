#!/usr/bin/env bash
# Builds what the test cluster runs, and packs the images of its pods. Takes what is there already and is
# still what it was built of: a second run does nothing.
#
# - Kubernetes, its nameserver, what makes volumes and what enforces network policies come from source, by Go.
#   Each folder of modules/ pins what one of them is built of, by version and by hash.
# - containerd, runc and the tools for packet filters come from packages of Debian. They are only unpacked.
# - etcd comes out of engines/ (scripts/engines.sh).
#
# With empty caches of Go it takes about a quarter of an hour on 2 cores, and 4 GiB of disk in them.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR
source "$(dirname "${BASH_SOURCE[0]}")/bed.sh"

readonly PACKAGES=(
    containerd runc libseccomp2
    nftables libnftables1 libjansson4 libedit2 libbsd0 libmd0
    iptables libxtables12 libip4tc2 libip6tc2 libnftnl11 libmnl0 libnetfilter-conntrack3 libnfnetlink0
    ipset libipset13
    busybox-static tini
)

# build MODULE FLAGS PACKAGE...: builds packages (tool: those that its go.mod names) into bin/MODULE/. The linker
# gets FLAGS.
build() {
    local module=$1 target=$bin/$1 start=$SECONDS origin log=$kept/$1.log
    origin=$(cat "$here/modules/$module"/* - <<<"$*" | sha256sum)
    if [[ $(cat "$target/.origin" 2>/dev/null) == "$origin" ]]; then return; fi
    command -v go >/dev/null || die "no Go in PATH, which Kubernetes is built with"
    say "$module: builds"
    rm -rf "$target"
    mkdir -p "$target"
    if ! (
        cd "$here/modules/$module" || exit
        export CGO_ENABLED=0 GOWORK=off
        go build -mod=readonly -trimpath -buildvcs=false -ldflags "-s -w $2" -o "$target/" "${@:3}"
    ) >"$log" 2>&1 </dev/null; then
        grep -v '^go: downloading ' "$log" | tail -n 20 >&2
        die "Go could not build modules/$module"
    fi
    rm "$log"
    # Last, so that half of it is never taken for the whole.
    echo "$origin" >"$target/.origin"
    say "$module: built in $((SECONDS - start)) s"
}

# Kubernetes knows of its version what the linker was told.
version_flags() {
    local version minor v=k8s.io/component-base/version
    version=$(sed -n 's/^require k8s.io\/kubernetes v//p' "$here/modules/kubernetes/go.mod")
    minor=${version#*.}
    echo "-X $v.gitVersion=v$version -X $v.gitMajor=${version%%.*} -X $v.gitMinor=${minor%%.*}"
}

unpack_debian() {
    local log=$kept/debian.log file tool
    if [[ $(cat "$debian/.origin" 2>/dev/null) == "${PACKAGES[*]}" ]]; then return; fi
    rm -rf "$debian"
    mkdir -p "$debian/packages"
    if ! (
        cd "$debian/packages" || exit
        # Lists may be stale or absent.
        apt-get -q download "${PACKAGES[@]}" || { apt-get -q update && apt-get -q download "${PACKAGES[@]}"; }
    ) >"$log" 2>&1 </dev/null; then
        tail -n 10 "$log" >&2
        die "apt-get could not download ${PACKAGES[*]}"
    fi
    rm "$log"
    for file in "$debian"/packages/*.deb; do dpkg-deb -x "$file" "$debian"; done
    rm -r "$debian/packages"
    # Debian makes these links when it installs the package.
    for file in {iptables,ip6tables}{,-save,-restore}; do ln -s xtables-nft-multi "$debian/usr/sbin/$file"; done
    for tool in containerd ctr runc nft ipset iptables busybox tini-static; do
        file=$(PATH=$debian_path type -P "$tool") || die "this Debian's packages have no $tool"
        if LD_LIBRARY_PATH=$debian_libraries ldd "$file" 2>/dev/null | grep 'not found' >&2; then
            die "$tool needs more than the packages in build.sh"
        fi
    done
    echo "${PACKAGES[*]}" >"$debian/.origin"
    say "packages of Debian: $(du -sh "$debian" | cut -f 1)"
}

# pack NAME:TAG COMMAND FILE...: an image with the files in /usr/local/bin, unless there is one that is newer.
pack() {
    local name=$1 command=$2 tree archive=$images/${1/:/-}.tar file is_new=yes
    shift 2
    for file in "$here"/{build,image}.sh "$@"; do
        if [[ ! $archive -nt $file ]]; then is_new=; fi
    done
    if [[ -n $is_new ]]; then return; fi
    tree=$(mktemp -d)
    mkdir -p "$tree/usr/local/bin"
    mkdir -m 1777 "$tree/tmp"
    cp -L "$@" "$tree/usr/local/bin/"
    # Those of engines have nothing but the engine.
    if [[ $name != etcd:* ]]; then
        add_busybox "$tree/usr/local/bin"
        ln -s usr/local/bin "$tree/bin"
    fi
    # One that tells its version is told it here.
    if [[ $name == teller:* ]]; then sed -i "s/VERSION/${name#*:}/" "$tree/usr/local/bin/teller"; fi
    "$here/image.sh" "$name" "$tree" "{\"Cmd\": $command, \"Env\": [\"PATH=/usr/local/bin\"]}"
    rm -r "$tree"
}

pack_images() {
    local version
    # A pod's sandbox is one, too: it sleeps.
    pack busybox:1 '["sleep", "2147483647"]' "$here/volume"
    for version in "${ETCD[@]}"; do
        pack "etcd:$version" '["etcd"]' "$engines/$version"/{etcd,etcdctl,etcdutl}
    done
    # The engine of the tests that every place for members has to pass.
    for version in 1.0.0 2.0.0; do pack "teller:$version" '["teller"]' "$here/teller/teller"; done
}

main() {
    local tool version
    for tool in apt-get dpkg-deb jq; do
        command -v "$tool" >/dev/null || die "no $tool in PATH"
    done
    for version in "${ETCD[@]}"; do
        [[ -x $engines/$version/etcdutl ]] || die "no etcd $version in $engines: scripts/engines.sh builds it, with Go"
    done
    mkdir -p "$kept"
    build kubernetes "$(version_flags)" \
        k8s.io/kubernetes/cmd/{kube-apiserver,kube-controller-manager,kube-proxy,kube-scheduler,kubectl,kubelet}
    build cni '' tool
    build dns '' .
    build storage '' tool
    build policy '' tool
    unpack_debian
    pack_images
}

main
