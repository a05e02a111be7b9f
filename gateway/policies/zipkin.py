"""Zipkin: requests carry B3 fields, so that those who answer them can say which trace they belong to.

A trace that began before is continued, by whatever its client decided; of others `samplePercentage` are sampled. See
B3 Propagation (openzipkin/b3-propagation).
"""

import random
import re

from gateway.filters.api import Request, config

share = config.get("samplePercentage", 10)
TRACE = re.compile(r"[0-9a-f]{16}(?:[0-9a-f]{16})?")
SPAN = re.compile(r"[0-9a-f]{16}")


def request(request: Request) -> None:
    """Say which trace, which span of it, and whose child."""
    headers = request.headers
    if "b3" in headers:  # the four in one field
        trace, span, sampled = [*headers["b3"].split("-")[:3], "", "", ""][:3]
        del headers["b3"]
    else:
        trace, span, sampled = (headers.get(f"x-b3-{word}", "") for word in ("traceid", "spanid", "sampled"))
    if TRACE.fullmatch(trace) and SPAN.fullmatch(span):
        headers["x-b3-parentspanid"] = span
    else:
        trace, sampled = f"{random.getrandbits(128):032x}", ""  # a name, not a secret
        headers.pop("x-b3-parentspanid", None)
    if sampled not in ("0", "1", "d"):
        sampled = "1" if random.random() * 100 < share else "0"  # noqa: S311
    headers["x-b3-traceid"] = trace
    headers["x-b3-spanid"] = f"{random.getrandbits(64):016x}"
    headers["x-b3-sampled"] = "1" if sampled == "d" else sampled
