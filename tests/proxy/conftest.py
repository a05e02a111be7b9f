"""Fixtures of the proxy's tests, on uvloop as in production."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
import trustme
import uvloop
from support.proxy import other, proxy, server

__all__ = ["other", "proxy", "server"]


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture
def authority() -> trustme.CA:
    """Issues certificates that are believed."""
    return trustme.CA()


@pytest.fixture
def stranger() -> trustme.CA:
    """Issues certificates that nobody should believe."""
    return trustme.CA()
