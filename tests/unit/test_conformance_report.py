"""A report is green only where every profile is."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from tools.conformance import PROFILES, faults


def good() -> dict[str, Any]:
    return {"result": "success", "statistics": {"Passed": 3, "Failed": 0, "Skipped": 0}}


REPORT: dict[str, Any] = {"profiles": [{"name": name, "core": good(), "extended": good()} for name in PROFILES]}


def test_green() -> None:
    assert faults(REPORT) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"result": "failure"}, "failure"),
        ({"statistics": {"Passed": 3, "Failed": 1}}, "Failed"),
        ({"statistics": {"Passed": 3, "Skipped": 1}}, "Skipped"),
        ({"unsupportedFeatures": ["HTTPRouteCORS"]}, "unsupported HTTPRouteCORS"),
    ],
)
def test_not_green(change: dict[str, Any], words: str) -> None:
    report = copy.deepcopy(REPORT)
    report["profiles"][2]["extended"].update(change)
    (fault,) = faults(report)
    assert words in fault


def test_a_profile_that_did_not_run() -> None:
    assert faults({"profiles": REPORT["profiles"][1:]}) == ["GATEWAY-HTTP: not run"]


def test_what_the_cluster_of_a_version_and_channel_has_no_field_for() -> None:
    report = copy.deepcopy(REPORT)
    report["profiles"][0]["extended"]["unsupportedFeatures"] = ["HTTPRouteRetry"]
    assert faults(report | {"gatewayAPIVersion": "v1.6.3", "gatewayAPIChannel": "standard"}) == []
    assert faults(report | {"gatewayAPIVersion": "v1.6.3", "gatewayAPIChannel": "experimental"})
    assert faults(report | {"gatewayAPIVersion": "v1.7.0", "gatewayAPIChannel": "standard"})
