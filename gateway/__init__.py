"""The data plane: an HTTP proxy that is told what to do by a snapshot, and knows nothing of Kubernetes."""

__version__ = "0.1.0"
