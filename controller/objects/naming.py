"""Names of what is made for a Gateway (GEP-1762: NAME-CLASS); pure."""

from __future__ import annotations

import hashlib
import re


def limited(text: str, most: int = 63) -> str:
    """A name or label value that is not too long; what is cut off is told apart by a hash."""
    if len(text) <= most:
        return text
    return f"{text[: most - 9].rstrip('-.')}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def generated_name(gateway: str, class_name: str) -> str:
    """The name of everything made for a Gateway: a DNS label, as a Service needs."""
    name = re.sub(r"[^a-z0-9-]", "-", f"{gateway}-{class_name}")
    if not name[0].isalpha():
        name = f"gw-{name}"
    return limited(name)
