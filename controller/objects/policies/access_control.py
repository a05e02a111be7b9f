"""AccessControlPolicy: which addresses may ask."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Final

import msgspec

from controller.objects.base import Struct
from controller.objects.policies.base import ON_ROUTES, BuiltInConfig, Message, Policy, PolicyKind, StatusCode


class AccessControlPolicy(Policy, frozen=True):
    """gateway.flomesh.io AccessControlPolicy."""


class AccessControlConfig(Struct, frozen=True):
    """What it says."""

    blacklist: tuple[str, ...] | None = None
    whitelist: tuple[str, ...] | None = None
    enable_xff: bool = msgspec.field(default=False, name="enableXFF")
    status_code: StatusCode = 403
    message: Message = ""

    def __post_init__(self) -> None:
        if self.blacklist is None and self.whitelist is None:
            raise ValueError("blacklist or whitelist is needed")
        if self.whitelist == ():
            raise ValueError("whitelist is empty, so that nobody might pass; name who may")
        for field, given in (("blacklist", self.blacklist), ("whitelist", self.whitelist)):
            for index, entry in enumerate(given or ()):
                try:
                    ip_network(entry, strict=False)
                except ValueError:
                    raise ValueError(f'{field}[{index}]: "{entry[:60]}" is neither an address nor a network') from None


def _access_control(config: AccessControlConfig) -> BuiltInConfig:
    # Where both are given, both hold: who is on the blacklist may not, whatever the whitelist says.
    lists = {name: given for name, given in (("allowed", config.whitelist), ("forbidden", config.blacklist)) if given}
    return {
        **(lists or {"forbidden": ()}),
        "enableXFF": config.enable_xff,
        "response": {"status": config.status_code, "body": config.message},
    }


KIND: Final = PolicyKind(
    AccessControlPolicy, "accesscontrolpolicies", ON_ROUTES, AccessControlConfig,
    built_in="IPRestriction", built_in_config=_access_control, guards_connections=True,
    when_shut="requests are answered with 500, and connections closed, at",
)  # fmt: skip
