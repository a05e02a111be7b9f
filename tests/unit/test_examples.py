"""The examples are valid, and do what their README says."""

from __future__ import annotations

from pathlib import Path

import pytest

from controller.inspect.explain import Asked, explain
from controller.inspect.loaded_files import LoadedFiles

EXAMPLES = Path(__file__).parent.parent.parent / "examples"


@pytest.mark.parametrize("name", sorted(path.name for path in EXAMPLES.iterdir() if path.is_dir()))
def test_examples_are_valid(name: str) -> None:
    assert [str(fault) for fault in LoadedFiles(EXAMPLES / name).faults()] == []


@pytest.mark.parametrize(
    ("name", "url", "headers", "outcome"),
    [
        ("quickstart", "http://demo.example.com/", (), "answered by default/argo-rollouts-stable-service:80"),
        ("header-routing", "http://demo.example.com/", (), "answered by default/argo-rollouts-stable-service:80"),
        (
            "header-routing",
            "http://demo.example.com/",
            (("X-Canary", "always"),),
            "answered by default/argo-rollouts-canary-service:80",
        ),
        ("header-routing", "http://demo.example.com/?version=2", (), "answered by default/argo-rollouts-canary-service:80"),
        ("redirects", "http://www.example.com/old/x?y", (), "301: redirected to http://www.example.com/new/x?y"),
        ("grpc", "http://grpc.example.com/helloworld.Greeter/SayHello", (), "answered by default/greeter-v2:50051 (h2c)"),
        ("resilience", "http://shop.example.com/api/x", (), "answered by default/shop:80"),
        ("listenerset", "http://team.example.com/", (), "answered by default/app:80"),
        ("listenerset", "http://www.example.com/", (), "404: no route is for this hostname"),
        ("redirects", "http://www.example.com/", (), "301: redirected to https://www.example.com/"),
    ],
)
def test_examples_do_what_they_say(name: str, url: str, headers: tuple, outcome: str) -> None:
    parts = [part for found in LoadedFiles(EXAMPLES / name).translation.parts.values() for part in found.values()]
    assert explain(parts, Asked(url, "GET", headers)).outcome == outcome
