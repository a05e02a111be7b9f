"""Hostnames, and the wildcards that stand for many (Gateway API, Hostname)."""

from __future__ import annotations


def covers(wildcard: str, hostname: str) -> bool:
    """Whether *.example.com covers a name, or a narrower wildcard, below example.com."""
    return wildcard.startswith("*.") and hostname.endswith(wildcard[1:]) and hostname != wildcard


def overlap(hostname: str, other: str) -> bool:
    """Whether two hostnames, or what wildcards stand for, have any name in common."""
    return not hostname or not other or hostname == other or covers(hostname, other) or covers(other, hostname)
