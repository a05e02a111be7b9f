"""SessionStickyPolicy: a cookie that keeps a client's requests at one endpoint of a Service."""

from __future__ import annotations

from typing import Annotated, Final

from msgspec import Meta

from controller.objects.base import Struct
from controller.objects.policies.base import Policy, PolicyKind


class SessionStickyPolicy(Policy, frozen=True):
    """gateway.flomesh.io SessionStickyPolicy."""


class SessionStickyConfig(Struct, frozen=True):
    """What it says."""

    cookie_name: Annotated[str, Meta(pattern=r"^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,256}\Z")] = "_srv_id"
    expires: Annotated[int, Meta(ge=0, le=31_536_000)] = 3600


KIND: Final = PolicyKind(SessionStickyPolicy, "sessionstickypolicies", ("Service",), SessionStickyConfig)
