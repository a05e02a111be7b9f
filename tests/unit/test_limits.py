"""Limits as people write them: one line each."""

from __future__ import annotations

import pytest

from controller.translate.gateways.client_limits import FIELDS, read
from gateway.snapshot import DEFAULT_LIMITS, Limits


@pytest.mark.parametrize(
    ("text", "limits"),
    [
        ("", DEFAULT_LIMITS),
        ("{}", DEFAULT_LIMITS),
        ("{headBytes: 8192, idleSeconds: 5}", Limits(head_bytes=8192, idle_seconds=5.0)),
        ('{"bodyBytes": 0, "headSeconds": 0.5}', Limits(body_bytes=0, head_seconds=0.5)),
        ("{underscores: Drop}", Limits(underscores="Drop")),
        ("{underscores: Allow, fields: 5}", Limits(fields=5)),
        ("requestsPerConnection: 1000\nconnections: 0", Limits(requests_per_connection=1000, connections=0)),
    ],
)
def test_good(text: str, limits: Limits) -> None:
    assert read(text) == (limits, "")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[1]", "a mapping is needed"),
        ("{", "not YAML"),
        ("{headbytes: 1}", "headbytes is not a limit; these are: headBytes, fields"),
        ("{headBytes: 0}", "at least 1 is needed"),
        ("{bodyBytes: -1}", "at least 0 is needed"),
        ("{bodyBytes: 1.5}", "a whole number"),
        ("{idleSeconds: soon}", "a number of seconds"),
        ("{idleSeconds: 0}", "at least 0.001"),
        ("{fields: true}", "True was found"),
        ("{underscores: drop}", "'drop' was found; one of Allow, Reject, Drop is needed"),
        ("{underscores: [Drop]}", "one of Allow, Reject, Drop is needed"),
        ("{underscores: 0}", "one of Allow, Reject, Drop is needed"),
    ],
)
def test_bad(text: str, words: str) -> None:
    limits, fault = read(text)
    assert limits == DEFAULT_LIMITS
    assert words in fault
    assert "default limits are in force" in fault


def test_every_limit_has_a_name() -> None:
    assert len(FIELDS) == len(Limits.__struct_fields__)
