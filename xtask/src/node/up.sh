#!/bin/bash
# up.sh DIR: a real Kubernetes of one node, laid out as kubeadm lays one out: etcd, kube-apiserver,
# kube-controller-manager and kube-scheduler are static pods of a real kubelet, over containerd and runc.
#
# The node has mounts, processes, network, host name and IPC of its own; all that it keeps is under DIR. Whoever ends the first
# process of it ends all of it. DIR/enter CMD runs a command in it, DIR/kubectl is its kubectl, DIR/kubernetes and DIR/etcd are its
# /etc/kubernetes and /var/lib/etcd. $GRACE: the grace period of static pods; kube-apiserver takes all of it.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)

NODE=node1
NODE_IP=192.168.77.10              # on a port-less bridge inside the node's own network namespace
POD_CIDR=10.244.0.0/24
SVC_CIDR=10.96.0.0/16
SVC_IP=10.96.0.1
REG=registry.k8s.io
PAUSE=$REG/pause:3.10
ETCD=$REG/etcd:pinned
K8S=pinned

say() { printf '%6.1f s  %s\n' "$(echo "$(date +%s.%N) - $T0" | bc)" "$*"; }

##### inside the namespaces: process 1 of the node

if [ "${1:-}" = --node ]; then
  dir=$2
  read -r pid _ </proc/self/stat           # the machine's /proc is still mounted: its number for us
  echo "$pid" >"$dir/node.pid"
  mount --make-rslave /
  mount --make-rshared /
  mount -t proc proc /proc
  mount -t tmpfs -o mode=755 tmpfs /run
  for d in etc var/lib var/log; do
    mkdir -p "$dir/overlay/$d" "$dir/overlay-work/$d"
    mount -t overlay -o "lowerdir=/$d,upperdir=$dir/overlay/$d,workdir=$dir/overlay-work/$d" overlay "/$d"
  done
  while read -r from to; do                # the parts with much data, or to be seen from outside
    mkdir -p "$dir/$from" "/$to"
    mount --bind "$dir/$from" "/$to"
  done <<END
