"""A route is rewritten every 20 ms, endpoints come and go, clients never pause: nobody sees anything but 200."""

from __future__ import annotations

import pytest

from bench.changes import rewriting


async def test_500_changes() -> None:
    row = await rewriting(500, churn=True)
    assert row.reached, row.details
    assert row.details["answers"] > 1000


@pytest.mark.slow
async def test_10000_changes() -> None:
    row = await rewriting(10_000, churn=True)
    assert row.reached, row.details
    print(row.found)
