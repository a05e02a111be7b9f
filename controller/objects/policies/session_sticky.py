"""SessionStickyPolicy: a cookie that keeps a client's requests at one endpoint of a Service."""

from __future__ import annotations

from typing import Annotated, Final

from msgspec import Meta

from controller.objects.base import Struct
from controller.objects.policies.base import Policy, PolicyKind, one_of
from gateway.http import grammar

HOST_PREFIX: Final = "__Host-"


class SessionStickyPolicy(Policy, frozen=True):
    """gateway.flomesh.io SessionStickyPolicy."""


class SessionStickyConfig(Struct, frozen=True):
    """What it says."""

    cookie_name: Annotated[str, Meta(pattern=r"^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,256}\Z")] = "_srv_id"
    expires: Annotated[int, Meta(ge=0, le=31_536_000)] = 3600
    same_site: Annotated[str, one_of(*grammar.SAME_SITE)] | None = None
    secure: bool | None = None  # None: where the listener is one of TLS
    domain: str | None = None  # None: for the host that sets it

    def __post_init__(self) -> None:
        if self.domain is not None:
            try:
                grammar.cookie_domain(self.domain)
            except ValueError as error:
                raise ValueError(f"domain: {error}") from None
            if self._prefix == HOST_PREFIX:
                raise ValueError(f'domain: a cookie whose name begins with "{HOST_PREFIX}" has none; leave it out')
        if self.secure is False and self.needs_secure:
            what = "sameSite: None" if self.same_site == "None" else f'a cookieName that begins with "{self._prefix}"'
            raise ValueError(f"secure: found false; clients take no cookie with {what} that is not secure")

    @property
    def _prefix(self) -> str:
        """What its name promises (rfc6265bis §4.1.3), as clients look at it."""
        return next((one for one in (HOST_PREFIX, "__Secure-") if self.cookie_name.lower().startswith(one.lower())), "")

    @property
    def needs_secure(self) -> bool:
        """Whether clients drop it otherwise: for other sites' pages (rfc6265bis §5.7), or by its name."""
        return self.same_site == "None" or bool(self._prefix)


KIND: Final = PolicyKind(SessionStickyPolicy, "sessionstickypolicies", ("Service",), SessionStickyConfig)
