"""Fixtures of the standalone tests."""

from running import apps, running

__all__ = ["apps", "running"]