kubernetes etc/kubernetes
etcd var/lib/etcd
kubelet var/lib/kubelet
containerd var/lib/containerd
pods var/log/pods
END
  # The kubelet sets these, which belong to the whole machine; show it what it wants to see.
  while read -r key value; do
    f=$dir/sysctl/${key//\//.}
    mkdir -p "$dir/sysctl"
    echo "$value" >"$f"
    [ ! -e "/proc/sys/$key" ] || mount --bind "$f" "/proc/sys/$key"
  done <<END
vm/overcommit_memory 1
vm/panic_on_oom 0
kernel/panic 10
kernel/panic_on_oops 1
kernel/keys/root_maxkeys 1000000
kernel/keys/root_maxbytes 25000000
END
  hostname $NODE
  printf '127.0.0.1 localhost\n%s %s\n' $NODE_IP $NODE >/etc/hosts
  : >/etc/resolv.conf
  ip link set lo up
  ip link add node0 type bridge
  ip addr add $NODE_IP/24 dev node0
  ip link set node0 up
  ip route add default dev node0           # so that service addresses have a route before DNAT
  echo 1 >/proc/sys/net/ipv4/ip_forward
  mkdir -p /etc/cni/net.d /etc/containerd
  cp "$dir/conf/10-bridge.conflist" /etc/cni/net.d/
  cp "$dir/conf/containerd.toml" /etc/containerd/config.toml

  supervise() { # NAME CMD...: keep it running, unless DIR/NAME.stop exists
    local name=$1; shift
    while :; do
      if [ -e "$dir/$name.stop" ]; then sleep 0.2; continue; fi
      "$@" >>"$dir/log/$name.log" 2>&1 &
      echo $! >"$dir/$name.pid"            # its number inside the node
      wait $! || echo "$(date -Is) $name ended: $?" >>"$dir/log/node.log"
      sleep 0.5
    done
  }
  supervise containerd containerd &
  until ctr version >/dev/null 2>&1; do sleep 0.1; done
  for i in "$dir"/images/*.tar; do
    ctr -n k8s.io images import --all-platforms "$i" >>"$dir/log/images.log" 2>&1
  done
  touch "$dir/images.done"
  supervise kubelet kubelet --config="$dir/conf/kubelet.yaml" --kubeconfig=/etc/kubernetes/kubelet.conf \
    --hostname-override=$NODE --node-ip=$NODE_IP --pod-infra-container-image=$PAUSE --v=2 &
  supervise kube-proxy kube-proxy --kubeconfig=/etc/kubernetes/kube-proxy.conf --hostname-override=$NODE \
    --proxy-mode=iptables --cluster-cidr=$POD_CIDR --oom-score-adj=0 \
    --conntrack-max-per-core=0 --conntrack-tcp-timeout-established=0 --conntrack-tcp-timeout-close-wait=0 &
  trap 'exit 0' TERM
  while :; do wait; sleep 1; done
fi

##### outside

T0=$(date +%s.%N)
[ $# = 1 ] || { echo "usage: up.sh DIR" >&2; exit 2; }
mkdir -p "$1"
dir=$(cd "$1" && pwd)
[ ! -e "$dir/node.pid" ] || { echo "$dir/node.pid exists: down.sh $dir first" >&2; exit 1; }
for c in etcd kube-apiserver kube-controller-manager kube-scheduler kubelet kubectl \
         kube-proxy containerd ctr runc iptables; do
  command -v $c >/dev/null || { echo "missing: $c" >&2; exit 1; }
done
mkdir -p "$dir"/{kubernetes/manifests,conf,images,log,etcd}
chmod 700 "$dir/etcd"
"$here/pki.sh" "$dir/kubernetes" $NODE $NODE_IP $SVC_IP
say "certificates made"

# a cgroup of the node's own in every version 1 hierarchy, as the root of all its pods
cg=realkube.$$
echo $cg >"$dir/cgroup"
for h in /sys/fs/cgroup/*/; do
  [ "$(stat -fc %T "$h")" = cgroupfs ] || continue
  mkdir "$h$cg"
  if [ -e "$h/cpuset.cpus" ]; then
    cat "$h/cpuset.cpus" >"$h$cg/cpuset.cpus"
    cat "$h/cpuset.mems" >"$h$cg/cpuset.mems"
  fi
done

# images
blob() { # MEDIA-TYPE: keeps what comes in, and says how an image names it
  local part digest
  part=$(mktemp -p "$dir/conf")
  cat >"$part"
  digest=$(sha256sum <"$part" | cut -d' ' -f1)
  printf '{"mediaType": "application/vnd.oci.image.%s", "digest": "sha256:%s", "size": %s' "$1" "$digest" "$(stat -c %s "$part")"
  mv "$part" "$oci/blobs/sha256/$digest"
}
img() { # NAME REFERENCE ENTRYPOINT FILE=PATH...: an image of one layer, of what is linked statically
  local out=$dir/images/$1.tar reference=$2 entry=$3 root=$dir/conf/root oci=$dir/conf/oci layer config manifest
  shift 3
  rm -rf "$root" "$oci"
  mkdir -p "$root"/{tmp,etc,proc,sys,dev} "$oci/blobs/sha256"
  chmod 1777 "$root/tmp"
  for file; do install -D "${file%%=*}" "$root/${file#*=}"; done
  printf 'root:x:0:0::/:/bin/sh\n' >"$root/etc/passwd"
  tar -C "$root" --owner=0 --group=0 --numeric-owner -cf "$dir/conf/layer" .
  layer=$(sha256sum <"$dir/conf/layer" | cut -d' ' -f1)
  config=$(printf '{"architecture": "%s", "os": "linux", "config": {%s"Env": ["PATH=/usr/local/bin:/bin"]}, "rootfs": {"type": "layers", "diff_ids": ["sha256:%s"]}}' \
    "$(dpkg --print-architecture)" "${entry:+\"Entrypoint\": [\"$entry\"], }" "$layer" | blob config.v1+json)
  manifest=$(printf '{"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": %s}, "layers": [%s}]}' \
    "$config" "$(blob layer.v1.tar <"$dir/conf/layer")" | blob manifest.v1+json)
  printf '{"imageLayoutVersion": "1.0.0"}' >"$oci/oci-layout"
  printf '{"schemaVersion": 2, "manifests": [%s, "annotations": {"io.containerd.image.name": "%s"}}]}' "$manifest" "$reference" >"$oci/index.json"
  tar -C "$oci" -cf "$out" .
}
printf '#include <unistd.h>\n#include <signal.h>\n#include <sys/wait.h>\nstatic void reap(int s){while(waitpid(-1,0,WNOHANG)>0);}\nstatic void end(int s){_exit(0);}\nint main(){signal(SIGTERM,end);signal(SIGINT,end);signal(SIGCHLD,reap);for(;;)pause();}\n' >"$dir/conf/pause.c"
gcc -static -Os -s -o "$dir/conf/pause" "$dir/conf/pause.c"
img pause $PAUSE /pause "$dir/conf/pause=pause"
img etcd $ETCD "" "$(command -v etcd)=usr/local/bin/etcd"
img pods localhost/pod:pinned /pause "$dir/conf/pause=pause"
for c in kube-apiserver kube-controller-manager kube-scheduler; do
  img $c $REG/$c:$K8S "" "$(command -v $c)=usr/local/bin/$c"
done
say "images made"

cat >"$dir/conf/containerd.toml" <<END
version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
disabled_plugins = ["io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.devmapper"]
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "$PAUSE"
  # no CAP_SYS_RESOURCE on this machine, so no oom_score_adj below containerd's own
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "${SNAPSHOTTER:-overlayfs}"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "/etc/cni/net.d"
END
cat >"$dir/conf/10-bridge.conflist" <<END
{"cniVersion": "0.4.0", "name": "bridge", "plugins": [
  {"type": "bridge", "bridge": "cni0", "isGateway": true, "hairpinMode": true,
   "ipam": {"type": "host-local", "ranges": [[{"subnet": "$POD_CIDR"}]], "routes": [{"dst": "0.0.0.0/0"}]}},
  {"type": "portmap", "capabilities": {"portMappings": true}}]}
END
cat >"$dir/conf/kubelet.yaml" <<END
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
staticPodPath: /etc/kubernetes/manifests
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
cgroupDriver: cgroupfs
cgroupRoot: /$cg
failCgroupV1: false
failSwapOn: false
oomScoreAdj: 0
resolvConf: ""
address: $NODE_IP
healthzBindAddress: 127.0.0.1
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: /etc/kubernetes/pki/ca.crt}}
authorization: {mode: Webhook}
tlsCertFile: /etc/kubernetes/pki/kubelet.crt
tlsPrivateKeyFile: /etc/kubernetes/pki/kubelet.key
imageGCHighThresholdPercent: 100
imageGCLowThresholdPercent: 99
evictionHard: {memory.available: 100Mi, nodefs.available: 1%, imagefs.available: 1%}
fileCheckFrequency: 2s
syncFrequency: 2s
nodeStatusUpdateFrequency: 4s
END

