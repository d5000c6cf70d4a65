#!/usr/bin/env bash
# Puts real etcd binaries of several versions into engines/etcd/<version>/.
#
# Every version comes as a package of one Debian suite. They cannot be installed
# side by side, and most belong to another suite than the machine's own, so apt
# gets a state of its own in a temporary folder, downloads with the usual
# signature checks, and the packages are only unpacked. The system's own apt and
# dpkg never hear of it, and no root is needed.
#
#   COMPOSE_BROKER_ENGINES_DIR    where to (default: engines/ in the project's root)
#   COMPOSE_BROKER_DEBIAN_MIRROR  archive URIs to try before the machine's own
#
# Exit 0: two or more versions are ready (upgrade tests need two). Exit 1: fewer.
set -euo pipefail

# suite and the version it is expected to hold
readonly WANTED=(bullseye:3.3.25 bookworm:3.4.23 trixie:3.5.16 forky:3.5.30)
readonly TOOLS=(etcd etcdctl etcdutl) # etcdutl exists from 3.5 on
readonly ENOUGH=2

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
engines=${COMPOSE_BROKER_ENGINES_DIR:-$root/engines}
target=$engines/etcd
work=
keyring=
mirrors=()
missing=()
declare -A ready=()

warn() { echo "engines: $*" >&2; }
die() {
    warn "$*"
    exit 1
}

# ---- what is there already ------------------------------------------------

# The version that a binary gives itself; fails when it does not run here.
version_of() {
    local text
    text=$("$1" --version 2>/dev/null) || return 1
    [[ $text =~ ^etcd\ Version:\ ([0-9][0-9A-Za-z.+~-]*) ]] || return 1
    echo "${BASH_REMATCH[1]}"
}

is_ready() {
    local dir=$1
    [[ -x $dir/etcd && -x $dir/etcdctl ]] && [[ $(version_of "$dir/etcd") == "${dir##*/}" ]]
}

