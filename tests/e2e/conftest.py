"""Fixtures of the end-to-end tests."""

from clusters import api, installed
from stages import stage

__all__ = ["api", "installed", "stage"]
