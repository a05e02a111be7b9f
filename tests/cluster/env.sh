# Where everything lies, and which versions. Sourced by the other scripts; set CLUSTER_HOME to keep it elsewhere.
export CLUSTER_HOME=${CLUSTER_HOME:-${XDG_CACHE_HOME:-$HOME/.cache}/fsm-cluster}
export HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
export BIN=$CLUSTER_HOME/bin IMAGES=$CLUSTER_HOME/images PKI=$CLUSTER_HOME/pki STATE=$CLUSTER_HOME/state
export NETNS=${NETNS:-fsm-cluster}
# What is built. Debian 12's containerd is the reason not to go past Kubernetes 1.37.
export GO=1.27.3 KUBERNETES=1.37.2 ETCD=3.6.16 COREDNS=1.15.0 HELM=3.22.0
# The project's image in the cluster.
export FSM_IMAGE=${FSM_IMAGE:-localhost/fsm-gateway:dev}
BUILDAH="buildah --root $CLUSTER_HOME/buildah --runroot $CLUSTER_HOME/buildah-run --storage-driver overlay"