# Fills ready: each version that answers -> the suite and package it came from.
look() {
    local dir
    ready=()
    for dir in "$target"/*/; do
        dir=${dir%/}
        if ! is_ready "$dir"; then continue; fi
        ready[${dir##*/}]=unknown
        if [[ -f $dir/.origin ]]; then ready[${dir##*/}]=$(<"$dir/.origin"); fi
    done
}

# The ready version that serves for a suite: the expected one, or what the suite
# held instead when it was unpacked. Without the latter, a suite that has moved
# on would be downloaded again at every run.
serving() {
    local suite=$1 expected=$2 version
    if [[ -v ready[$expected] ]]; then
        echo "$expected"
        return
    fi
    for version in "${!ready[@]}"; do
        if [[ ${ready[$version]} == "$suite "* ]]; then
            echo "$version"
            return
        fi
    done
    return 1
}

# Fills missing: the suites of the given ones for which nothing is ready.
look_for() {
    local pair
    look
    missing=()
    for pair in "${WANTED[@]}"; do
        if [[ " $* " == *" ${pair%%:*} "* ]] && ! serving "${pair%%:*}" "${pair#*:}" >/dev/null; then
            missing+=("${pair%%:*}")
        fi
    done
}

# ---- the machine's own Debian archive -------------------------------------

# Both kinds of source files in, "uri" lines out: those entries which name a
# plain Debian suite with the component main (thus no security, no updates).
archive_uris() {
    local codename
    codename=$(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release 2>/dev/null || true)
    awk -v codename="${codename:-stable}" '
        BEGIN {
            count = split("bullseye bookworm trixie forky sid oldoldstable oldstable stable testing unstable " codename, list, " ")
            for (i = 1; i <= count; i++) plain[list[i]] = 1
        }
        function has(words, word,    parts, n, i) {
            n = split(words, parts, " ")
            for (i = 1; i <= n; i++) if (parts[i] == word) return 1
            return 0
        }
        function offer(uris, suites, components,    parts, n, i, fits) {
            if (!has(components, "main")) return
            n = split(suites, parts, " ")
            for (i = 1; i <= n; i++) if (parts[i] in plain) fits = 1
            if (!fits) return
            n = split(uris, parts, " ")
            for (i = 1; i <= n; i++) if (parts[i] !~ /^cdrom:/) print parts[i]
        }
        function end_stanza() {
            if (has(field["types"], "deb") && tolower(field["enabled"]) !~ /^[ \t]*(no|false|off|0)[ \t]*$/)
                offer(field["uris"], field["suites"], field["components"])
            split("", field)
            name = ""
        }
        FNR == 1 { end_stanza(); stanzas = FILENAME ~ /\.sources$/ }
        /^[ \t]*#/ { next }
        !stanzas && $1 == "deb" {
            sub(/\[[^]]*\]/, "")
            sub(/#.*/, "")
            components = ""
            for (i = 4; i <= NF; i++) components = components " " $i
            offer($2, $3, components)
        }
        !stanzas { next }
        /^[ \t]*$/ { end_stanza(); next }
        /^[ \t]/ { if (name != "") field[name] = field[name] " " $0; next }
        {
            name = tolower(substr($0, 1, index($0, ":") - 1))
            field[name] = substr($0, index($0, ":") + 1)
        }
        END { end_stanza() }
    ' "$@"
}

# Fills mirrors: the archives worth a try, likeliest first. A foreign archive
# that slips through is refused later, for it has no signature by Debian.
find_mirrors() {
    local list='' parts='' files=() file uris
    eval "$(apt-config shell list Dir::Etc::sourcelist/f parts Dir::Etc::sourceparts/d)"
    for file in "$list" "${parts%/}"/*.list "${parts%/}"/*.sources; do
        if [[ -f $file && -r $file ]]; then files+=("$file"); fi
    done
    uris=''
    if ((${#files[@]})); then uris=$(archive_uris "${files[@]}"); fi
    mapfile -t mirrors < <({
        tr -s ' ' '\n' <<<"${COMPOSE_BROKER_DEBIAN_MIRROR:-}"
        grep -E '/debian[^/]*/?$' <<<"$uris" || true
        echo "$uris"
    } | sed '/^$/d' | awk '!seen[$0]++')
    ((${#mirrors[@]}))
}

find_keyring() {
    local file
    for file in "$1"/usr/share/keyrings/debian-archive-keyring.{pgp,gpg}; do
        if [[ -r $file ]]; then
            echo "$file"
            return
        fi
    done
    return 1
}

# ---- an apt of our own ----------------------------------------------------

# Writes the apt configuration for one suite below $1. How to reach an archive
# (proxies, time-outs, whether dates are checked) is taken over from the machine;
# its hooks and extra indexes are not, and signatures are always required.
private_apt() {
    local dir=$1 suite=$2 mirror=$3 keys=$4
    mkdir -p "$dir"/{state/lists/partial,cache/archives/partial,log,empty,debs}
    : >"$dir/status"
    echo "deb [signed-by=$keys] $mirror $suite main" >"$dir/sources.list"
    {
        apt-config dump | grep -E '^Acquire::(http|https|ForceIP|Retries|Check-|M(in|ax)-ValidTime)' || true
        cat <<CONF
Dir::State "$dir/state/";
Dir::State::status "$dir/status";
Dir::Cache "$dir/cache/";
Dir::Cache::pkgcache "";
Dir::Cache::srcpkgcache "";
Dir::Log "$dir/log/";
Dir::Etc::sourcelist "$dir/sources.list";
Dir::Etc::sourceparts "$dir/empty";
Dir::Etc::parts "$dir/empty";
Dir::Etc::main "$dir/none";
Dir::Etc::preferences "$dir/none";
Dir::Etc::preferencesparts "$dir/empty";
Dir::Etc::trusted "$dir/none";
Dir::Etc::trustedparts "$dir/empty";
APT::Sandbox::User "root";
APT::Update::Error-Mode "any";
Acquire::Languages "none";
Acquire::GzipIndexes "true";
Acquire::Retries "1";
Acquire::http::Timeout "20";
Acquire::https::Timeout "20";
Acquire::AllowInsecureRepositories "false";
Acquire::AllowWeakRepositories "false";
Acquire::AllowDowngradeToInsecureRepositories "false";
CONF
    } >"$dir/apt.conf"
}

# download DIR SUITE KEYS PACKAGE...: the packages' files end up in DIR/debs.
download() {
    local dir=$1 suite=$2 keys=$3 mirror
    shift 3
    for mirror in "${mirrors[@]}"; do
        rm -rf "$dir"
        private_apt "$dir" "$suite" "$mirror" "$keys"
        if (
            cd "$dir/debs"
            export APT_CONFIG=$dir/apt.conf LC_ALL=C
            apt-get -q update && apt-get -q download "$@"
        ) </dev/null >>"$dir.log" 2>&1; then
            return
        fi
    done
    return 1
}

# ---- from a suite to a folder ---------------------------------------------

# Unpacks a suite's packages next to the target and renames the result into
# place, so that nobody ever sees half a version.
install_suite() {
    local suite=$1 keys=$2 dir=$work/$1 deb tool fresh version
    download "$dir" "$suite" "$keys" etcd-server etcd-client || return 1
    for deb in "$dir"/debs/*.deb; do
        dpkg-deb -x "$deb" "$dir/tree"
    done
    fresh=$target/.new-$suite
    rm -rf "$fresh"
    mkdir "$fresh"
    for tool in "${TOOLS[@]}"; do
        if [[ -f $dir/tree/usr/bin/$tool ]]; then
            install -m 0755 "$dir/tree/usr/bin/$tool" "$fresh/$tool"
        fi
    done
    deb=$(echo "$dir"/debs/etcd-server_*.deb)
    echo "$suite $(dpkg-deb -f "$deb" Version)" >"$fresh/.origin"
    if ! version=$(version_of "$fresh/etcd"); then
        echo "etcd of $suite does not run on this machine" >>"$dir.log"
        return 1
    fi
    rm -rf "${target:?}/$version"
    mv -T "$fresh" "$target/$version"
}

# A suite may be signed by keys that are younger than this machine. The newer
# keyring is then fetched as a package of trixie, whose own signature the old
# keyring vouches for.
fetch_newer_keyring() {
    local dir=$work/keyring
    download "$dir" trixie "$keyring" debian-archive-keyring || return 1
    dpkg-deb -x "$dir"/debs/debian-archive-keyring_*.deb "$dir/tree"
    find_keyring "$dir/tree"
}

lacks_key() {
    grep -qE 'NO_PUBKEY|[Mm]issing key|public key is not available' "$work/$1.log" 2>/dev/null
}

# What apt said first, in one line.
reason() {
    local log=$work/$1.log text=''
    if [[ -s $log ]]; then
        text=$(grep -E -A 1 '^(E:|W:|Err:|etcd of)' "$log" | sed -n '1,2p' | tr -s '\n ' ' ') || true
    fi
    echo "${text:-not fetched}"
}

# Installs the given suites at the same time. What became of each is not told
# by an exit status but by a look into the target afterwards.
install_all() {
    local keys=$1 suite
    shift
    set -m # each job a process group, so that clean_up can stop its apt too
    for suite in "$@"; do
        install_suite "$suite" "$keys" >/dev/null &
    done
    set +m
    wait
}

fetch() {
    local tool suite newer unsigned=()
    for tool in apt-get apt-config dpkg-deb; do
        command -v "$tool" >/dev/null || { warn "$tool not found: this needs a Debian machine" && return; }
    done
    keyring=$(find_keyring '') || { warn "no Debian keyring: apt-get install debian-archive-keyring" && return; }
    find_mirrors || { warn "no Debian archive in the apt sources; name one in COMPOSE_BROKER_DEBIAN_MIRROR" && return; }
    install_all "$keyring" "$@"
    look_for "$@"
    for suite in "${missing[@]}"; do
        if lacks_key "$suite"; then unsigned+=("$suite"); fi
    done
    if ((${#unsigned[@]})) && newer=$(fetch_newer_keyring); then
        install_all "$newer" "${unsigned[@]}"
    fi
}

clean_up() {
    local job
    for job in $(jobs -p); do
        kill -- "-$job" 2>/dev/null || true
    done
    wait
    rm -rf "$work" "$target"/.new-*
}

report() {
    local fetched=" $* " pair suite expected version note
    for pair in "${WANTED[@]}"; do
        suite=${pair%%:*} expected=${pair#*:}
        if ! version=$(serving "$suite" "$expected"); then
            warn "warning: no etcd $expected from $suite: $(reason "$suite")"
            continue
        fi
        note=present
        if [[ $fetched == *" $suite "* ]]; then note="unpacked from ${ready[$version]}"; fi
        if [[ $version != "$expected" ]]; then note+="; $suite was expected to hold $expected"; fi
        echo "etcd $version  $note"
    done
}

main() {
    local suites=("${WANTED[@]%%:*}") wanted
    look_for "${suites[@]}"
    wanted=("${missing[@]}")
    if ((${#wanted[@]})); then
        if mkdir -p "$target" 2>/dev/null && [[ -w $target ]]; then
            # Two runs at once would fetch everything twice and race for the names.
            exec 9>"$target/.lock"
            flock 9
            look_for "${wanted[@]}"
            wanted=("${missing[@]}")
        else
            warn "$target is not writable"
            wanted=()
        fi
    fi
    if ((${#wanted[@]})); then
        work=$(mktemp -d)
        trap clean_up EXIT
        trap 'exit 130' INT
        trap 'exit 143' TERM
        fetch "${wanted[@]}"
        look
    fi
    report "${wanted[@]}"
    ((${#ready[@]} >= ENOUGH)) ||
        die "${#ready[@]} version(s) of etcd in $target, but $ENOUGH are needed"
}

main
