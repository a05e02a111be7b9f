"""Every shortcut equals the full strict parse: the same bytes to the backend, the same answer, the same end.

Two proxies get the same bytes; one of them may not take shortcuts. Heads and responses are broken on purpose in
all the ways that matter to a parser: what the fast path accepts and the slow path reads differently is a slot that
somebody can smuggle a request through.
"""

from __future__ import annotations

import itertools
import random

import pytest
from support.rules import RULES, rule
from support.wire import Side, Wire

from gateway.downstream.http1 import DownstreamHttp1
from gateway.snapshot import (
    Limits,
    RequestHeaders,
)

PLAIN = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
FEWER = [
    RULES[0],
    rule("edited", "/edited", RequestHeaders(set=(("X-Other", "2"),))),
    RULES[-1],
    rule("rest", "/", host="headers.example"),
]
PATHS = [
    "/reading/{n}?a=b",
    "/reading/edited",
    "/changing",
    "/changing/{n}",
    "/several/{n}",
    "/several",
    "/p/{n}",
    "/edited/{n}",
    "/answered",
    "/moved/x?y={n}",
    "/mirrored",
    "/pages",
    "/pages/{n}",
    "/held",
    "/patient",
    "/m",
    "/q?v={n}",
    "/q?v=2",
    "/p//{n}",
    "/%7e",
    "/../x",
]
HOSTS = ["a.example", "A.example:80", "headers.example", "named.example", "other.example"]
METHODS = ["GET", "GET", "GET", "DELETE", "HEAD", "OPTIONS", "POST"]
REPLIES = [
    'HTTP/1.1 200 OK\r\nServer: nginx\r\nDate: {d}\r\nContent-Length: 5\r\nConnection: keep-alive\r\nETag: "{n}"\r\n\r\nhello',
    "HTTP/1.1 200 OK\r\nServer: nginx\r\nDate: {d}\r\nContent-Length: {l}\r\nSet-Cookie: s={n}\r\nX-Id: {n}\r\nConnection: {c}\r\n\r\n{b}",
    'HTTP/1.1 20{n} OK\r\nContent-Length: {l}\r\nETag: "{n}"\r\n\r\n{b}',
    "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: {l}\r\nX-Id: {n}\r\n\r\n{b}",
    "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-Id: {n}\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
]
FRAGMENTS = [
    b"\r\n", b"\n", b"\r", b"\0", b":", b" ", b"\t", b"\r\n ", b"Content-Length: 3\r\n", b"Transfer-Encoding: chunked\r\n",
    b"Host: x\r\n", b"\r\n\r\n", b"Connection: close\r\n", b"Connection: X-Id\r\n", b"\x7f", b"\x80", b"X-T: 1\r\n",
    b"X-Forwarded-For: 1.1.1.1\r\n", b"\r\nContent-Length: 3", b"C: d\r\n", b"Expect: 100-continue\r\n", b"Upgrade: x\r\n",
    b"X_Set: 1\r\n", b"X_Seen: 1\r\n", b"Content_Length: 3\r\n", b"\r\nX.Id: 1", b"_",
    b"\r\nHost: b", b"%", b"#", b"", b"x-canary: yes\r\n", b"9", b"HTTP/1.0",
]  # fmt: skip


