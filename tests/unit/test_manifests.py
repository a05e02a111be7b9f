"""What is made for a Gateway, and what is installed."""

from __future__ import annotations

import re

import pytest
from msgspec.structs import replace
from support.manifests import made
from support.objects import gateway

from controller.deploy import install
from controller.deploy.manifests import limited
from controller.objects.base import CONTROLLER, Meta, Ref
from controller.objects.core import ConfigMap
from controller.objects.gateways import (
    GatewayClass,
    GatewayClassSpec,
    GatewayListener,
    ListenerSet,
    ListenerSetParent,
    ListenerSetSpec,
)
from controller.state.view import View
from controller.state.world import World
from controller.translate.gateways import gateways, parameters


def test_ports_of_every_transport_and_of_listener_sets() -> None:
    found = gateway(
        "gw", {"name": "a", "port": 53, "protocol": "UDP"}, {"name": "b", "port": 53, "protocol": "TCP"},
        allowedListeners={"namespaces": {"from": "Same"}},
    )  # fmt: skip
    parent = ListenerSetSpec(ListenerSetParent("gw"), (GatewayListener("c", 9000, "TCP"),))
    ports = made(found, ListenerSet(Meta("more", "default"), parent))["Service"]["spec"]["ports"]
    assert [(port["protocol"], port["port"]) for port in ports] == [("TCP", 53), ("TCP", 9000), ("UDP", 53)]
    assert len({port["name"] for port in ports}) == 3


def test_parameters() -> None:
    found = gateway("gw", {"name": "a", "port": 80, "protocol": "HTTP"}, infrastructure={
        "parametersRef": {"group": "", "kind": "ConfigMap", "name": "how"},
    })  # fmt: skip
    how = ConfigMap(Meta("how", "default"), {
        "workers": "2", "serviceType": "ClusterIP", "serviceAnnotations": "x: y", "resources": "limits: {cpu: 500m}",
        "autoscaling": "{maxReplicas: 5}", "podDisruptionBudget": "{maxUnavailable: 1}", "nodeSelector": "a: b",
        "tolerations": "[{key: edge, operator: Exists}]",
    })  # fmt: skip
    objects = made(found, how)
    assert objects["Service"]["spec"]["type"] == "ClusterIP"
    assert objects["Service"]["metadata"]["annotations"] == {"x": "y"}
    spec = objects["Deployment"]["spec"]
    assert "replicas" not in spec
    pod = spec["template"]["spec"]
    assert "--workers=2" in pod["containers"][0]["args"]
    assert pod["containers"][0]["resources"] == {"limits": {"cpu": "500m"}}
    assert (pod["nodeSelector"], pod["tolerations"]) == ({"a": "b"}, [{"key": "edge", "operator": "Exists"}])
    assert objects["HorizontalPodAutoscaler"]["spec"]["maxReplicas"] == 5
    assert objects["PodDisruptionBudget"]["spec"]["maxUnavailable"] == 1


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"replicas": "many"}, "Expected `int`, got `str` - at `$.replicas`"),
        ({"replicas": "-1"}, "replicas must not be negative"),
        ({"workers": "0"}, "workers must be at least 1"),
        ({"colour": "red"}, "the keys are replicas, workers, serviceType"),
        ({"resources": "{"}, "resources: not YAML"),
    ],
)
def test_parameters_that_cannot_be_understood(data: dict[str, str], words: str) -> None:
    found = gateway("gw", infrastructure={"parametersRef": {"group": "", "kind": "ConfigMap", "name": "how"}})
    world = World()
    world.put(ConfigMap(Meta("how", "default"), data))
    said = parameters.of(View(world), found)
    assert isinstance(said, str)
    assert words in said


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
    found = gateway(name).generated_name
    assert re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", found)
    assert len(found) <= 63


def test_two_gateways_that_would_run_as_one() -> None:
    """One ServiceAccount would prove to be either: the older has it, the younger is told so, and gets it when the older goes."""
    world = World()
    for name in ("fsm-gateway-cls", "b-c"):
        world.put(GatewayClass(Meta(name), GatewayClassSpec(CONTROLLER)))
    table = [
        ("a.b", "fsm-gateway-cls", "2026-01-01T00:00:00Z", "True"),
        ("a-b", "fsm-gateway-cls", "2026-01-02T00:00:00Z", "False"),
        ("z-b", "c", "2026-01-01T00:00:00Z", ""),  # not of a class of ours
        ("z", "b-c", "2026-01-02T00:00:00Z", "True"),
    ]
    for name, class_name, created, _ in table:
        world.put(gateway(name, gatewayClassName=class_name))
        found = world.read(("object", Ref("Gateway", "default", name)))
        world.put(replace(found, metadata=replace(found.metadata, creation_timestamp=created)))
    for name, _, _, accepted in table:
        running = View(world).call(gateways.running, "default", name)
        assert (running is not None) == (accepted == "True"), name
        status = View(world).call(gateways.gateway_status, "default", name)
        assert (status.conditions[0].status if status else "") == accepted
        if accepted == "False":
            assert status is not None
            assert 'Gateway "default/a.b" is older' in status.conditions[0].message
            info = View(world).call(gateways.gateway, "default", name)
            assert info is not None
            assert not info.parts
    world.drop(Ref("Gateway", "default", "a.b"))
    assert View(world).call(gateways.running, "default", "a-b") is not None


def test_long_names_stay_different() -> None:
    assert gateway("a" * 200 + "b").generated_name != gateway("a" * 200 + "c").generated_name
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
