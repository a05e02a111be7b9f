"""What may stand in a message, and where: names and values of fields, paths, hosts, cookies.

Text that somebody wrote into an object is held against this twice: where the object is translated, so that its author is told,
and where it is made octets of a message, so that nothing else can become a second field or a second request. Each function
gives the octets, and raises ValueError for text that may not stand there, with words for whoever wrote it.
"""

from __future__ import annotations

import json
import re
from typing import Final

from gateway.http.http1 import is_host, parse_target

TOKEN: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")  # RFC 9110 §5.6.2
VALUE: Final = re.compile(r"[\t\x20-\x7e\x80-\ud7ff\ue000-\U0010ffff]*")  # RFC 9110 §5.5: octets from 0x80 are opaque
# RFC 3986 §3.3: what need not be percent-encoded, and what is.
PATH: Final = re.compile(r"(?:[A-Za-z0-9\-._~!$&'()*+,;=:@/]|%[0-9A-Fa-f]{2})*")
# RFC 6265 §4.1.1: a domain is a <subdomain> of RFC 1034 §3.5, as RFC 1123 §2.1 has it.
_LABEL: Final = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
COOKIE_DOMAIN: Final = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(?:\.{_LABEL})*")
COOKIE_PATH: Final = re.compile(r"/[\x20-\x3a\x3c-\x7e]*")  # RFC 6265 §4.1.1
SAME_SITE: Final = ("Strict", "Lax", "None")
MAX_SHOWN: Final = 60  # characters of what was found


def field_name(text: str) -> bytes:
    """A field's name."""
    return _token(text, "field")


def cookie_name(text: str) -> bytes:
    """A cookie's name."""
    return _token(text, "cookie")


def _token(text: str, of: str) -> bytes:
    if not TOKEN.fullmatch(text):
        raise ValueError(f"{shown(text)} is not the name of a {of}: letters, digits and !#$%&'*+-.^_`|~ may be in one")
    return text.encode()


def field_value(text: str) -> bytes:
    """A field's value, as UTF-8, without the blanks around it."""
    wrong = _first_wrong(VALUE, text)
    if wrong:
        raise ValueError(f"{shown(text)} holds {shown(wrong)}, which ends a field or may not be in one")
    return text.strip(" \t").encode()


def path(text: str) -> bytes:
    """A path, or a part of one, as it goes into a start line or a URL."""
    wrong = _first_wrong(PATH, text)
    if wrong:
        encoded = "".join(f"%{octet:02X}" for octet in wrong.encode("utf-8", "replace"))
        raise ValueError(f"{shown(text)} holds {shown(wrong)}, which a path may not; percent-encoded it is {encoded}")
    return text.encode()


def _first_wrong(pattern: re.Pattern[str], text: str) -> str:
    """The first character that does not fit a pattern which matches nothing as well; empty where all do."""
    match = pattern.match(text)
    assert match is not None
    return text[match.end() : match.end() + 1]


def target(text: str) -> bytes:
    """A path that begins at the root, with or without a query."""
    octets = text.encode("utf-8", "replace")
    if parse_target(octets) is None:
        raise ValueError(f'{shown(text)} is not a path with or without a query: "/", then letters, digits and marks of a URL')
    return octets


def host(text: str) -> bytes:
    """A host, with or without a port."""
    octets = text.encode("utf-8", "replace")
    if not text or not is_host(octets):
        raise ValueError(f"{shown(text)} is not a host")
    return octets


def cookie_path(text: str) -> bytes:
    """The path for which a cookie is."""
    if not COOKIE_PATH.fullmatch(text):
        raise ValueError(f'{shown(text)} is not a path that a cookie can have: it begins with "/" and holds no ";"')
    return text.encode()


def cookie_domain(text: str) -> bytes:
    """The domain for which a cookie is. A dot in front, which clients ignore (RFC 6265 §5.2.3), is none."""
    if text.startswith("."):
        raise ValueError(f"{shown(text)} begins with a dot, which means nothing: without it subdomains are meant as well")
    if not COOKIE_DOMAIN.fullmatch(text):
        raise ValueError(f'{shown(text)} is not a domain that a cookie can have: letters, digits, "-" and dots between them')
    return text.encode()


def same_site(text: str) -> bytes:
    """From which pages a cookie is sent (rfc6265bis §4.1.2.7)."""
    if text not in SAME_SITE:
        raise ValueError(f"{shown(text)} is none of {', '.join(SAME_SITE)}")
    return text.encode()


def shown(text: str) -> str:
    """Text as it can be shown to people, on one line and without anything that a terminal would act on."""
    return json.dumps(text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 1] + "…", ensure_ascii=not text.isprintable())
