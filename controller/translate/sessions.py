"""Sessions: how clients come back to where they were (GEP-1619)."""

from __future__ import annotations

import hashlib

from controller.objects.routes import SessionPersistence
from gateway import snapshot
from gateway.base.durations import seconds


def persistence(asked: SessionPersistence, owner: str) -> snapshot.Persistence:
    """What is asked for. A cookie without a name gets one that nobody else has: by what it is asked for."""
    lasting = seconds(asked.absolute_timeout)
    if asked.type == "Header":
        return snapshot.Persistence(header=asked.header.name if asked.header else "X-Session", seconds=lasting)
    digest = hashlib.sha256(owner.encode()).hexdigest()[:8]
    cookie = asked.cookie
    name, path = cookie.name or f"fsm-session-{digest}", cookie.path or "/"
    return snapshot.Persistence("", name, path, lasting, cookie.lifetime_type == "Permanent" and lasting > 0)
