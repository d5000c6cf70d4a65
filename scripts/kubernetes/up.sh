#!/usr/bin/env bash
# Starts the test cluster: Kubernetes with a control machine and three nodes, on this machine alone. Needs
# root, and what build.sh made.
#
#   up.sh       all that does not run; nodes that run get the images that are newer than theirs
#   up.sh nN    one node again, after down.sh nN: it boots on the disk that it had
#
# Each machine is a set of namespaces, see machine.sh. The host has one end of a cable to them. Ports of nodes
# are reached at the nodes' addresses; pods reach what listens at the host's own.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR
source "$(dirname "${BASH_SOURCE[0]}")/bed.sh"

check() {
    local tool
    ((EUID == 0)) || die 'up.sh needs root, for namespaces, mounts and control groups'
    for tool in openssl ip unshare nsenter pgrep; do
        command -v "$tool" >/dev/null || die "no $tool in PATH"
    done
    [[ $(stat -f -c %T /sys/fs/cgroup) != cgroup2fs ]] ||
        die 'this host has control groups of version 2 alone, on which the test cluster was never tried'
    [[ -x $bin/kubernetes/kubelet && -s $images/busybox-1.tar ]] || die "nothing is built in $kept: run scripts/kubernetes/build.sh"
}

# certify NAME SUBJECT [ALTERNATIVES]: a key, and a certificate for it of the cluster's own authority.
certify() {
    openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout "$1.key" -out "$1.csr" -subj "$2"
    openssl x509 -req -in "$1.csr" -CA ca.crt -CAkey ca.key -CAcreateserial -days 30 -out "$1.crt" \
        -extfile <(echo 'extendedKeyUsage = clientAuth, serverAuth' && echo "${3:+subjectAltName = $3}")
}

# kubeconfig NAME: what the holder of NAME's certificate reaches the API server with.
kubeconfig() {
    cat >"$bed/$1.conf" <<Y
apiVersion: v1
kind: Config
current-context: bed
contexts: [{ name: bed, context: { cluster: bed, user: $1 } }]
clusters:
- name: bed
  cluster: { server: "https://$control:6443", certificate-authority-data: $(base64 -w 0 ca.crt) }
users:
- name: $1
  user: { client-certificate-data: $(base64 -w 0 "$1.crt"), client-key-data: $(base64 -w 0 "$1.key") }
Y
}

make_keys() {
    local node
    mkdir -p "$bed/keys"
    cd "$bed/keys"
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj /CN=bed -keyout ca.key -out ca.crt
    openssl ecparam -name prime256v1 -genkey -noout -out accounts.key
    certify apiserver /CN=apiserver "IP:$control, IP:$net.100.1, DNS:kubernetes.default.svc"
    certify admin /O=system:masters/CN=admin
    kubeconfig admin
    for node in $(nodes); do
        certify "$node" "/O=system:nodes/CN=system:node:$node"
        kubeconfig "$node"
    done
}

# boot MACHINE: starts it and brings its cable.
boot() {
    local name=$1 pid inside
    ! pid_of "$name" >/dev/null || die "$name runs already"
    mkdir -p "$bed/$name"
    setsid unshare --mount --net --uts --ipc --pid --fork --kill-child --mount-proc \
        "$here/machine.sh" "$name" >>"$bed/$name/console.log" 2>&1 </dev/null &
    pid=$!
    echo "$pid" >"$bed/$name.pid"
    within 10 pgrep --parent "$pid"
    inside=$(pgrep --parent "$pid")
    if [[ $name == control ]]; then
        ip link add "$LINK" type veth peer name eth0 netns "$inside"
        ip address add "$host/24" dev "$LINK"
        ip link set "$LINK" up
        for node in $(nodes); do ip route add "$(pods_of "$node")" via "$(node_address "$node")"; done
        # What tests give load balancers: any node takes it.
        ip route add "$balancers" via "$(node_address n1)"
        return
    fi
    # The end that belonged to its last life may still be there.
    in_control ip link delete "$name" >/dev/null 2>&1 || true
    in_control ip link add "$name" type veth peer name eth0 netns "$inside"
    in_control ip link set "$name" master switch up
}

in_control() { nsenter --net --target "$(pgrep --parent "$(pid_of control)")" "$@"; }

load() { nsenter --mount --target "$(pgrep --parent "$(pid_of "$1")")" "$here/load.sh" >/dev/null; }

# The API server alone may not have noticed yet that a node is gone.
nodes_are_ready() {
    local node
    for node in $(nodes); do
        : <"/dev/tcp/$(node_address "$node")/10250" || return 1
    done
    [[ $(kubectl get nodes --no-headers | grep -c ' Ready ') == $(nodes | wc -l) ]]
}

answers_or_has_ended() { ! pid_of control || kubectl get --raw /readyz; }

start_all() {
    local node log
    if ! pid_of control >/dev/null; then
        # New keys and disks: of another cluster nothing is of use.
        "$here/down.sh" >/dev/null
        ! ip link show "$LINK" >/dev/null 2>&1 || die "another test cluster runs on this host: its cable $LINK is there"
        mkdir -p "$bed"
        chmod 0700 "$bed"
        log=$bed/keys.log
        (make_keys) >"$log" 2>&1 || true
        # The last one needs all that come before it.
        [[ -s $bed/keys/$(nodes | tail -n 1).crt ]] || { cat "$log" >&2 && die 'openssl could not make the keys'; }
        boot control
    fi
    within 180 answers_or_has_ended
    pid_of control >/dev/null || die "the control machine has ended: $(tail -n 1 "$bed/control/console.log")"
    say "API server ready, $(kubectl version | sed -n 's/^Server Version: //p')"
    for node in $(nodes); do
        if pid_of "$node" >/dev/null; then load "$node"; else boot "$node"; fi
    done
    kubectl apply --server-side -f "$here/storage.yaml" >/dev/null
    within 180 nodes_are_ready
    say "$(nodes | wc -l) nodes ready"
}

check
if [[ -n ${1:-} ]]; then
    boot "$1"
    say "$1 boots"
    exit
fi
start_all
cat <<T
export COMPOSE_BROKER_TEST_KUBECONFIG=$bed/admin.conf
export KUBECONFIG=$bed/admin.conf PATH=$bin/kubernetes:\$PATH
T
