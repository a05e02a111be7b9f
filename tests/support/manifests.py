"""What is made for a Gateway, by kind."""

from __future__ import annotations

from controller.deploy.manifests import DeploymentSettings, for_gateway
from controller.objects.base import CONTROLLER, Meta
from controller.objects.gateways import (
    Gateway,
    GatewayClass,
    GatewayClassSpec,
)
from controller.objects.kinds import AnyObject
from controller.state.view import View
from controller.state.world import World
from controller.translate.gateways import gateways

SETTINGS = DeploymentSettings("image:1", "https://fsm-controller.fsm-system.svc:9443", "PEM")


def made(found: Gateway, *more: AnyObject) -> dict[str, dict]:
    world = World()
    for obj in (GatewayClass(Meta("fsm-gateway-cls"), GatewayClassSpec(CONTROLLER)), found, *more):
        world.put(obj)
    running = View(world).call(gateways.running, found.metadata.namespace, found.metadata.name)
    assert running is not None
    return {obj["kind"]: obj for obj in for_gateway(running, SETTINGS)}
