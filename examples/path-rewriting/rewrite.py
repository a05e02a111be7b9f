"""Old paths to new ones, by expressions."""

import re

from gateway.filters.api import Request

RULES = [
    (re.compile(r"^/articles/(\d+)-[^/]*$"), r"/api/articles/\1"),
    (re.compile(r"^/~([a-z]+)/"), r"/users/\1/"),
]


def request(request: Request) -> None:
    for pattern, replacement in RULES:
        path, count = pattern.subn(replacement, request.path)
        if count:
            request.path = path
            return


def test_articles() -> None:
    asked = Request.of(target="/articles/12-on-gateways?page=2")
    request(asked)
    assert asked.target == "/api/articles/12?page=2"
