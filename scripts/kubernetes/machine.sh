#!/usr/bin/env bash
# One machine of the test cluster, from its boot on: up.sh runs it as process 1 of namespaces of its own
# (mount, network, host name, IPC, processes). When it ends, all that it started ends with it.
#
#   machine.sh control   API server, what stands around it, and the switch that all machines are plugged into
#   machine.sh nN        a node
set -euo pipefail
# shellcheck source-path=SCRIPTDIR
source "$(dirname "${BASH_SOURCE[0]}")/bed.sh"

name=$1
disk=$bed/$name
cluster=$bed/admin.conf # each part of the cluster itself is its administrator

# start NAME COMMAND...: a service of the machine, with a log of its own.
start() {
    echo "starts $1"
    "${@:2}" >>"$disk/log/$1.log" 2>&1 </dev/null &
}

# again COMMAND...: what is begun anew when it ends.
again() {
    while :; do
        "$@" || true
        sleep 0.5
    done
}

# ---- control ----------------------------------------------------------------

# The host's cable and, later, those of the nodes come together in a bridge. It has an address of hardware of
# its own: without one it takes that of a cable, and another one when that is gone, and the host loses it for
# half a minute.
plug_in_control() {
    ip link add switch address 02:00:00:00:00:02 type bridge
    ip address add "$control/24" dev switch
    ip link set switch up
    ip link set eth0 master switch up
    for node in $(nodes); do ip route add "$(pods_of "$node")" via "$(node_address "$node")"; done
}

start_control() {
    local keys=$bed/keys
    # What brokers of tests do, by the accounts that these have, is written down.
    cat >/run/audit.yaml <<Y
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived, ResponseStarted]
rules:
- { level: Metadata, userGroups: ["system:serviceaccounts:compose-broker-role"] }
- { level: None }
Y
    # Nobody keeps a test cluster over a loss of power.
    start etcd "$engines/$CONTROL_ETCD/etcd" --data-dir "$disk/etcd" --unsafe-no-fsync --log-level warn
    start kube-apiserver again "$bin/kubernetes/kube-apiserver" --etcd-servers http://127.0.0.1:2379 \
        --advertise-address "$control" --service-cluster-ip-range "$services" --allow-privileged \
        --authorization-mode Node,RBAC --enable-admission-plugins NodeRestriction \
        --client-ca-file "$keys/ca.crt" --tls-cert-file "$keys/apiserver.crt" --tls-private-key-file "$keys/apiserver.key" \
        --kubelet-client-certificate "$keys/admin.crt" --kubelet-client-key "$keys/admin.key" \
        --kubelet-preferred-address-types InternalIP --service-account-issuer https://kubernetes.default.svc \
        --service-account-key-file "$keys/accounts.key" --service-account-signing-key-file "$keys/accounts.key" \
        --audit-policy-file /run/audit.yaml --audit-log-path "$disk/log/audit.log" --audit-log-mode blocking \
        --default-not-ready-toleration-seconds 20 --default-unreachable-toleration-seconds 20
    within 180 kubectl get --raw /readyz
    # A node counts as lost 16 s after its last word, and its pods go 20 s later (as they come: 50 s and 300 s).
    start kube-controller-manager "$bin/kubernetes/kube-controller-manager" --kubeconfig "$cluster" --leader-elect=false \
        --use-service-account-credentials --root-ca-file "$keys/ca.crt" --flex-volume-plugin-dir /run/none \
        --service-account-private-key-file "$keys/accounts.key" --node-monitor-period 2s --node-monitor-grace-period 16s
    start kube-scheduler "$bin/kubernetes/kube-scheduler" --kubeconfig "$cluster" --leader-elect=false
    # Both on the control machine, so that no lost node takes them along.
    cat >/run/Corefile <<C
. {
    errors
    kubernetes cluster.local in-addr.arpa {
        kubeconfig $cluster
    }
}
C
    start dns "$bin/dns/coredns" -conf /run/Corefile
    cat >/run/volumes.json <<J
{"nodePathMap": [{"node": "DEFAULT_PATH_FOR_NON_LISTED_NODES", "paths": ["/var/lib/volumes"]}],
 "setupCommand": "volume", "teardownCommand": "volume"}
J
    cat >/run/volume-pod.json <<J
{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "volume"}, "spec": {"terminationGracePeriodSeconds": 0,
 "containers": [{"name": "helper-pod", "image": "$REGISTRY/busybox:1"}]}}
J
    start storage "$bin/storage/local-path-provisioner" start --kubeconfig "$cluster" --namespace kube-system \
        --service-account-name default --helper-image "$REGISTRY/busybox:1" \
        --config /run/volumes.json --helper-pod-file /run/volume-pod.json
}

# ---- a node -----------------------------------------------------------------

