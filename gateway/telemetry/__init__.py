"""Counting what happens, for Prometheus."""
