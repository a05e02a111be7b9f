"""Names of what is made for a Gateway (GEP-1762: NAME-CLASS), or for an XBackend; pure."""

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
    return limited(_as_label(f"{gateway}-{class_name}", "gw-"))


def name_prefix(xbackend: str) -> str:
    """What the name of the Service made for an XBackend begins with (generateName): of a Service's 63 characters the API server
    wants five for itself."""
    return limited(_as_label(xbackend, "xb-"), 57) + "-"


def _as_label(text: str, beginning: str) -> str:
    """A DNS label, but for its length; it gets another beginning where it has no letter there."""
    name = re.sub(r"[^a-z0-9-]", "-", text)
    return name if name[0].isalpha() else f"{beginning}{name}"
