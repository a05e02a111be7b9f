"""What controllers, people and Prometheus see of a data plane."""
