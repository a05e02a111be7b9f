"""Fixtures of the end-to-end tests."""

from clusters import api, installed

__all__ = ["api", "installed"]
