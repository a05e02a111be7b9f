"""Following the API server through everything that ends a watch; the server here says what real ones say."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiohttp import web
from support.watching import Stage, event, service, stage

__all__ = ["stage"]


async def test_list_then_events(stage: Stage) -> None:
    stage.server.lists = [([service("a", 1)], 5, "more"), ([service("b", 2)], 5, "")]
    stage.server.watches = [
        [event("ADDED", service("c", 6)), event("MODIFIED", service("a", 7, 81)), event("DELETED", service("b", 8))]
    ]
    stage.follow()
    await stage.until({"a": 81, "c": 80})
    assert [query.get("continue") for query in stage.server.asked] == [None, "more", None]
    assert stage.server.asked[2]["resourceVersion"] == "5"
    assert stage.server.asked[2]["allowWatchBookmarks"] == "true"


async def test_a_watch_that_ends_goes_on_where_it_ended(stage: Stage) -> None:
    stage.server.lists = [([service("a", 1)], 5, "")]
    bookmark = {"metadata": {"resourceVersion": "9"}}
    stage.server.watches = [[event("BOOKMARK", bookmark), b""], [event("ADDED", service("b", 10))]]
    stage.follow()
    await stage.until({"a": 80, "b": 80})
    assert [query.get("resourceVersion") for query in stage.server.asked] == [None, "5", "9"]


@pytest.mark.parametrize("how", ["event", "answer"])
async def test_410_gone_reads_the_list_again_and_drops_what_is_missing(stage: Stage, how: str) -> None:
    gone = {"kind": "Status", "code": 410, "message": "too old resource version"}
    stage.server.lists = [([service("a", 1), service("b", 1)], 5, ""), ([service("b", 1, 81)], 20, "")]
    first = [event("ERROR", gone), b""] if how == "event" else web.json_response(gone, status=410)
    stage.server.watches = [first, None]
    stage.follow()
    await stage.until({"b": 81})
    await stage.server.streams.get()
    assert stage.server.asked[-1]["resourceVersion"] == "20"


async def test_a_line_in_pieces(stage: Stage) -> None:
    whole = event("ADDED", service("a", 6))
    stage.server.lists = [([], 5, "")]
    stage.server.watches = [[whole[:7], whole[7:20], whole[20:] + event("ADDED", service("b", 7))[:-1], b"\n"]]
    stage.follow()
    await stage.until({"a": 80, "b": 80})


async def test_an_expired_token_is_read_again(stage: Stage) -> None:
    tokens = iter(["Bearer old", "Bearer new", "Bearer new"])

    def refresh(configuration: Any, *_: Any) -> None:
        configuration.api_key["BearerToken"] = next(tokens, "Bearer new")

    stage.configuration.api_key["BearerToken"] = "Bearer old"
    stage.configuration.refresh_api_key_hook = refresh
    stage.server.lists = [web.json_response({"message": "Unauthorized"}, status=401), ([service("a", 1)], 5, "")]
    stage.follow()
    await stage.until({"a": 80})
    assert stage.server.tokens[:2] == ["Bearer old", "Bearer new"]


async def test_an_api_server_that_is_overloaded_is_asked_again_when_it_says(stage: Stage) -> None:
    busy = web.json_response({"message": "too many requests"}, status=429, headers={"Retry-After": "0.05"})
    stage.server.lists = [busy, ([service("a", 1)], 5, "")]
    stage.follow()
    await stage.until({"a": 80})


async def test_a_missing_optional_kind_is_no_kind(stage: Stage) -> None:
    follower = stage.follow("XBackend")
    async with asyncio.timeout(5):
        await follower.synced.wait()
        await stage.tasks[0]


async def test_an_object_that_cannot_be_understood_hides_no_other(stage: Stage) -> None:
    odd = service("odd", 1)
    odd["spec"]["ports"] = "many"
    stage.server.lists = [([odd, service("a", 1)], 5, "")]
    stage.follow()
    await stage.until({"a": 80})


def _broken(status: int) -> web.Response:
    return web.json_response({"kind": "Status", "code": status, "message": "as scripted"}, status=status)


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How often each wait was doubled; none of them is waited for."""
    doubled: list[int] = []

    def backoff(_: float, doublings: int, __: float) -> float:
        doubled.append(doublings)
        return 0.0

    monkeypatch.setattr("controller.kubernetes.watch.backoff", backoff)
    return doubled


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (503, [1, 2, 3, 4, 1, 2]),  # a watch that told something in between begins anew
        (410, [2, 3, 4, 2]),  # the first list after one is read at once
    ],
)
async def test_a_watch_that_fails_time_and_again_waits_longer_each_time(
    stage: Stage, waits: list[int], status: int, expected: list[int]
) -> None:
    stage.server.lists = [([service("a", 1)], 5, "") for _ in range(7)]
    works = [event("ADDED", service("b", 6)), b""]
    stage.server.watches = [*(_broken(status) for _ in range(4)), works, *(_broken(status) for _ in range(2)), None]
    stage.follow()
    async with asyncio.timeout(5):
        await stage.server.streams.get()
    assert waits == expected
