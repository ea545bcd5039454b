#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# node-init.sh NAME ROOT IMAGES KUBELET
# Process 1 of a node. It is started in namespaces of its own (network, mount, process, host name, IPC, cgroup), turns
# the folder ROOT into the node's file system, and keeps containerd and the kubelet running. Its end is the node's end.
set -euo pipefail
name=$1 root=$2 images=$3 kubelet=$4

hostname "$name"
ip link set lo up
# Read before the new file system hides them.
hierarchies=$(awk '$3 == "cgroup" || $3 == "cgroup2" {print $2, $3, $4}' /proc/self/mounts)

make_root() {
    mount --make-rprivate /
    mount --bind "$root" "$root"
    cd "$root"
    mkdir -p dev etc/cni/net.d mnt opt/cni/bin opt/images opt/kubernetes proc root run sys tmp usr \
        var/lib/containerd var/lib/kubelet var/log var/tmp .host "$root.usr" "$root.work"
    chmod 1777 tmp var/tmp
    ln -sfn /run var/run
    local link
    for link in bin sbin lib lib32 lib64 libx32; do
        [ ! -L "/$link" ] || ln -sfn "$(readlink "/$link")" "$link"
    done
    # The machine's programs, in a layer above which pods may write (volumes of type hostPath below /usr).
    mount -t overlay usr -o "lowerdir=/usr,upperdir=$root.usr,workdir=$root.work" usr
    mount --rbind /dev dev
    mount --make-rslave dev
    mount -t proc proc proc
    # Its own: the machine's would list the machine's interfaces.
    mount -t sysfs sysfs sys
    mount -t tmpfs tmpfs run
    mkdir -p run/lock run/netns
    mount --bind "$images" opt/images
    touch opt/kubernetes/kubelet
    mount --bind "$kubelet" opt/kubernetes/kubelet
    mount -t bpf bpf sys/fs/bpf
    mount -t tracefs tracefs sys/kernel/tracing 2>/dev/null || true
    # containerd needs `loopback` of these for every pod; the others are not configured.
    cp -a /usr/lib/cni/. opt/cni/bin/
}

# The hierarchies again: their root, in the new cgroup namespace, is the node's own group.
make_cgroups() {
    local place kind options controllers
    # Version 2 alone is mounted here; several hierarchies lie in folders of their own.
    grep -q '^/sys/fs/cgroup ' <<<"$hierarchies" || mount -t tmpfs -o mode=755 tmpfs sys/fs/cgroup
    while read -r place kind options; do
        mkdir -p ".$place"
        if [ "$kind" = cgroup2 ]; then
            mount -t cgroup2 cgroup2 ".$place"
            # Version 2 hands controllers on from groups without processes alone.
            if [ -s ".$place/cgroup.controllers" ]; then
                mkdir ".$place/init"
                echo $$ >".$place/init/cgroup.procs"
                sed 's/[a-z]\+/+&/g' ".$place/cgroup.controllers" >".$place/cgroup.subtree_control"
            fi
            continue
        fi
        controllers=$(tr , '\n' <<<"$options" |
            grep -vxE 'rw|ro|relatime|noatime|nosuid|nodev|noexec|xattr|clone_children|release_agent=.*' | paste -sd,)
        case $controllers in name=*) controllers=none,$controllers ;; esac
        mount -t cgroup -o "$controllers" cgroup ".$place"
        # Beside the group of all pods, as where systemd starts them: each of their threads, of which there are many while
        # pods come, would otherwise weigh half as much as all pods, and an agent would hardly run.
        if [ -e ".$place/cpu.shares" ]; then
            mkdir ".$place/init"
            echo $$ >".$place/init/cgroup.procs"
        fi
    done <<<"$hierarchies"
}

# The kubelet writes these, and they belong to the whole machine: it finds files that hold what it wants already.
keep_machine_settings() {
    local key value file
    mkdir -p run/settings
    while read -r key value; do
        [ -e "proc/sys/$key" ] || continue
        file=run/settings/${key//\//.}
        echo "$value" >"$file"
        mount --bind "$file" "proc/sys/$key"
    done <<'SETTINGS'
vm/overcommit_memory 1
vm/panic_on_oom 0
kernel/panic 10
kernel/panic_on_oops 1
kernel/keys/root_maxkeys 1000000
kernel/keys/root_maxbytes 25000000
SETTINGS
}

make_etc() {
    local file
    for file in alternatives group iproute2 ld.so.cache ld.so.conf ld.so.conf.d nsswitch.conf passwd protocols services; do
        [ ! -e "/etc/$file" ] || cp -a "/etc/$file" etc/
    done
    echo "$name" >etc/hostname
    printf '127.0.0.1 localhost\n::1 localhost\n127.0.1.1 %s\n' "$name" >etc/hosts
    : >etc/resolv.conf
    md5sum <<<"$name" | cut -c1-32 >etc/machine-id
}

# keep LOG COMMAND...: in the background; whoever kills it sees it come back.
keep() {
    local log=$1
    shift
    while :; do
        "$@" >>"$log" 2>&1 || true
        sleep 1
    done &
}

make_root
make_cgroups
keep_machine_settings
make_etc
pivot_root . .host
cd /
umount -l /.host
rmdir /.host
# Mounts of pods with `mountPropagation: Bidirectional` reach the node.
mount --make-rshared /

export PATH=/opt/kubernetes:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin HOME=/root
keep /var/log/containerd.log containerd --config /etc/containerd.toml
until ctr version >/dev/null 2>&1; do sleep 0.1; done
# Before the kubelet starts: nothing could pull an image that a pod asks for too early.
for image in /opt/images/*.tar; do
    ctr --namespace k8s.io images import "$image" >>/var/log/images.log 2>&1
done
read -ra flags </etc/kubelet.flags
keep /var/log/kubelet.log kubelet --config=/etc/kubelet.yaml --kubeconfig=/etc/kubelet.kubeconfig --v=2 "${flags[@]}"

# Orphans of the containers' shims become children of process 1; a waiting shell buries them.
while :; do
    sleep infinity &
    wait $! || true
done
