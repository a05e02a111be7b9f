"""Filters in Python: loaded, watched, confined."""