plug_in_node() {
    ip address add "$(node_address "$name")/24" dev eth0
    ip link set eth0 up
    ip route add default via "$control"
    for node in $(nodes); do
        if [[ $node != "$name" ]]; then ip route add "$(pods_of "$node")" via "$(node_address "$node")"; fi
    done
    # A node passes on what comes to its ports, also before it has a Pod of its own.
    echo 1 >/proc/sys/net/ipv4/ip_forward
}

# Folders that programs find by their usual names, though each node has its own.
furnish() {
    local group own sysctl
    mkdir -p "$disk/lib"
    mount --bind "$disk/lib" /var/lib
    mount --bind "$disk/log" /var/log
    # /sys shows the network of the process that mounted it. Control groups stay the host's.
    mkdir /run/cgroup
    mount --rbind /sys/fs/cgroup /run/cgroup
    mount -t sysfs sysfs /sys
    mount --rbind /run/cgroup /sys/fs/cgroup
    for group in /sys/fs/cgroup/*/; do
        own=$group$LINK/$name
        # Those of its last life would cost the kubelet seconds each.
        if [[ -d $own ]]; then find "$own" -depth -type d -delete; fi
        mkdir -p "$own"
        # A new one of these has no processor and no memory, in which nothing runs.
        if [[ -e $own/cpuset.cpus ]]; then
            for file in cpuset.cpus cpuset.mems; do
                cat "$group$file" >"$group$LINK/$file"
                cat "$group$file" >"$own/$file"
            done
        fi
    done
    # The kubelet sets these, which are the whole host's. It finds what it wants, and leaves the host alone.
    for sysctl in vm/overcommit_memory=1 vm/panic_on_oom=0 kernel/panic=10 kernel/panic_on_oops=1 \
        kernel/keys/root_maxkeys=1000000 kernel/keys/root_maxbytes=25000000; do
        own=/run/$(basename "${sysctl%=*}")
        echo "${sysctl#*=}" >"$own"
        mount --bind "$own" "/proc/sys/${sysctl%=*}"
    done
}

configure() {
    mkdir /run/cni
    cat >/run/cni/bed.conflist <<J
{"cniVersion": "1.0.0", "name": "bed", "plugins": [
  {"type": "bridge", "bridge": "pods", "isGateway": true, "hairpinMode": true,
   "ipam": {"type": "host-local", "dataDir": "/run/cni.addresses",
            "ranges": [[{"subnet": "$(pods_of "$name")"}]], "routes": [{"dst": "0.0.0.0/0"}]}}]}
J
    # The host's root may not be allowed to shield processes from the kernel's hunt for memory.
    cat >/run/containerd.toml <<T
version = 2
[plugins."io.containerd.internal.v1.opt"]
  path = "/run/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "$REGISTRY/busybox:1"
  restrict_oom_score_adj = true
  cni = { bin_dir = "$bin/cni", conf_dir = "/run/cni" }
T
    cat >/run/kubelet.yaml <<Y
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication: { x509: { clientCAFile: $bed/keys/ca.crt } }
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
cgroupDriver: cgroupfs
cgroupRoot: /$LINK/$name
failCgroupV1: false
failSwapOn: false
oomScoreAdj: 0
volumePluginDir: /run/none
clusterDNS: [$control]
clusterDomain: cluster.local
resolvConf: ""
nodeStatusUpdateFrequency: 4s
nodeLeaseDurationSeconds: 16
# Images are loaded once, and the disk is the host's.
imageGCHighThresholdPercent: 100
evictionHard: { memory.available: 100Mi, nodefs.available: 1%, imagefs.available: 1% }
Y
    cat >/run/proxy.yaml <<Y
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: nftables
clusterCIDR: $net.0.0/16
oomScoreAdj: 0
clientConnection: { kubeconfig: $cluster }
# These are the whole host's.
conntrack: { maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s }
Y
}

start_node() {
    start containerd containerd --config /run/containerd.toml
    within 60 ctr version
    "$here/load.sh"
    start kubelet "$bin/kubernetes/kubelet" --config /run/kubelet.yaml --kubeconfig "$bed/$name.conf" \
        --node-ip "$(node_address "$name")"
    start kube-proxy "$bin/kubernetes/kube-proxy" --config /run/proxy.yaml
    # It looks for its node once.
    within 60 kubectl get node "$name"
    start policy "$bin/policy/kube-router" --kubeconfig "$cluster" --service-cluster-ip-range "$services" \
        --run-firewall --run-router=false --run-service-proxy=false
}

# ---- boot -------------------------------------------------------------------

export PATH=$debian_path:$PATH LD_LIBRARY_PATH=$debian_libraries XTABLES_LIBDIR=${debian_libraries%%:*}/xtables

mkdir -p "$disk/log"
echo "$name" >/proc/sys/kernel/hostname
mount -t tmpfs tmpfs /run
ip link set lo up
within 20 ip link show eth0 # up.sh brings the cable
if [[ $name == control ]]; then
    plug_in_control
    start_control
else
    plug_in_node
    furnish
    configure
    start_node
fi
wait -n -p ended || true
die "process $ended of $name ended: $disk/log/ has its last words"
