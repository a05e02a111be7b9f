"""What must run in a cluster, as objects."""
