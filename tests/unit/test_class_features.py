"""The features that a GatewayClass claims: none whose fields the CRDs in the cluster do not have."""

from __future__ import annotations

import pytest

from controller.objects.base import CONTROLLER, Meta
from controller.objects.gateways import GatewayClass, GatewayClassSpec
from controller.state.world import World
from controller.translate import translate
from controller.translate.shared.status import ClassStatus


@pytest.mark.parametrize(
    ("installed", "channel", "has_retry"),
    [
        ("", "", True),  # files: no CRDs
        ("v1.7.0", "standard", True), ("v1.7.0", "experimental", True), ("v1.10.0", "standard", True), ("v2.0.0", "standard", True),
        ("v1.6.3", "experimental", True), ("v1.6.3", "standard", False), ("v1.5.0-rc.1", "standard", False),
    ],
)  # fmt: skip
def test_retries_are_claimed_where_the_crds_have_them(installed: str, channel: str, has_retry: bool) -> None:
    world = World()
    world.note(("setting", "bundle version"), installed)
    world.note(("setting", "channel"), channel)
    gateway_class = GatewayClass(Meta(name="ours"), GatewayClassSpec(controller_name=CONTROLLER))
    world.put(gateway_class)
    status = translate(world).statuses[gateway_class.ref]
    assert isinstance(status, ClassStatus)
    claimed = {name for name in status.features if name.startswith("HTTPRouteRetry")}
    assert bool(claimed) == has_retry
    assert "HTTPRoute" in status.features
