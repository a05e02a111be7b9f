"""The shells at the Kubernetes end. kubernetes_asyncio connects and authenticates; msgspec reads the JSON."""
