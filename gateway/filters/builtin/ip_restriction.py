"""IPRestriction: who may connect, or ask, by address. `forbidden` goes before `allowed`; with `allowed`, nobody else may.

On a listener the connection is closed; on a rule the request is answered with 403.
"""

from ipaddress import ip_address, ip_network

from gateway.filters.api import Connection, Request, Response, config

allowed = [ip_network(text, strict=False) for text in config.get("allowed", ())]
forbidden = [ip_network(text, strict=False) for text in config.get("forbidden", ())]
by_field = config.get("enableXFF", False)
answer = config.get("response", {})
status, body, headers = answer.get("status", 403), answer.get("body", ""), answer.get("headers", {})
known: dict[str, bool] = {}


def connect(connection: Connection) -> bool:
    """Whether a client may connect."""
    return may(connection.address)


def request(request: Request) -> Response | None:
    """Answer those who may not ask."""
    address = request.connection.address
    if by_field and "x-forwarded-for" in request.headers:
        address = request.headers["x-forwarded-for"].split(",")[-1].strip()  # by whom is in front of us
    return None if may(address) else Response(status, body, headers)


def may(address: str) -> bool:
    """Whether an address may; what is none may not."""
    verdict = known.get(address)
    if verdict is None:
        if len(known) > 10_000:
            known.clear()
        verdict = known[address] = judged(address)
    return verdict


def judged(address: str) -> bool:
    """The same, not from memory."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return False
    parsed = getattr(parsed, "ipv4_mapped", None) or parsed
    if any(parsed in network for network in forbidden):
        return False
    return not allowed or any(parsed in network for network in allowed)
