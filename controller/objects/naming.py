"""Names as Kubernetes has them: what may be one, and those of what is made for a Gateway (GEP-1762: NAME-CLASS), or for an
XBackend; pure."""

from __future__ import annotations

import hashlib
import re
from typing import Final

_LABEL: Final = "[a-z0-9](?:[-a-z0-9]*[a-z0-9])?"
_NAMED: Final = r"[A-Za-z0-9](?:[-A-Za-z0-9_.]*[A-Za-z0-9])?"
_PATTERNS: Final = {
    # By name: what it is, and at most how long.
    "dns1123Label": (_LABEL, 63),
    "dns1123Subdomain": (rf"{_LABEL}(?:\.{_LABEL})*", 253),
    "dns1035Label": ("[a-z](?:[-a-z0-9]*[a-z0-9])?", 63),
    "dns1123LabelPrefix": (rf"{_LABEL}-?", 63),
    "dns1123SubdomainPrefix": (rf"{_LABEL}(?:\.{_LABEL})*-?", 253),
    "dns1035LabelPrefix": ("[a-z](?:[-a-z0-9]*[a-z0-9])?-?", 63),
    "labelValue": (f"(?:{_NAMED})?", 63),
    "uuid": ("[0-9a-fA-F]{8}-?(?:[0-9a-fA-F]{4}-?){3}[0-9a-fA-F]{12}", 36),
    "byte": ("(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?", 1 << 20),
    "date": ("[0-9]{4}-[0-9]{2}-[0-9]{2}", 10),
    "datetime": (r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9:]{8}(?:\.[0-9]+)?(?:[Zz]|[+-][0-9]{2}:[0-9]{2})", 64),
}
FORMATS: Final = (*_PATTERNS, "qualifiedName")
# In words: a dns1123Label, a labelValue, a dns1123Subdomain.
LABEL_RULE: Final = 'lower-case letters, digits and "-", at most 63, are needed, with a letter or digit at both ends'
LABEL_VALUE_RULE: Final = 'letters, digits, "-", "_" and ".", at most 63, are needed, with a letter or digit at both ends'
NAME_RULE: Final = 'lower-case letters, digits, "-" and ".", at most 253, are needed, with a letter or digit at both ends'


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


def fits(name: str, text: str) -> bool:
    """Whether a text has one of Kubernetes' formats, such as dns1123Subdomain."""
    if name == "qualifiedName":  # a name, behind a prefix where it has one
        prefix, slash, last = text.rpartition("/")
        named = re.fullmatch(_NAMED, last) is not None and len(last) <= 63
        return named and (not slash or fits("dns1123Subdomain", prefix))
    pattern, most = _PATTERNS[name]
    return len(text) <= most and re.fullmatch(pattern, text) is not None
