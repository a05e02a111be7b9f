"""Sessions: how clients come back to where they were (GEP-1619)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from controller.objects.policies.session_sticky import SessionStickyConfig
from controller.objects.routes import SessionPersistence
from controller.translate.shared.written_text import fault, name_faults
from gateway import snapshot
from gateway.base.durations import seconds
from gateway.http import grammar


def persistence(asked: SessionPersistence, owner: str) -> snapshot.Persistence:
    """What is asked for. A cookie without a name gets one that nobody else has: by what it is asked for."""
    lasting = seconds(asked.absolute_timeout)
    if asked.type == "Header":
        return snapshot.Persistence(header=asked.header.name if asked.header else "X-Session", seconds=lasting)
    digest = hashlib.sha256(owner.encode()).hexdigest()[:8]
    cookie = asked.cookie
    name, path = cookie.name or f"fsm-session-{digest}", cookie.path or "/"
    return snapshot.Persistence("", name, path, lasting, cookie.lifetime_type == "Permanent" and lasting > 0)


def sticky(asked: SessionStickyConfig) -> snapshot.Persistence:
    """What a SessionStickyPolicy asks for, whose cookie is for every path."""
    lasting = float(asked.expires)
    secure = True if asked.needs_secure else asked.secure
    return snapshot.Persistence(
        "", asked.cookie_name, "/", lasting, lasting > 0, asked.same_site or "", secure, asked.domain or ""
    )


def faults(asked: SessionPersistence) -> Iterator[str]:
    """What may not be written of what is asked for, in words that name the field."""
    translated = persistence(asked, "")
    if asked.type == "Header":
        yield from name_faults("sessionPersistence.header.name", translated.header)
        return
    yield from fault("sessionPersistence.cookie.name", grammar.cookie_name, translated.cookie)
    yield from fault("sessionPersistence.cookie.path", grammar.cookie_path, translated.path)
