"""What `fsm install` brings onto a cluster."""

from __future__ import annotations

import pytest
import yaml
from typer.testing import CliRunner

from controller.cli.app import app


def crds(*options: str) -> set[str]:
    """The names of the CRDs that it would bring."""
    done = CliRunner().invoke(app, ["install", "--dry-run", *options])
    assert done.exit_code == 0, done.output
    objects = [obj for obj in yaml.safe_load_all(done.stdout) if obj]
    assert {"Deployment", "GatewayClass", "Namespace"} <= {obj["kind"] for obj in objects}
    return {obj["metadata"]["name"] for obj in objects if obj["kind"] == "CustomResourceDefinition"}


@pytest.mark.parametrize("channel", ["standard", "experimental"])
def test_crds_that_somebody_else_manages_are_skipped_and_our_own_are_not(channel: str) -> None:
    every, own = crds("--channel", channel), crds("--channel", channel, "--skip-crds")
    assert own
    assert own == {name for name in every if name.endswith("gateway.flomesh.io")}
    assert {"gateways.gateway.networking.k8s.io", "httproutes.gateway.networking.k8s.io"} <= every
