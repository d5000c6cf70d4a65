#!/usr/bin/env bash
# Puts real etcd binaries of several versions into engines/etcd/<version>/, each
# with a file .origin that says where they come from. A version that is there
# already is left alone, wherever it came from. The rest comes, in this order,
#
# - from folders and archives that the user names;
# - from packages of Debian suites. They cannot be installed side by side, and
#   most belong to another suite than the machine's own, so apt gets a state of
#   its own in a temporary folder, downloads with the usual signature checks, and
#   the packages are only unpacked. The system's own apt and dpkg never hear of
#   it, and no root is needed;
# - from source, by Go, at the same time as the downloads. The folders in
#   scripts/etcd/ pin what etcd is built from, by version and by hash.
#
#   COMPOSE_BROKER_ENGINES_DIR    where to (default: engines/ in the project's root)
#   COMPOSE_BROKER_ETCD_FROM      folders and .tar.gz archives of etcd to take
#                                 first, separated by colons. A folder holds etcd,
#                                 etcdctl and etcdutl, or folders that do.
#   COMPOSE_BROKER_DEBIAN_MIRROR  archive URIs to try before the machine's own
#
# Exit 0: two or more versions are ready (upgrade tests need two). Exit 1: fewer.
set -euo pipefail

readonly ENOUGH=2

# Where a version comes from, and the version that is expected there: a Debian
# suite, or go-<line>, which read_pins adds for each folder of scripts/etcd/.
declare -A wanted=([bullseye]=3.3.25 [bookworm]=3.4.23 [trixie]=3.5.16 [forky]=3.5.30)

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
pins=$root/scripts/etcd
engines=$(realpath -m "${COMPOSE_BROKER_ENGINES_DIR:-$root/engines}")
target=$engines/etcd
fresh=$target/.new # versions that are not complete yet, a level too deep for the broker
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

# Each folder of scripts/etcd/ has a go.mod, the one place that names its version.
read_pins() {
    local source version
    while read -r source version; do
        wanted[$source]=$version
    done < <(awk '
        $1 == "go.etcd.io/etcd/server/v3" && $2 ~ /^v/ {
            count = split(FILENAME, parts, "/")
            print "go-" parts[count - 1], substr($2, 2)
        }' "$pins"/*/go.mod)
}

# The version that a binary gives itself; fails when it does not run here.
version_of() {
    local text
    text=$("$1" --version 2>/dev/null) || return 1
    [[ $text =~ ^etcd\ Version:\ ([0-9][0-9A-Za-z.+~-]*) ]] || return 1
    echo "${BASH_REMATCH[1]}"
}

# The tools that a version consists of.
tools_of() {
    case $1 in
        3.[0-4].*) echo etcd etcdctl ;;
        *) echo etcd etcdctl etcdutl ;;
    esac
}

# lacks DIR VERSION: the first tool that is not in a folder; fails when all are.
lacks() {
    local tool
    for tool in $(tools_of "$2"); do
        if [[ ! -f $1/$tool || ! -x $1/$tool ]]; then
            echo "$tool"
            return
        fi
    done
    return 1
}

