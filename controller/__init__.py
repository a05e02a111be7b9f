"""The control plane: Kubernetes objects in; snapshots and statuses out."""
