"""Kinds of filters that come with the gateway. Each is a filter as a user would write it, in a file of its own: the spec of
its kind is its `config`. They run inline, and cost what such filters cost.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files

# By the type that a Filter names: the file here, and the kind that its configRef may have.
BUILT_IN = {
    "RequestTermination": "request_termination.py",
    "FaultInjection": "fault_injection.py",
}


@cache
def source(name: str) -> str:
    """The source of a type."""
    return (files("gateway.policies") / BUILT_IN[name]).read_text()
