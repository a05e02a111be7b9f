"""Answers with what it was sent."""

from gateway.filters.api import Request, Response


async def request(request: Request) -> Response:
    body = await request.body(limit=1 << 16)
    return Response(200, body, content_type=request.headers.get("content-type", "application/octet-stream"))


async def test_it_answers_with_the_body() -> None:
    asked = Request.of("POST", body=b"ping", headers={"Content-Type": "text/plain"})
    assert (await request(asked)).content == b"ping"
