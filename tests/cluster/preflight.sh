#!/bin/bash
# Says what this machine lacks for the cluster; installs Debian's packages where it can. Fails loudly, never skips.
set -euo pipefail
fail() { echo "the test cluster cannot run here: $*" >&2; exit 1; }
[ "$(id -u)" = 0 ] || fail "root is needed (namespaces, mounts); or set KUBECONFIG to use a cluster that you have"
[ -d /sys/fs/cgroup ] || fail "no cgroups are mounted"
grep -qw overlay /proc/filesystems || modprobe overlay 2>/dev/null || fail "the kernel has no overlay file system"
missing=(); need() { command -v "$1" >/dev/null || missing+=("$2"); }
need containerd containerd; need runc runc; need nft nftables; need conntrack conntrack; need ip iproute2; need buildah buildah
need debootstrap debootstrap; need ipset ipset; need kmod kmod; need ethtool ethtool; need socat socat; need iptables iptables
[ -x /usr/lib/cni/bridge ] || missing+=(containernetworking-plugins)
command -v openssl >/dev/null || missing+=(openssl); command -v curl >/dev/null || missing+=(curl); command -v python3 >/dev/null || missing+=(python3)
if [ ${#missing[@]} -gt 0 ]; then
  command -v apt-get >/dev/null || fail "these are missing: ${missing[*]}"
  apt-get update -q >&2 && DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${missing[@]}" >&2
fi
ip link add fsm-probe-a type veth peer name fsm-probe-b 2>/dev/null || fail "virtual network devices (veth) cannot be made"
ip link del fsm-probe-a
