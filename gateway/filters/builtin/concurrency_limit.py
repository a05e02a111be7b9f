"""ConcurrencyLimit: so many connections at a time, over all workers. One too many is closed; on a rule, a request is
answered with 503."""

from gateway.filters.api import Connection, Exchange, Request, Response, config, shared

most = config.get("maxConnections", 100)


async def connect(connection: Connection) -> bool:
    """Whether there is room."""
    if not await shared.hold(most=most):
        return False
    connection.on_close(shared.release)
    return True


def request(request: Request) -> Response | None:
    """The same, of requests. What is held is this data plane's own, so the answer is there at once."""
    if not shared.hold("requests", most=most).result():
        return Response(503, "too many requests at a time")
    request.state["holds"] = True
    return None


def log(exchange: Exchange) -> None:
    """A request is over."""
    if exchange.request.state.pop("holds", False):
        shared.release("requests")
