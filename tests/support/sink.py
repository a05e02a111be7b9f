"""A reconciler's sink that remembers."""

from __future__ import annotations

import msgspec

from controller.objects.base import Ref
from controller.translate import GatewayName
from controller.translate.gateways.gateways import Running
from controller.translate.shared.status import Status
from controller.translate.xbackends import Pods
from gateway.snapshot import Change, Parts, apply


class Sink:
    """Takes what a data plane would, as it would: encoded, and decoded strictly."""

    def __init__(self) -> None:
        self.parts: dict[GatewayName, Parts] = {}

    async def publish(self, gateway: GatewayName, change: Change) -> None:
        apply(self.parts.setdefault(gateway, {}), msgspec.msgpack.decode(msgspec.msgpack.encode(change), type=Change))

    async def write(self, statuses: dict[Ref, Status | None]) -> None:
        """Statuses are looked at where they are kept."""

    async def follow(self, gateways: dict[GatewayName, Running | None]) -> None:
        """Nothing runs."""

    async def look_for(self, pods: dict[Ref, Pods | None]) -> None:
        """Here are no pods."""
