"""Reads a report of the Gateway API's conformance suite: a line a profile, and whether all of it is green.

python -m tools.conformance conformance/reports/experimental.yaml
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table

PROFILES = ("GATEWAY-HTTP", "GATEWAY-GRPC", "GATEWAY-TLS", "GATEWAY-TCP", "GATEWAY-UDP")

# Features that no implementation can have: the CRDs of that version and channel lack their fields.
IMPOSSIBLE = {("v1.6.3", "standard"): {"HTTPRouteRetry", "HTTPRouteRetryBackendTimeout", "HTTPRouteRetryConnectionError"}}


def faults(report: dict[str, Any]) -> list[str]:
    """What keeps a report from being green in every profile."""
    found = {profile["name"]: profile for profile in report.get("profiles") or ()}
    impossible = IMPOSSIBLE.get((report.get("gatewayAPIVersion"), report.get("gatewayAPIChannel")), set())
    said = [f"{name}: not run" for name in PROFILES if name not in found]
    for name, profile in found.items():
        for part in ("core", "extended"):
            result = profile.get(part) or {}
            statistics = result.get("statistics") or {}
            if result.get("result") != "success" or statistics.get("Failed") or statistics.get("Skipped"):
                said.append(f"{name} {part}: {result.get('result', 'absent')}, {statistics}")
            unsupported = [feature for feature in result.get("unsupportedFeatures") or () if feature not in impossible]
            if unsupported:
                said.append(f"{name} {part}: unsupported {', '.join(unsupported)}")
    return said


def table(report: dict[str, Any]) -> Table:
    """A line for each profile."""
    made = Table("profile", "core", "extended", "features", title="Gateway API conformance", title_justify="left")
    for profile in sorted(report.get("profiles") or (), key=lambda one: PROFILES.index(one["name"])):
        counts = []
        for part in ("core", "extended"):
            statistics = profile.get(part, {}).get("statistics", {})
            passed = statistics.get("Passed", 0)
            counts.append(f"{passed} of {passed + statistics.get('Failed', 0) + statistics.get('Skipped', 0)}")
        extended = profile.get("extended", {})
        supported, not_supported = (len(extended.get(f"{word}Features") or ()) for word in ("supported", "unsupported"))
        made.add_row(profile["name"], *counts, f"{supported} of {supported + not_supported}")
    return made


def main() -> None:
    """Exit with 1 where anything is not green."""
    report = yaml.safe_load(Path(sys.argv[1]).read_text())
    console = Console(width=None if sys.stdout.isatty() else 100)
    console.print(table(report))
    said = faults(report)
    for line in said:
        console.print(f"[red]{line}[/]")
    raise SystemExit(1 if said else 0)


if __name__ == "__main__":
    main()