VALUES = {
    "X-Id": ["{n}", "{r:x}"],
    "X_Id": ["{n}", "1"],
    "X_Set": ["{n}", "1"],
    "X-Seen_2": ["{n}"],
    "Content_Length": ["3", "{n}"],
    "X-T": ["a b; c=d", "é", " padded ", "{r}"],
    "Cookie": ["s={r:x}; theme=dark", "s={r:x}"],
    "Referer": ["https://a.example/{n}", ""],
    "X-Forwarded-For": ["10.0.0.{n}", "10.0.0.{n}, 10.0.0.1", "10.0.0.{n}", " 10.0.0.{n} "],
    "Origin": ["https://a.example", "https://a.example", "https://a.other", "https://{n}.example"],
    "x-canary": ["yes", "no", "Yes", "{n}"],
    "Authorization": ["Basic {r:x}"],
    "Proxy-Authorization": ["Basic {r:x}"],
    "Connection": ["keep-alive", "keep-alive", "Upgrade", "X-Id", "x-t, Cookie", "close"],
    "Content-Length": ["0", "3", "+3", "3x", "003"],
    "Expect": ["100-continue", "{n}"],
    "Upgrade": ["x", "x", "x/{n}"],
    "Transfer-Encoding": ["chunked", "gzip"],
}
SPECIAL = ["Connection", "Content-Length", "Expect", "Upgrade", "Transfer-Encoding"]  # a template must leave these alone
ODD_HOSTS = ["a b", "u@a.example", "a:99999", "a.example:x", "[::1]", "a,b", "%zz", "a..b", "<a>"]
ODD_LENGTHS = ["+5", "5x", "0x5", "05", "5 5", "1e1", "99999999999999999999", "-1", "5,5"]


class Dialogue:
    """The same requests and replies to both sides. One client's heads have the same fields, as they do in life."""

    def __init__(self, seed: int) -> None:
        self.random = r = random.Random(seed)
        self.short, self.full = Side(RULES), Side(RULES, shortcuts=False)
        self.taken = 0
        plain = [name for name in VALUES if name not in SPECIAL]
        special = r.choice([[], [], [], ["Connection", "Upgrade"], r.sample(SPECIAL, k=1), r.sample(SPECIAL, k=2)])
        self.names = r.sample(plain, k=r.randint(1, 5)) + special + ["X-Id"]
        r.shuffle(self.names)
        self.hosts = [r.choice(HOSTS)] if r.random() < 0.5 else HOSTS
        self.replies = r.sample(REPLIES, k=r.choice([1, 1, 2]))
        self.bare = r.random() < 0.1  # heads with hardly a field
        self.closes = r.random() < 0.2  # each is its connection's last
        self.leaves = r.choice([0, 0, 0.2, 1])  # how often a client makes a new connection all the same
        self.odd = r.choice([0, 0, 0.1])  # how often a value is one that must not be accepted

    def request(self) -> bytes:
        r = self.random
        n = r.randint(1, 9)
        host = r.choice(ODD_HOSTS if r.random() < self.odd else self.hosts)
        head = [f"{r.choice(METHODS)} {r.choice(PATHS).format(n=n)} HTTP/1.1", f"Host: {host}", "Accept: a/b", "DNT: 1"]
        head += [f"{name}: {r.choice(VALUES[name]).format(n=n, r=r.getrandbits(40))}" for name in self.names]
        last = ["Connection: close"] if self.closes else []
        return "\r\n".join([*head[: 2 if self.bare else None], "Keep-Alive: 5", *last, "", ""]).encode("latin-1")

    def reply(self) -> bytes:
        r = self.random
        body = "x" * r.choice([5, 5, 12, 0])
        length = r.choice(ODD_LENGTHS) if r.random() < self.odd else len(body)
        connection = r.choice(["keep-alive", "close", "X-Id", "ETag"]) if r.random() < self.odd else "keep-alive"
        text = r.choice(self.replies)
        return text.format(d=f"Mon, {r.randint(1, 3)}", n=r.randint(0, 5), l=length, b=body, c=connection).encode()

    def broken(self, data: bytes) -> bytes:
        r = self.random
        for _ in range(r.randint(1, 2)):
            at = r.choice(
                [
                    r.randrange(len(data)),
                    data.find(b"\r\n") + r.randint(0, 2),
                    data.find(b": ", 40) + r.randint(0, 9),
                    len(data) - 4,
                ]
            )
            at = max(at, 0)
            data = data[:at] + r.choice(FRAGMENTS) + data[at + r.choice([0, 0, 1, 2, 8]) :]
            if not data:
                return b"x"
        return data

    def run(self, count: int) -> None:
        r = self.random
        pair = self._connect()
        for _ in range(count):
            if self.random.random() < 0.02:  # the table is swapped while connections stand
                rules = self.random.choice([RULES, FEWER])
                self.short.route(rules)
                self.full.route(rules)
            request, reply = self.request(), self.reply()
            kind = self.random.random()
            if kind < 0.25:
                request = self.broken(request)
            elif kind < 0.4:
                reply = self.broken(reply)
            cuts = sorted(self.random.sample(range(len(reply)), k=min(self.random.choice([0, 0, 1, 2]), len(reply))))
            pieces = [reply[a:b] for a, b in itertools.pairwise([0, *cuts, len(reply)])]
            behind = self.random.choice([b"", b"", b"", b"GET /behind HTTP/1.1\r\nHost: a\r\n\r\n", b"x"])
            found = [side.ask(*one, request, pieces, behind) for side, one in zip((self.short, self.full), pair, strict=True)]
            self.taken += found[0][0]
            assert not found[1][0]
            assert found[0][1] == found[1][1], f"{request!r} answered with {reply!r}"
            settled = all(client._ready and not wire.closed for client, wire in pair)
            if not settled or r.random() < self.leaves:
                for _, wire in pair:
                    wire.close()
                pair = self._connect()

    def _connect(self) -> list[tuple[DownstreamHttp1, Wire]]:
        return [self.short.connect(), self.full.connect()]


