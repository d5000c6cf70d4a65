#!/usr/bin/env bash
# What the scripts of the test cluster share, which source this file: its places, names and addresses.
#
#   COMPOSE_BROKER_KUBERNETES_DIR    where what was built and the running cluster are kept (default:
#                                    compose-broker/kubernetes in XDG_CACHE_HOME or ~/.cache). Nodes have
#                                    a /run and a /var/lib of their own: it lies in neither.
#   COMPOSE_BROKER_KUBERNETES_NODES  how many nodes there are (default: 3)
#   COMPOSE_BROKER_KUBERNETES_NET    the first two numbers of all its addresses (default: 10.87)
#
# shellcheck disable=SC2034 # what is set here is used elsewhere

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
kept=$(realpath -m "${COMPOSE_BROKER_KUBERNETES_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/compose-broker/kubernetes}")
engines=$(realpath -m "${COMPOSE_BROKER_ENGINES_DIR:-$root/engines}")/etcd

bin=$kept/bin       # programs, a folder for each of modules/
debian=$kept/debian # unpacked packages
debian_path=$debian/usr/sbin:$debian/usr/bin:$debian/sbin:$debian/bin
debian_libraries=$debian/usr/lib/$(uname -m)-linux-gnu:$debian/lib/$(uname -m)-linux-gnu
images=$kept/images # archives of images, loaded on every node
bed=$kept/bed       # the running cluster: keys, process ids, the machines' disks

# The etcd below the API server. It is one of the images, too.
readonly CONTROL_ETCD=3.6.16
# Those that databases are made of.
readonly ETCD=(3.5.35 "$CONTROL_ETCD")
# Where images are said to come from. Nobody asks there: they are on every node.
readonly REGISTRY=bed.local

readonly LINK=broker-bed   # the host's end of the cable, and the cgroup of all machines
net=${COMPOSE_BROKER_KUBERNETES_NET:-10.87}
host=$net.0.1
control=$net.0.2
services=$net.100.0/24
balancers=$net.200.0/24

nodes() { seq -f 'n%g' "${COMPOSE_BROKER_KUBERNETES_NODES:-3}"; }
node_address() { echo "$net.0.$((10 + ${1#n}))"; }
pods_of() { echo "$net.$((10 + ${1#n})).0/24"; }

say() { printf 'kubernetes: %3d s  %s\n' "$SECONDS" "$*"; }
die() {
    echo "kubernetes: $*" >&2
    exit 1
}

kubectl() { KUBECACHEDIR=$bed/cache "$bin/kubernetes/kubectl" --kubeconfig "$bed/admin.conf" "$@"; }

# pid_of MACHINE: the process that holds its namespaces; fails when it does not run.
pid_of() {
    local pid
    pid=$(cat "$bed/$1.pid" 2>/dev/null) || return 1
    # Numbers are given anew. After the name of its script stands that of the machine.
    { tr '\0' ' ' <"/proc/$pid/cmdline"; } 2>/dev/null | grep -q "/machine.sh $1 " && echo "$pid"
}

# within SECONDS COMMAND...: runs it until it succeeds.
within() {
    local end=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        ((SECONDS < end)) || die "gave up waiting for: $* (logs: $bed/*/log/)"
        sleep 0.2
    done
}

# add_busybox FOLDER: the tools of a small Linux, each by its name.
add_busybox() {
    local tool
    cp "$(PATH=$debian_path type -P busybox)" "$1/"
    for tool in $("$1/busybox" --list); do
        [[ -e $1/$tool ]] || ln -s busybox "$1/$tool"
    done
}
