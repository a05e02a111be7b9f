"""What is made for a Gateway, and what is installed."""

from __future__ import annotations

import re

import pytest
from worlds import gateway

from controller import install
from controller.manifests import Settings, for_gateway, generated_name, limited
from controller.objects import Gateway

SETTINGS = Settings("image:1", "https://fsm-controller.fsm-system.svc:9443", "PEM")


def made(found: Gateway) -> dict[str, dict]:
    return {obj["kind"]: obj for obj in for_gateway(found, SETTINGS)}


def test_what_runs_for_a_gateway() -> None:
    found = gateway("gw", {"name": "a", "port": 80, "protocol": "HTTP"}, {"name": "b", "port": 443, "protocol": "HTTPS"},
                    {"name": "c", "port": 80, "protocol": "HTTP", "hostname": "x.y"},
                    infrastructure={"labels": {"team": "blue"}, "annotations": {"a/b": "c"}})  # fmt: skip
    objects = made(found)
    assert set(objects) == {"ServiceAccount", "Deployment", "Service"}
    for obj in objects.values():
        meta = obj["metadata"]
        assert meta["labels"]["app"] == "fsm-gateway"
        assert meta["labels"]["gateway.networking.k8s.io/gateway-name"] == "gw"
        assert meta["labels"]["team"] == "blue"
        assert meta["annotations"] == {"a/b": "c"}
        assert meta["ownerReferences"][0]["name"] == "gw"
    assert [port["port"] for port in objects["Service"]["spec"]["ports"]] == [80, 443]
    assert objects["Service"]["spec"]["type"] == "LoadBalancer"
    template = objects["Deployment"]["spec"]["template"]
    assert template["metadata"]["labels"]["team"] == "blue"
    pod = template["spec"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    (container,) = pod["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
    }  # fmt: skip


@pytest.mark.parametrize("name", ["gw", "a" * 253, "with.dots", "1digit", "a" * 62 + ".b"])
def test_names_fit_a_service(name: str) -> None:
    found = generated_name(gateway(name))
    assert re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", found)
    assert len(found) <= 63


def test_long_names_stay_different() -> None:
    assert generated_name(gateway("a" * 200 + "b")) != generated_name(gateway("a" * 200 + "c"))
    assert len(limited("x" * 253)) == 63


def test_the_controller_may_not_do_more_than_it_does() -> None:
    rules = [
        rule for obj in install.objects(install.Values()) if obj["kind"] in ("ClusterRole", "Role") for rule in obj["rules"]
    ]
    for rule in rules:
        assert "*" not in rule["verbs"] + rule["resources"] + rule["apiGroups"]
    writes = {r for rule in rules for r in rule["resources"] if set(rule["verbs"]) & {"create", "update", "patch", "delete"}}
    assert "pods" not in writes
    assert "httproutes" not in writes
    assert "gateways" not in writes


def test_disabled_means_no_controller_pods() -> None:
    (deployment,) = (o for o in install.objects(install.Values(replicas=0)) if o["kind"] == "Deployment")
    assert deployment["spec"]["replicas"] == 0