# static pods, after kubeadm's
vol() { local v=${1%:*}; v=${v#/}; echo "${v//[\/.]/-}"; }   # PATH:TYPE to a volume name
static() { # NAME IMAGE CPU PROBE-PORT PROBE-SCHEME PROBE-PATH "PATH:TYPE..." ARGS...
  local name=$1 image=$2 cpu=$3 port=$4 scheme=$5 live=$6 mounts=$7 m; shift 7
  {
    cat <<END
apiVersion: v1
kind: Pod
metadata:
  name: $name
  namespace: kube-system
  labels: {component: $name, tier: control-plane}
spec:
  hostNetwork: true
  priorityClassName: system-node-critical
  terminationGracePeriodSeconds: ${GRACE:-30}
  containers:
  - name: $name
    image: $image
    imagePullPolicy: IfNotPresent
    command:
    - $name
END
    printf '    - %s\n' "$@"
    cat <<END
    resources: {requests: {cpu: $cpu}}
    startupProbe: {httpGet: {host: 127.0.0.1, port: $port, scheme: $scheme, path: $live}, periodSeconds: 1, failureThreshold: 120}
    livenessProbe: {httpGet: {host: 127.0.0.1, port: $port, scheme: $scheme, path: $live}, periodSeconds: 10, timeoutSeconds: 15, failureThreshold: 8}
    volumeMounts:
END
    for m in $mounts; do echo "    - {name: $(vol "$m"), mountPath: ${m%:*}}"; done
    echo "  volumes:"
    for m in $mounts; do echo "  - {name: $(vol "$m"), hostPath: {path: ${m%:*}, type: ${m#*:}}}"; done
  } >"$dir/kubernetes/manifests/$name.yaml"
}
P=/etc/kubernetes/pki
static etcd $ETCD 100m 2381 HTTP /readyz "/var/lib/etcd:DirectoryOrCreate $P/etcd:DirectoryOrCreate" \
  --name=$NODE --data-dir=/var/lib/etcd --snapshot-count=10000 \
  --listen-client-urls=https://127.0.0.1:2379,https://$NODE_IP:2379 --advertise-client-urls=https://$NODE_IP:2379 \
  --listen-peer-urls=https://$NODE_IP:2380 --initial-advertise-peer-urls=https://$NODE_IP:2380 \
  --initial-cluster=$NODE=https://$NODE_IP:2380 --listen-metrics-urls=http://127.0.0.1:2381 \
  --client-cert-auth=true --peer-client-cert-auth=true --trusted-ca-file=$P/etcd/ca.crt --peer-trusted-ca-file=$P/etcd/ca.crt \
  --cert-file=$P/etcd/server.crt --key-file=$P/etcd/server.key --peer-cert-file=$P/etcd/peer.crt --peer-key-file=$P/etcd/peer.key \
  --watch-progress-notify-interval=5s
static kube-apiserver $REG/kube-apiserver:$K8S 250m 6443 HTTPS /livez "$P:DirectoryOrCreate" \
  --advertise-address=$NODE_IP --secure-port=6443 --allow-privileged=true --authorization-mode=Node,RBAC \
  --enable-admission-plugins=NodeRestriction --enable-bootstrap-token-auth=true --service-cluster-ip-range=$SVC_CIDR \
  --client-ca-file=$P/ca.crt --tls-cert-file=$P/apiserver.crt --tls-private-key-file=$P/apiserver.key \
  --etcd-servers=https://127.0.0.1:2379 --etcd-cafile=$P/etcd/ca.crt --etcd-certfile=$P/apiserver-etcd-client.crt \
  --etcd-keyfile=$P/apiserver-etcd-client.key --kubelet-client-certificate=$P/apiserver-kubelet-client.crt \
  --kubelet-client-key=$P/apiserver-kubelet-client.key --kubelet-preferred-address-types=InternalIP \
  --proxy-client-cert-file=$P/front-proxy-client.crt --proxy-client-key-file=$P/front-proxy-client.key \
  --requestheader-client-ca-file=$P/front-proxy-ca.crt --requestheader-allowed-names=front-proxy-client \
  --requestheader-extra-headers-prefix=X-Remote-Extra- --requestheader-group-headers=X-Remote-Group \
  --requestheader-username-headers=X-Remote-User --service-account-issuer=https://kubernetes.default.svc.cluster.local \
  --service-account-key-file=$P/sa.pub --service-account-signing-key-file=$P/sa.key
static kube-controller-manager $REG/kube-controller-manager:$K8S 200m 10257 HTTPS /healthz \
  "$P:DirectoryOrCreate /etc/kubernetes/controller-manager.conf:FileOrCreate" \
  --bind-address=127.0.0.1 --kubeconfig=/etc/kubernetes/controller-manager.conf \
  --authentication-kubeconfig=/etc/kubernetes/controller-manager.conf --authorization-kubeconfig=/etc/kubernetes/controller-manager.conf \
  --client-ca-file=$P/ca.crt --requestheader-client-ca-file=$P/front-proxy-ca.crt --root-ca-file=$P/ca.crt \
  --cluster-signing-cert-file=$P/ca.crt --cluster-signing-key-file=$P/ca.key --service-account-private-key-file=$P/sa.key \
  --use-service-account-credentials=true --leader-elect=false '"--controllers=*,bootstrapsigner,tokencleaner"'
static kube-scheduler $REG/kube-scheduler:$K8S 100m 10259 HTTPS /healthz "/etc/kubernetes/scheduler.conf:FileOrCreate" \
  --bind-address=127.0.0.1 --kubeconfig=/etc/kubernetes/scheduler.conf \
  --authentication-kubeconfig=/etc/kubernetes/scheduler.conf --authorization-kubeconfig=/etc/kubernetes/scheduler.conf \
  --leader-elect=false

cat >"$dir/enter" <<END
#!/bin/bash
PATH=$PATH
exec nsenter -t "\$(cat $dir/node.pid)" -m -u -i -n -p -- sh -c 'cd "\$0" 2>/dev/null || cd /; exec "\$@"' "\$PWD" "\$@"
END
cat >"$dir/kubectl" <<END
#!/bin/bash
exec $dir/enter $(command -v kubectl) --kubeconfig=/etc/kubernetes/admin.conf "\$@"
END
chmod +x "$dir"/{enter,kubectl}

export PATH
setsid unshare --mount --net --pid --uts --ipc --fork --kill-child "$here/up.sh" --node "$dir" \
  </dev/null >"$dir/log/node.log" 2>&1 &
until [ -s "$dir/node.pid" ]; do sleep 0.05; done
until_ok() { # WHAT SECONDS CMD...
  local what=$1 end=$((SECONDS + $2)); shift 2
  until "$@" >/dev/null 2>&1; do
    [ $SECONDS -lt $end ] || { echo "not within its time: $what" >&2; exit 1; }
    [ -d "/proc/$(cat "$dir/node.pid")" ] || { echo "the node ended: $dir/log/node.log" >&2; exit 1; }
    sleep 0.3
  done
  say "$what"
}
until_ok "containerd up, images imported" 120 test -e "$dir/images.done"
until_ok "kube-apiserver ready" 180 "$dir/kubectl" get --raw /readyz
until_ok "node registered" 60 "$dir/kubectl" get node $NODE
"$dir/kubectl" label node $NODE node-role.kubernetes.io/control-plane= >/dev/null
until_ok "node Ready" 120 "$dir/kubectl" wait --for=condition=Ready node/$NODE --timeout=60s
for c in etcd kube-apiserver kube-controller-manager kube-scheduler; do
  until_ok "$c pod Ready" 120 "$dir/kubectl" -n kube-system wait --for=condition=Ready pod/$c-$NODE --timeout=60s
done
until_ok "service account default there" 60 "$dir/kubectl" get sa default
