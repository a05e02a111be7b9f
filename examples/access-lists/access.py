"""Who may come in, by address: a list of those who may, or else of those who may not."""

from ipaddress import ip_address, ip_network

from gateway.filters.api import Request, Response

WHITE = {"internal.example.com": ["127.0.0.0/8", "10.0.0.0/8"]}
BLACK = {"www.example.com": ["127.0.0.1/32"]}
white = {host: [ip_network(net) for net in nets] for host, nets in WHITE.items()}
black = {host: [ip_network(net) for net in nets] for host, nets in BLACK.items()}


def request(request: Request) -> Response | None:
    host = request.host.partition(":")[0]
    client = ip_address(request.connection.address)
    if host in white:
        denied = not any(client in net for net in white[host])
    else:
        denied = any(client in net for net in black.get(host, ()))
    return Response(403, "Access denied\n") if denied else None
