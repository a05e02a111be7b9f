"""What a filter costs is measured without sockets: what stands in for them does all that is asked of a connection."""

from __future__ import annotations

import pytest

from bench.filters import PASSING, SAID, kinds
from controller.inspect import filter_benchmark


async def test_every_kind_has_a_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filter_benchmark, "ROUNDS", 1)
    assert len(await kinds(True)) == len(PASSING) + len(SAID)
