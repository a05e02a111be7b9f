"""The smallest filter: it answers by itself."""

from gateway.filters.api import Request, Response


def request(request: Request) -> Response:
    return Response(200, f"Hello, {request.query.get('name', 'world')}!\n")


def test_it_greets() -> None:
    assert request(Request.of(target="/?name=Ada")).content == b"Hello, Ada!\n"
