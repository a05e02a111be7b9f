"""Fixtures of the standalone tests."""

from support.standalone import apps, running

__all__ = ["apps", "running"]
