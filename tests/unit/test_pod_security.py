"""What we run meets the Pod Security Standards at level "restricted", whatever is chosen; and the image asks for no more.

https://kubernetes.io/docs/concepts/security/pod-security-standards/
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.manifests import made
from support.objects import gateway

from controller.deploy import install
from controller.deploy.manifests import ADMIN_PORT, FEED_PORT
from controller.objects.base import Meta
from controller.objects.core import ConfigMap
from tools import chart

ROOT = Path(__file__).parent.parent.parent
VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}
SAFE_SYSCTLS = {"net.ipv4.ip_unprivileged_port_start"}  # of those that are allowed, the ones that we use
PARAMETERS = {
    "workers": "4", "serviceType": "NodePort", "resources": "limits: {cpu: 500m}", "autoscaling": "{maxReplicas: 5}",
    "podDisruptionBudget": "{maxUnavailable: 1}", "nodeSelector": "a: b", "tolerations": "[{operator: Exists}]",
    "serviceAnnotations": "x: y",
}  # fmt: skip


def violations(pod: dict[str, Any]) -> Iterator[str]:
    """What of a PodSpec the restricted level refuses."""
    for field in ("hostNetwork", "hostPID", "hostIPC"):
        if pod.get(field):
            yield field
    whole = pod.get("securityContext", {})
    for sysctl in whole.get("sysctls", []):
        if sysctl["name"] not in SAFE_SYSCTLS:
            yield f"sysctl {sysctl['name']}"
    for volume in pod.get("volumes", []):
        if not (volume.keys() - {"name"}) <= VOLUMES:
            yield f"volume {volume['name']}"
    for container in [*pod.get("initContainers", []), *pod["containers"], *pod.get("ephemeralContainers", [])]:
        own, name = container.get("securityContext", {}), container["name"]
        both = {**whole, **own}
        if own.get("privileged"):
            yield f"{name}: privileged"
        if own.get("allowPrivilegeEscalation") is not False:
            yield f"{name}: allowPrivilegeEscalation"
        if "ALL" not in own.get("capabilities", {}).get("drop", []):
            yield f"{name}: capabilities are not dropped"
        if set(own.get("capabilities", {}).get("add", [])) - {"NET_BIND_SERVICE"}:
            yield f"{name}: capabilities are added"
        if both.get("runAsNonRoot") is not True or both.get("runAsUser") == 0:
            yield f"{name}: runs as root"
        if both.get("seccompProfile", {}).get("type") not in ("RuntimeDefault", "Localhost"):
            yield f"{name}: no seccomp profile"
        if both.get("procMount", "Default") != "Default":
            yield f"{name}: procMount"
        if any(port.get("hostPort") for port in container.get("ports", [])):
            yield f"{name}: hostPort"


def beyond(pod: dict[str, Any]) -> Iterator[str]:
    """What we ask of our own pods besides."""
    if not isinstance(pod.get("automountServiceAccountToken"), bool):
        yield "whether a token is mounted is left open"
    if pod.get("enableServiceLinks") is not False:
        yield "environment variables for every Service"
    if not pod["securityContext"].get("runAsUser", 0) > 10_000:
        yield "a user that may be one of the node's"
    for container in pod["containers"]:
        if container.get("securityContext", {}).get("readOnlyRootFilesystem") is not True:
            yield "a root file system that can be written"
    for volume in pod.get("volumes", []):
        if "emptyDir" in volume and (volume["emptyDir"].get("medium") != "Memory" or "sizeLimit" not in volume["emptyDir"]):
            yield f"volume {volume['name']}: what is written stays on a disk, or has no limit"
        for source in volume.get("projected", {}).get("sources", []):
            token = source.get("serviceAccountToken")
            if token is not None and (not token.get("audience") or token.get("expirationSeconds", 10**6) > 3600):
                yield f"volume {volume['name']}: a token for everybody, or for long"


def pods() -> Iterator[tuple[str, dict[str, Any]]]:
    for values in (install.Values(), install.Values(replicas=3, inline_filters="true"), chart.PLACEHOLDERS):
        for obj in install.objects(values):
            if "template" in obj.get("spec", {}):
                yield "controller", obj["spec"]["template"]["spec"]
    for spec in ({}, {"infrastructure": {"labels": {"a": "b"}, "annotations": {"c": "d"}}}):
        yield "data plane", made(gateway("gw", **spec))["Deployment"]["spec"]["template"]["spec"]
    how = {"infrastructure": {"parametersRef": {"group": "", "kind": "ConfigMap", "name": "how"}}}
    found = made(gateway("gw", **how), ConfigMap(Meta("how", "default"), PARAMETERS))
    assert found["HorizontalPodAutoscaler"]
    yield "data plane", found["Deployment"]["spec"]["template"]["spec"]


@pytest.mark.parametrize(("name", "pod"), list(pods()))
def test_pods_are_restricted(name: str, pod: dict[str, Any]) -> None:
    assert not list(violations(pod))
    assert not list(beyond(pod))


def test_a_data_plane_has_a_token_for_the_feed_and_none_for_the_api_server() -> None:
    objects = made(gateway("gw"))
    pod = objects["Deployment"]["spec"]["template"]["spec"]
    assert pod["automountServiceAccountToken"] is False
    assert objects["ServiceAccount"]["automountServiceAccountToken"] is False
    (token,) = [s["serviceAccountToken"] for v in pod["volumes"] for s in v.get("projected", {}).get("sources", [])]
    assert token == {"path": "token", "audience": "fsm-feed", "expirationSeconds": 3600}


def test_only_the_controllers_own_pods_get_its_token() -> None:
    objects = {obj["kind"]: obj for obj in install.objects(install.Values())}
    assert objects["ServiceAccount"]["automountServiceAccountToken"] is False
    assert objects["Deployment"]["spec"]["template"]["spec"]["automountServiceAccountToken"] is True


def test_the_namespace_takes_no_other_pods() -> None:
    labels = install.namespace(install.Values())["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"


GOOD = {
    "automountServiceAccountToken": False,
    "enableServiceLinks": False,
    "securityContext": {"runAsNonRoot": True, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}},
    "containers": [{"name": "c", "securityContext": {
        "allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}, "readOnlyRootFilesystem": True,
    }}],
}  # fmt: skip


@pytest.mark.parametrize(
    "worse",
    [
        {"hostNetwork": True},
        {"hostPID": True},
        {"securityContext": {**GOOD["securityContext"], "runAsNonRoot": False}},
        {"securityContext": {**GOOD["securityContext"], "runAsUser": 0}},
        {"securityContext": {**GOOD["securityContext"], "seccompProfile": {"type": "Unconfined"}}},
        {"securityContext": {**GOOD["securityContext"], "sysctls": [{"name": "kernel.msgmax", "value": "1"}]}},
        {"volumes": [{"name": "v", "hostPath": {"path": "/"}}]},
        {"volumes": [{"name": "v", "emptyDir": {}}]},
        {"volumes": [{"name": "v", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}}]},
        {"containers": [{"name": "c"}]},
        {"containers": [{"name": "c", "securityContext": {**GOOD["containers"][0]["securityContext"], "privileged": True}}]},
        {"containers": [{**GOOD["containers"][0], "ports": [{"hostPort": 80}]}]},
        {"initContainers": [{"name": "i"}]},
        {"automountServiceAccountToken": None},
        {"enableServiceLinks": True},
    ],
)
def test_what_is_looked_at(worse: dict[str, Any]) -> None:
    assert not [*violations(GOOD), *beyond(GOOD)]
    assert [*violations({**GOOD, **worse}), *beyond({**GOOD, **worse})]


# --- the image ---


def stages() -> list[str]:
    text = re.sub(r"\\\n", " ", (ROOT / "Dockerfile").read_text())
    return re.split(r"(?m)^FROM ", text)[1:]


def test_the_image_runs_as_nobody_and_holds_no_tools() -> None:
    first, last = stages()
    assert re.search(r"(?m)^USER (\d+):(\d+)$", last).groups() == ("65532", "65532")
    assert last.index("USER") > last.rindex("RUN"), "nothing of the image belongs to who runs it"
    assert "--chown" not in last
    assert re.search(r"pip uninstall -y [^&\n]*\bpip\b", last), "whoever gets in finds no installer"
    assert "chmod a-s" in last, "nor programs that run as root"
    assert not re.search(r"(?m)^(ADD|VOLUME)\b", first + last)
    assert not re.search(r"apt|curl|wget|--build", last)
    assert "--no-cache-dir" in first
    for text in (first, last):
        assert text.startswith("${BASE}"), "what it is built on can be pinned by digest"


def test_nothing_secret_gets_into_the_image() -> None:
    copied = re.findall(r"(?m)^COPY (?!--from)(.*)$", "".join(stages()))
    assert {name for line in copied for name in line.split()[:-1]} == {
        "constraints.txt", "pyproject.toml", "README.md", "LICENSE", "gateway", "controller",
    }  # fmt: skip


# --- network policies that docs/install.md suggests ---


def suggested() -> list[dict[str, Any]]:
    text = (ROOT / "docs" / "install.md").read_text()
    blocks = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    return [one for block in blocks for one in yaml.safe_load_all(block) if one and one.get("kind") == "NetworkPolicy"]


def test_the_suggested_network_policies_meet_what_we_run() -> None:
    control, planes = suggested()
    (deployment,) = [obj for obj in install.objects(install.Values()) if obj["kind"] == "Deployment"]
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert control["spec"]["podSelector"]["matchLabels"].items() <= labels.items()
    assert control["metadata"]["namespace"] == deployment["metadata"]["namespace"]
    template = made(gateway("gw"))["Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert planes["spec"]["podSelector"]["matchLabels"].items() <= template.items()
    feed, health = control["spec"]["ingress"]
    assert feed["from"][0]["podSelector"]["matchLabels"].items() <= template.items()
    assert "namespaceSelector" in feed["from"][0]
    assert (feed["ports"][0]["port"], health["ports"][0]["port"]) == (FEED_PORT, install.HEALTH_PORT)
    admin = [port["port"] for rule in planes["spec"]["ingress"] for port in rule.get("ports", ())]
    assert ADMIN_PORT in admin
