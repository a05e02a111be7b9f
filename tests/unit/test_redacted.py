"""What is shown of parts holds no keys."""

from __future__ import annotations

import json

import msgspec
import pytest

from gateway.snapshot import Backend, BackendTLS, Certificate, Part, Script, Store, redacted

KEY = "hidden-from-all"


@pytest.mark.parametrize(
    "part",
    [
        Certificate("c", "chain", KEY),
        Backend("b", tls=BackendTLS("b.internal", own=Certificate("c", "chain", KEY))),
        Script("s", "source", json.dumps({"key": KEY})),
        Script("s", "source", secrets=(("name", KEY),), store=Store("valkey", password=KEY)),
        Script("s", "", json.dumps({"target": "http://logs/", "headers": {"Authorization": KEY}}), built_in="HTTPLog"),
        Script("s", "", json.dumps({"target": f"https://me:{KEY}@logs/"}), built_in="HTTPLog"),
        Script("s", "", json.dumps({"target": f"https://logs/hooks/{KEY}"}), built_in="HTTPLog"),
        Script("s", "", json.dumps({"target": f"https://logs/?key={KEY}"}), built_in="Zipkin"),
    ],
)
def test_no_key_is_shown(part: Part) -> None:
    assert KEY in msgspec.json.encode(part).decode()
    assert KEY not in msgspec.json.encode(redacted(part)).decode()
    assert KEY not in repr(part)


def test_what_is_no_key_is_shown() -> None:
    config = {"target": "http://logs/", "method": "POST", "headers": {"X-From": KEY}}
    shown = redacted(Script("s", "", json.dumps(config), built_in="HTTPLog"))
    assert isinstance(shown, Script)
    assert json.loads(shown.config) == {**config, "headers": {"X-From": "(withheld)"}}
