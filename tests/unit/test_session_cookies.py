"""SessionStickyPolicy: what its cookie may say of itself, and what clients would not take is refused with its field."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from support.objects import gateway, obj, route, service, slice_, world

from controller.cli.validate import LoadedFiles
from controller.translate import translate
from controller.translate.shared.status import ExtensionStatus
from gateway.snapshot import Rule


def translated(config: dict[str, Any]) -> tuple[Rule, str]:
    """The rule of a route to a Service with a policy of this config, and what Accepted says of that."""
    policy = obj("SessionStickyPolicy", "p", spec={"targetRef": {"kind": "Service", "name": "s"}, "config": config})
    made = translate(world(gateway(), service("s"), slice_("s", "10.0.0.1"), route("r", "s"), policy))
    (rule,) = (part for part in made.parts["default", "gw"].values() if isinstance(part, Rule))
    status = made.statuses[policy.ref]
    assert isinstance(status, ExtensionStatus)
    (accepted,) = status.conditions
    assert accepted.is_true == (rule.persistence is not None)
    return rule, "" if accepted.is_true else f"{accepted.reason}: {accepted.message}"


# config → SameSite, Secure (None: as the listener is), Domain
WRITTEN: list[tuple[dict[str, Any], tuple[str, bool | None, str]]] = [
    ({}, ("", None, "")),
    ({"sameSite": "Strict"}, ("Strict", None, "")),
    ({"sameSite": "Lax", "secure": False}, ("Lax", False, "")),
    ({"secure": True}, ("", True, "")),
    ({"sameSite": "None"}, ("None", True, "")),
    ({"sameSite": "None", "secure": True}, ("None", True, "")),
    ({"cookieName": "__Secure-x"}, ("", True, "")),
    ({"cookieName": "__host-x"}, ("", True, "")),
    ({"cookieName": "__Secure-x", "domain": "example.com"}, ("", True, "example.com")),
    ({"domain": "Shop.Example.com"}, ("", None, "Shop.Example.com")),
    ({"domain": "localhost"}, ("", None, "localhost")),
    ({"domain": "xn--bcher-kva.example"}, ("", None, "xn--bcher-kva.example")),
]


@pytest.mark.parametrize(("config", "expected"), WRITTEN, ids=str)
def test_what_is_written(config: dict[str, Any], expected: tuple[str, bool | None, str]) -> None:
    rule, refusal = translated(config)
    assert not refusal
    assert rule.persistence is not None
    assert (rule.persistence.same_site, rule.persistence.secure, rule.persistence.domain) == expected


LONG = "a" * 64
REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"sameSite": "None", "secure": False}, "secure: found false; clients take no cookie with sameSite: None that is not secure"),
    ({"cookieName": "__Secure-x", "secure": False}, 'secure: found false; clients take no cookie with a cookieName that begins with "__Secure-"'),
    ({"cookieName": "__Host-x", "domain": "example.com"}, 'domain: a cookie whose name begins with "__Host-" has none; leave it out'),
    ({"sameSite": "lax"}, "spec.config.sameSite"),
    ({"sameSite": None, "secure": "yes"}, "spec.config.secure"),
    ({"domain": ".example.com"}, 'domain: ".example.com" begins with a dot, which means nothing: without it subdomains are meant as well'),
    *(
        ({"domain": text}, "domain: ")
        for text in ("", "example.com.", "a..b", "-a.example", "a-.example", "a_b.example", f"{LONG}.example", "*.example.com",
                     "example.com:80", "bücher.example", "a; Path=/x", ".".join(["abcdefg"] * 32))
    ),
]  # fmt: skip


@pytest.mark.parametrize(("config", "words"), REFUSED, ids=str)
def test_what_is_refused(config: dict[str, Any], words: str) -> None:
    _, refusal = translated(config)
    assert refusal.startswith("Invalid: ")
    assert words in refusal


@pytest.mark.parametrize("at_a_port", [False, True])
def test_files_are_held_to_the_same(tmp_path: Path, *, at_a_port: bool) -> None:
    """The CRD refuses what the controller would, and nothing else."""
    for number, (config, is_good) in enumerate([(one, True) for one, _ in WRITTEN] + [(one, False) for one, _ in REFUSED]):
        said: dict[str, Any] = {"ports": [{"port": 80, "config": config}]} if at_a_port else {"config": config}
        spec = {"targetRef": {"group": "", "kind": "Service", "name": "s"}, **said}
        policy = {
            "apiVersion": "gateway.flomesh.io/v1alpha1",
            "kind": "SessionStickyPolicy",
            "metadata": {"name": "p"},
            "spec": spec,
        }
        target = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}]}}
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "all.yaml").write_text(yaml.safe_dump_all([policy, target]))
        assert (not LoadedFiles(folder).faults()) == is_good, config