is_ready() {
    local dir=$1 version=${1##*/}
    ! lacks "$dir" "$version" >/dev/null && [[ $(version_of "$dir/etcd") == "$version" ]]
}

# Fills ready: each version that answers -> its origin. And missing: the sources
# of wanted for which nothing is ready.
look() {
    local dir source
    ready=()
    for dir in "$target"/*/; do
        dir=${dir%/}
        if ! is_ready "$dir"; then continue; fi
        ready[${dir##*/}]=unknown
        if [[ -f $dir/.origin ]]; then ready[${dir##*/}]=$(<"$dir/.origin"); fi
    done
    missing=()
    for source in "${!wanted[@]}"; do
        if ! serving "$source" >/dev/null; then missing+=("$source"); fi
    done
}

# The ready version that serves for a source: the expected one, or what a suite
# held instead when it was unpacked, for then the origin begins with the suite's
# name. Without the latter, a suite that has moved on would be downloaded again at
# every run.
serving() {
    local source=$1 version
    if [[ -v ready[${wanted[$source]}] ]]; then
        echo "${wanted[$source]}"
        return
    fi
    for version in "${!ready[@]}"; do
        if [[ ${ready[$version]} == "$source "* ]]; then
            echo "$version"
            return
        fi
    done
    return 1
}

# ---- putting a version into place -----------------------------------------

# put_in_place DIR ORIGIN: renames a folder to the version that its etcd gives
# itself, so that nobody ever sees half a version. Says what is wrong if it fails.
put_in_place() {
    local dir=$1 version tool
    if ! version=$(version_of "$dir/etcd"); then
        echo "etcd does not run on this machine"
    elif tool=$(lacks "$dir" "$version"); then
        echo "etcd $version comes without $tool"
    else
        echo "$2" >"$dir/.origin"
        rm -rf "${target:?}/$version"
        mv -T "$dir" "$target/$version"
        return
    fi
    return 1
}

# copy_tools FROM TO: the tools that a folder has, into a new folder.
copy_tools() {
    local tool
    rm -rf "$2"
    mkdir -p "$2"
    for tool in etcd etcdctl etcdutl; do
        if [[ -f $1/$tool ]]; then install -m 0755 "$1/$tool" "$2/$tool"; fi
    done
}

# ---- named by the user ----------------------------------------------------

unusable() { warn "warning: COMPOSE_BROKER_ETCD_FROM: $1: $2"; }

# take DIR NAME: the version in a folder, unless it is there already.
take() {
    local dir=$1 name=$2 version problem
    if version=$(version_of "$dir/etcd") && [[ -v ready[$version] ]]; then return; fi
    copy_tools "$dir" "$fresh/named"
    if problem=$(put_in_place "$fresh/named" "named $name"); then
        ready[$version]="named $name"
    else
        unusable "$name" "$problem"
    fi
}

# take_folder FOLDER [NAME]: all versions in a folder and in the folders in it.
take_folder() {
    local dir found=
    for dir in "$1" "$1"/*/; do
        dir=${dir%/}
        if [[ ! -f $dir/etcd ]]; then continue; fi
        found=yes
        take "$dir" "${2:-$dir}"
    done
    if [[ -z $found ]]; then unusable "${2:-$1}" "no etcd in it"; fi
}

# Of an archive only the tools are unpacked, and only if they are plain files.
take_archive() {
    local archive=$1 version list members
    for version in "${!ready[@]}"; do
        # Once, and again when the archive has changed since.
        if [[ ${ready[$version]} == "named $archive" &&
            -z $(find "$archive" -cnewer "$target/$version/.origin") ]]; then return; fi
    done
    if ! list=$(tar -tzf "$archive" 2>/dev/null); then
        unusable "$archive" "no .tar.gz archive, or a damaged one"
        return
    fi
    mapfile -t members < <(grep -E '^(\./)?([^/]+/)?(etcd|etcdctl|etcdutl)$' <<<"$list" | grep -vF '../')
    rm -rf "$fresh/archive"
    mkdir -p "$fresh/archive"
    if ((${#members[@]})); then
        tar -xzf "$archive" -C "$fresh/archive" --no-same-owner --no-same-permissions -- "${members[@]}" 2>/dev/null ||
            true # what is missing then is told below
        find "$fresh/archive" -type l -delete
    fi
    take_folder "$fresh/archive" "$archive"
    rm -rf "$fresh/archive"
}

take_named() {
    local path paths
    IFS=: read -ra paths <<<"${COMPOSE_BROKER_ETCD_FROM:-}"
    for path in "${paths[@]}"; do
        if [[ -d $path ]]; then
            take_folder "$(realpath "$path")"
        elif [[ -f $path ]]; then
            take_archive "$(realpath "$path")"
        elif [[ -n $path ]]; then
            unusable "$path" "no such folder or archive"
        fi
    done
}

# ---- Debian: the archive this machine uses --------------------------------

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

# ---- Debian: an apt of our own --------------------------------------------

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

# ---- Debian: from a suite to a folder -------------------------------------

install_suite() {
    local suite=$1 keys=$2 dir=$work/$1 deb
    download "$dir" "$suite" "$keys" etcd-server etcd-client || return 1
    for deb in "$dir"/debs/*.deb; do
        dpkg-deb -x "$deb" "$dir/tree"
    done
    copy_tools "$dir/tree/usr/bin" "$fresh/$suite"
    deb=$(echo "$dir"/debs/etcd-server_*.deb)
    put_in_place "$fresh/$suite" "$suite $(dpkg-deb -f "$deb" Version)" >>"$dir.log"
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

# Installs the given suites at the same time. What became of each is not told
# by an exit status but by a look into the target afterwards.
install_all() {
    local keys=$1 suite started=()
    shift
    set -m # each job a process group, so that clean_up can stop its apt too
    for suite in "$@"; do
        install_suite "$suite" "$keys" >/dev/null &
        started+=($!)
    done
    set +m
    wait "${started[@]}" || true
}

fetch_from_debian() {
    local tool suite newer unsigned=()
    for tool in apt-get apt-config dpkg-deb; do
        command -v "$tool" >/dev/null || { explain "$tool not found: this needs a Debian machine" "$@" && return; }
    done
    keyring=$(find_keyring '') ||
        { explain "no Debian keyring: apt-get install debian-archive-keyring" "$@" && return; }
    find_mirrors ||
        { explain "no Debian archive in the apt sources; name one in COMPOSE_BROKER_DEBIAN_MIRROR" "$@" && return; }
    install_all "$keyring" "$@"
    look
    for suite in "$@"; do
        if ! serving "$suite" >/dev/null && lacks_key "$suite"; then unsigned+=("$suite"); fi
    done
    if ((${#unsigned[@]})) && newer=$(fetch_newer_keyring); then
        install_all "$newer" "${unsigned[@]}"
    fi
}

# ---- Go -------------------------------------------------------------------

# What Go said first that is not about its progress.
go_error() { grep -vE '^(go: downloading |#|$)' "$1" | sed -n 1p; }

# Prints why Go cannot build a module; fails when it can. An older Go may fetch
# the one that the module asks for, but it does so only inside the module.
go_lacks() {
    local module=$1 log=$work/go.log need found
    need=$(sed -n 's/^go //p' "$module/go.mod")
    if ! command -v go >/dev/null; then
        echo "no Go (${need%.*} or newer) in PATH"
    elif ! found=$(cd "$module" && go env GOVERSION 2>"$log"); then
        echo "no Go (${need%.*} or newer): $(go_error "$log")"
    elif ! printf '%s\n' "$need" "${found##*go}" | sort -VC; then
        echo "no Go (${need%.*} or newer) in PATH but ${found##*go}"
    else
        return 1
    fi
}

# All three tools at once. Programs are named after their modules, and that of
# etcd itself is go.etcd.io/etcd/server/v3.
build() {
    local source=$1 pinned=${wanted[$1]} dir=$fresh/$1 version
    rm -rf "$dir"
    mkdir -p "$dir"
    cd "$pins/${source#go-}"
    go build -mod=readonly -trimpath -ldflags '-s -w' -o "$dir/" tool
    mv "$dir/server" "$dir/etcd"
    # The version is written in another module than the server, api/v3.
    if version=$(version_of "$dir/etcd") && [[ $version != "$pinned" ]]; then
        echo "what was built is etcd $version: the modules in go.mod do not fit"
        return 1
    fi
    put_in_place "$dir" "go go.etcd.io/etcd/server/v3 v$pinned"
}

# Builds one version after the other, for most of what they consist of is the
# same, and what one has compiled the next finds in Go's cache.
build_with_go() {
    local source problem versions=()
    export CGO_ENABLED=0 GOWORK=off GOTMPDIR=$work
    if [[ ! -w ${HOME:-} ]]; then # where Go keeps its caches
        export GOPATH=${GOPATH:-$work/go} GOCACHE=${GOCACHE:-$work/go-cache}
        export GOFLAGS="${GOFLAGS:-} -modcacherw" # or clean_up could not remove them
    fi
    if problem=$(go_lacks "$pins/${1#go-}"); then
        explain "$problem; install Go, or name a folder or an archive of etcd in COMPOSE_BROKER_ETCD_FROM" "$@"
        return
    fi
    for source in "$@"; do versions+=("${wanted[$source]}"); done
    echo "engines: building etcd $(enumerate "${versions[@]}"), which takes some minutes"
    for source in "$@"; do
        (build "$source") >"$work/$source.log" 2>&1 &
        wait $! || true # not (build) || true, which would go on after an error
    done
}

# ---- all together ---------------------------------------------------------

# 3.7.3 3.5.35 3.6.16 -> "3.5.35, 3.6.16 and 3.7.3"
enumerate() {
    local text
    text=$(printf '%s\n' "$@" | sort -V | paste -sd,)
    text=${text//,/, }
    if [[ $text == *,* ]]; then text="${text%, *} and ${text##*, }"; fi
    echo "$text"
}

# explain REASON SOURCE...: why there is nothing of these.
explain() {
    local reason=$1 source
    shift
    for source in "$@"; do echo "$reason" >"$work/$source.reason"; done
}

# Why there is nothing of a source, in one line: what apt or Go said first.
reason() {
    local log=$work/$1.log text=''
    if [[ -s $work/$1.reason ]]; then
        text=$(<"$work/$1.reason")
    elif [[ -s $log && $1 == go-* ]]; then
        text=$(go_error "$log") || true
    elif [[ -s $log ]]; then
        text=$(grep -E -A 1 '^(E:|W:|Err:|etcd )' "$log" | sed -n '1,2p' | tr -s '\n ' ' ') || true
    fi
    echo "${text:-neither fetched nor built}"
}

clean_up() {
    local job
    for job in $(jobs -p); do
        kill -- "-$job" 2>/dev/null || true
    done
    wait
    rm -rf "$work" "$fresh"
}

# Gets what is missing, and what the user names.
get() {
    local source suites=() lines=()
    if ! mkdir -p "$target" 2>/dev/null || [[ ! -w $target ]]; then
        warn "$target is not writable"
        return
    fi
    # Two runs at once would fetch everything twice and race for the names.
    exec 9>"$target/.lock"
    flock 9
    work=$(mktemp -d)
    trap clean_up EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    look
    take_named
    look
    for source in "${missing[@]}"; do
        if [[ $source == go-* ]]; then lines+=("$source"); else suites+=("$source"); fi
    done
    if ((${#lines[@]})); then
        set -m
        build_with_go "${lines[@]}" </dev/null &
        set +m
    fi
    if ((${#suites[@]})); then fetch_from_debian "${suites[@]}"; fi
    wait
    look
}

# report VERSION...: what is ready, and what is not. The versions are those that
# were ready before.
report() {
    local before=" $* " version source why note
    local -A lacking=()
    for version in $(printf '%s\n' "${!ready[@]}" | sort -V); do
        note=new
        if [[ $before == *" $version "* ]]; then note=present; fi
        echo "etcd $version  $note (${ready[$version]})"
    done
    for source in "${!wanted[@]}"; do
        if ! version=$(serving "$source"); then
            why=$(reason "$source")
            lacking[$why]+=" ${wanted[$source]}"
        elif [[ $version != "${wanted[$source]}" ]]; then
            echo "etcd $version  instead of ${wanted[$source]}, which $source was expected to hold"
        fi
    done
    for why in "${!lacking[@]}"; do
        # shellcheck disable=SC2086 # versions, a word each
        warn "warning: no etcd $(enumerate ${lacking[$why]}): $why"
    done
}

main() {
    local before
    read_pins
    look
    before=("${!ready[@]}")
    if ((${#missing[@]})) || [[ -n ${COMPOSE_BROKER_ETCD_FROM:-} ]]; then get; fi
    report "${before[@]}"
    ((${#ready[@]} >= ENOUGH)) ||
        die "${#ready[@]} version(s) of etcd in $target, but $ENOUGH are needed"
}

main
