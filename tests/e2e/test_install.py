"""`fsm install` and the Helm chart give the same objects; nothing is taken that was not made."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from clusters import fsm, get, image, kubectl

CHART = Path(__file__).parent.parent.parent / "charts" / "fsm"


def by_name(text: str) -> dict[tuple[str, str], dict]:
    return {(obj["kind"], obj["metadata"]["name"]): obj for obj in yaml.safe_load_all(text) if obj}


@pytest.mark.skipif(not shutil.which("helm"), reason="helm is not on the PATH (the test cluster builds one)")
@pytest.mark.parametrize(
    "settings",
    [
        (),
        ("fsm.fsmGateway.enabled=false",),
        ("fsm.image=registry.example/fsm:1", "fsm.replicas=3"),
        ("fsm.secretNamespaces={a}",),
    ],
)
def test_the_chart_and_the_command_give_the_same_objects(settings: tuple[str, ...]) -> None:
    sets = [word for setting in settings for word in ("--set", setting)]
    command = ["helm", "template", "fsm", str(CHART), "--namespace", "fsm-system", "--include-crds", *sets]
    chart = by_name(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    done = fsm("install", "--dry-run", *sets)
    assert done.returncode == 0, done.stderr
    ours = by_name(done.stdout)
    ours.pop(("Namespace", "fsm-system"))  # helm makes it by --create-namespace
    assert ours == chart


def test_installing_again_leaves_newer_crds_alone(installed: None) -> None:
    name = "gateways.gateway.networking.k8s.io"
    before = get("crd", name)["metadata"]["resourceVersion"]
    done = fsm("install", "--set", f"fsm.image={image()}", "--timeout", "2m")
    assert done.returncode == 0, done.stderr
    assert f"{name} … left alone (v1.7.0 standard stands)" in done.stderr
    assert get("crd", name)["metadata"]["resourceVersion"] == before


def test_what_the_article_wrote(installed: None, tmp_path: Path) -> None:
    """`port: 0` is refused by the API server; `port: 100` is answered with words that say what was meant."""
    manifest = yaml.safe_load((Path(__file__).parent / "manifests" / "httproute.yaml").read_text())
    stable, canary = manifest["spec"]["rules"][0]["backendRefs"]
    stable["port"], canary["port"] = 100, 0
    refused = subprocess.run(["kubectl", "apply", "-f", "-"], input=yaml.safe_dump(manifest), capture_output=True, text=True)
    assert "spec.rules[0].backendRefs[1].port" in refused.stderr
    assert "greater than or equal to 1" in refused.stderr
    file = tmp_path / "route.yaml"
    file.write_text(yaml.safe_dump(manifest))
    validated = fsm("validate", str(file))
    assert validated.returncode == 1
    assert "0 is less than the minimum of 1" in validated.stdout
    assert 'write "weight: 0"' in validated.stdout


def test_disabling_deletes_nothing(installed: None) -> None:
    kubectl(
        "apply",
        "-f",
        "-",
        text="apiVersion: gateway.networking.k8s.io/v1\nkind: GatewayClass\nmetadata: {name: theirs}\nspec: {controllerName: example.com/other}\n",
    )
    done = fsm("gateway", "disable")
    assert "Gateway is disabled successfully" in done.stdout, done.stderr
    assert "already" in fsm("gateway", "disable").stdout
    assert {c["metadata"]["name"] for c in get("gatewayclass")["items"]} >= {"theirs", "fsm-gateway-cls"}
    assert "Gateway is enabled successfully" in fsm("gateway", "enable").stdout
    kubectl("delete", "gatewayclass", "theirs")


def test_version(installed: None) -> None:
    done = fsm("version")
    assert "CLI Version: " in done.stdout
    assert "fsm-system" in done.stdout