def differential(seeds: range, each: int) -> int:
    """How many requests took the fast path, all of them equal to the slow path."""
    taken = 0
    for seed in seeds:
        dialogue = Dialogue(seed)
        dialogue.run(each)
        taken += dialogue.taken
    return taken


async def test_a_host_that_is_empty_is_no_host() -> None:
    """HTTP/1.0 may come without Host, and what is known of such requests must not help HTTP/1.1."""
    for side in (Side(RULES), Side(RULES, shortcuts=False)):
        assert not side.ask(*side.connect(), b"GET / HTTP/1.0\r\n\r\n", [PLAIN])[1][5]
        client, wire = side.connect()
        for host in (b"a.example", b"b.example", b"c.example"):
            side.ask(client, wire, b"GET / HTTP/1.1\r\nHost: %b\r\nX-Id: %b\r\n\r\n" % (host, host), [PLAIN])
        seen = side.ask(client, wire, b"GET / HTTP/1.1\r\nHost: \r\nX-Id: 1\r\n\r\n", [PLAIN])[1]
        assert seen[1].startswith(b"HTTP/1.1 400 ")


async def test_heads_with_more_fields_than_usual() -> None:
    side = Side(RULES)
    side.listener_port.limit(Limits(fields=1000))
    client, wire = side.connect()
    many = b"".join(b"X-%d: y\r\n" % n for n in range(500))
    for number in range(4):
        short, seen = side.ask(client, wire, b"GET / HTTP/1.1\r\nHost: a\r\nX-Id: %d\r\n%b\r\n" % (number, many), [PLAIN])
        assert seen[1] == PLAIN
    assert short


async def test_a_filter_that_adds_fields_takes_the_short_way() -> None:
    side = Side(RULES)
    client, wire = side.connect()
    for number in range(5):
        request = b"GET /reading/1?a=b HTTP/1.1\r\nHost: a\r\nX-Id: %d\r\nCookie: c\r\n\r\n" % number
        short, seen = side.ask(client, wire, request, [PLAIN])
    assert short
    sent = seen[0]["plain"] or seen[0]["other"]
    assert b"\r\nX-Seen: GET|/reading/1|a=b|/reading/1?a=b|a|reading|10.1.2.3|4|-|c|-|-|a|-|-|True|False\r\n" in sent
    assert b"\r\nx-seen-2: ab\r\nX-Forwarded-For: " in sent


async def test_shortcuts_equal_the_full_parse() -> None:
    taken = differential(range(48), 120)
    assert taken > 700, "a shortcut that is never taken proves nothing"


@pytest.mark.slow
async def test_shortcuts_equal_the_full_parse_at_length() -> None:
    assert differential(range(1000, 1600), 500) > 40_000
