"""Raw requests, and what becomes of each: hundreds of rows. Refused means refused: one line that says why, the
connection closed, and not a byte of it seen by the backend.

By RFC 9110 and RFC 9112 in their strictest reading; sections stand beside the rows.
"""

from __future__ import annotations

import re

import pytest
from support.proxy import OK, Proxy, Server, parsed

from gateway.snapshot import Limits, Listener

H = b"Host: a\r\n"
TOKEN = b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
PATH = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~!$&'()*+,;=:@/"


def get(*fields: bytes, line: bytes = b"GET / HTTP/1.1", host: bytes = H) -> bytes:
    return line + b"\r\n" + host + b"".join(field + b"\r\n" for field in fields) + b"\r\n"


def post(*fields: bytes, body: bytes = b"", line: bytes = b"POST / HTTP/1.1") -> bytes:
    return get(*fields, line=line) + body


def chunked(body: bytes) -> bytes:
    return post(b"Transfer-Encoding: chunked", body=body)


def rows(status: int, words: str, *requests: bytes) -> list[tuple[int, str, bytes]]:
    return [(status, words, request) for request in requests]


def every(status: int, words: str, template: bytes, octets: bytes) -> list[tuple[int, str, bytes]]:
    """The template with each of these octets in place of `?`."""
    return [(status, words, template.replace(b"?", bytes((octet,)))) for octet in octets]


ALL = bytes(range(256))
REFUSED = [
    # --- Request line (RFC 9112 §3) ---
    *rows(
        400, "malformed request line",
        get(line=b"GET  / HTTP/1.1"), get(line=b"GET /  HTTP/1.1"), get(line=b" GET / HTTP/1.1"), get(line=b"GET / HTTP/1.1 "),
        get(line=b"GET\t/ HTTP/1.1"), get(line=b"GET /\tHTTP/1.1"), get(line=b"GET / HTTP/1.1\t"), get(line=b"GET /a b HTTP/1.1"),
        get(line=b"GET / http/1.1"), get(line=b"GET / HTTP/1"), get(line=b"GET / HTTP/1."), get(line=b"GET / HTTP/.1"),
        get(line=b"GET / HTTP/11"), get(line=b"GET / HTTP/1.1.1"), get(line=b"GET / HTTP/01.1"), get(line=b"GET / HTTP/1.01"),
        get(line=b"GET / HTTP /1.1"), get(line=b"GET / HTTPS/1.1"), get(line=b"GET / ICY/1.0"), get(line=b"GET / HTTP/a.b"),
        get(line=b"GET"), get(line=b"/ HTTP/1.1"), get(line=b"HTTP/1.1 200 OK"), get(line=b"\tGET / HTTP/1.1"),
        # HTTP/0.9: no version at all.
        get(line=b"GET /"), b"GET /\r\n\r\n", b"GET / \r\n\r\n",
        # More than the one empty line that may be forgiven (§2.2).
        b"\r\n\r\n" + get(), b"\r\n\r\n\r\n", b"\n" + get(), b"\r" + get(),
        # TLS on a plain port, and other guests.
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", b"SSH-2.0-OpenSSH_9.2\r\n\r\n", b"EHLO example.com\r\n\r\n",
    ),
    *rows(400, "bare CR or LF", b"GET / HTTP/1.1\n" + H + b"\r\n", b"GET / HTTP/1.1\nHost: a\n\n\r\n\r\n", b"GET / HTTP/1.1\r" + H + b"\r\n"),
    # Methods are tokens (RFC 9110 §9.1), of any name.
    *every(400, "malformed request line", get(line=b"G?T / HTTP/1.1"), bytes(o for o in ALL if o not in TOKEN + b" \r\n")),
    # Versions (RFC 9110 §2.5).
    *rows(
        505, "only HTTP/1.0 and HTTP/1.1",
        get(line=b"GET / HTTP/0.9"), get(line=b"GET / HTTP/1.2"), get(line=b"GET / HTTP/1.9"), get(line=b"GET / HTTP/2.0"),
    ),
    # --- Targets (RFC 9112 §3.2, RFC 3986) ---
    *every(400, "target", get(line=b"GET /x?x HTTP/1.1").replace(b"/x?x", b"/?x"),
           bytes(o for o in range(33, 256) if o not in PATH + b"?%[]|^{}")),
    *every(400, "malformed request line", get(line=b"GET /? HTTP/1.1"), bytes([*range(10), *range(11, 13), *range(14, 32), 127])),
    *every(400, "malformed request line", b"GET /q\x3f? HTTP/1.1\r\nHost: a\r\n\r\n".replace(b"\x3f?", b"=?"), b"\x00\x01\x1f\x7f\x80\xff"),
    *rows(400, "target", get(line=b"GET /q?a#b HTTP/1.1"), get(line=b"GET x HTTP/1.1"), get(line=b"GET x/y HTTP/1.1"),
          get(line=b"GET ? HTTP/1.1"), get(line=b"GET ?a=b HTTP/1.1"), get(line=b"GET # HTTP/1.1"), get(line=b"GET * HTTP/1.1"),
          get(line=b"POST * HTTP/1.1"), get(line=b"OPTIONS ** HTTP/1.1"), get(line=b"OPTIONS *?a HTTP/1.1"),
          get(line=b"GET ftp://a/ HTTP/1.1"), get(line=b"GET http:/a/ HTTP/1.1"), get(line=b"GET http:a HTTP/1.1"),
          get(line=b"GET file:///etc/passwd HTTP/1.1"), get(line=b"GET a:80 HTTP/1.1"),
          get(line=b"GET http://a/#x HTTP/1.1")),
    *rows(400, "not followed by two hexadecimal digits", get(line=b"GET /% HTTP/1.1"), get(line=b"GET /%2 HTTP/1.1"),
          get(line=b"GET /%zz HTTP/1.1"), get(line=b"GET /%2g/x HTTP/1.1"), get(line=b"GET /%%41 HTTP/1.1"),
          get(line=b"GET http://a/%q HTTP/1.1")),
    *rows(400, "encoded NUL", get(line=b"GET /%00 HTTP/1.1"), get(line=b"GET /a%00.txt HTTP/1.1")),
    *rows(400, "climbs above its root", get(line=b"GET /.. HTTP/1.1"), get(line=b"GET /../etc/passwd HTTP/1.1"),
          get(line=b"GET /a/../../b HTTP/1.1"), get(line=b"GET /%2e%2e/b HTTP/1.1"), get(line=b"GET /.%2E/b HTTP/1.1"),
          get(line=b"GET //../b HTTP/1.1"), get(line=b"GET /./../b HTTP/1.1"), get(line=b"GET http://a/../b HTTP/1.1")),
    *rows(501, "CONNECT", get(line=b"CONNECT a:443 HTTP/1.1"), get(line=b"CONNECT a HTTP/1.1"), b"CONNECT b:1 HTTP/1.1\r\nHost: b:1\r\n\r\n"),
    # --- Host (RFC 9110 §7.2, RFC 9112 §3.2) ---
    *rows(400, "Host is missing", get(host=b""), get(b"X-Host: a", host=b""), get(b"Accept: a", host=b"")),
    *rows(400, "Host is given more than once", get(host=H + H), get(host=H + b"Host: b\r\n"), get(b"host: a"), get(b"X: y", b"HOST: b")),
    *rows(400, "Host is not a valid host", *(
        get(host=b"Host: " + value + b"\r\n")
        for value in (b"", b" ", b"a b", b"a, b", b"u@a", b"u:p@a", b"a/b", b"a?b", b"a#b", b"a\\b", b"a:b", b"a:8x", b"a:-1", b"a:+80",
                      b"a:123456", b"a:65536", b"a:80:80", b"[::1", b"::1", b"[::1]x", b"[g::1]", b"[::1]:x", b"<a>", b"a|b", b"a\"b", b"a^b",
                      b"a{b}", b"%", b"%4", b"%zz", b"http://a", b"\xc3\xa9.example", b"a\tb")
    )),
    *rows(400, "differs", get(line=b"GET http://b/ HTTP/1.1"), get(line=b"GET http://a:80/ HTTP/1.1"), get(line=b"GET https://b HTTP/1.1"),
          get(line=b"GET http://a.b/ HTTP/1.1"), get(line=b"GET http:///x HTTP/1.1"), get(line=b"GET http://u@a/ HTTP/1.1")),
    *rows(400, "valid host", get(line=b"GET http://u@a/ HTTP/1.1", host=b"Host: u@a\r\n"), get(line=b"GET http:///x HTTP/1.1", host=b"Host:\r\n")),
    # --- Fields (RFC 9110 §5, RFC 9112 §5) ---
    *every(400, "field line", get(b"X?Y: z"), bytes(o for o in ALL if o not in TOKEN + b":\r\n")),
    *every(400, "field line", get(b"X: a?b"), bytes([*range(9), *range(11, 13), *range(14, 32), 127])),
    *rows(400, "field line", get(b"X : y"), get(b"X\t: y"), get(b": y"), get(b"X"), get(b"X y"), get(b" "),
          get(b"Content-Length : 3"), get(b"Transfer-Encoding : chunked"), get(b" X: y"), get(b"\tX: y")),
    *rows(400, "folded", get(b"X: a", b" b"), get(b"X: a", b"\tb"), get(host=b"Host: a\r\n b\r\n"), get(b"Transfer-Encoding:", b" chunked"),
          get(b"Content-Length:", b"\t3"), get(b"X: a", b"  ")),
    *rows(400, "bare CR or LF", get(b"X: a\nY: b"), get(b"X: a\rY: b"), get(b"X: a\n"), get(b"X: a\r"), get(b"X: a\r\r"), get(b"X: \n\nb"),
          get(b"X: a\nContent-Length: 3"), get(b"X: a\rTransfer-Encoding: chunked"), get(b"X: a\n b"), get(b"\nX: a")),
    *rows(417, "100-continue", post(b"Expect: something"), post(b"Expect: 200-ok"), post(b"Expect: 100-continue, x")),
    # --- Framing (RFC 9112 §6) ---
    *rows(400, "Content-Length is not a plain decimal number", *(
        post(b"Content-Length: " + value, body=b"abc")
        for value in (b"+3", b"-3", b"0x3", b"3.0", b"3,3", b"3, 3", b"3;3", b"3 3", b"", b" ", b"three", b"3\x0b".replace(b"\x0b", b"_"), b"\xb3",
                      b"1e1", b"9999999999999999999", b"0" * 19, b"1_0", b"0b1", b"3a", b"a3", b"'3'", b'"3"', b"3\xa0", b"\xd9\xa3", b"Infinity", b"NaN")
    )),
    *rows(400, "Content-Length is given more than once", post(b"Content-Length: 3", b"Content-Length: 3", body=b"abc"),
          post(b"Content-Length: 3", b"content-length: 4", body=b"abcd"), post(b"Content-Length: 0", b"X: y", b"CONTENT-LENGTH: 3")),
    *rows(400, "both given", post(b"Content-Length: 3", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n"),
          post(b"Transfer-Encoding: chunked", b"Content-Length: 5", body=b"0\r\n\r\n"),
          post(b"Transfer-Encoding: chunked", b"X: y", b"content-length: 0", body=b"0\r\n\r\n")),
    *rows(400, "Transfer-Encoding is given more than once", post(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"),
          post(b"Transfer-Encoding: chunked", b"Transfer-Encoding: identity"), post(b"Transfer-Encoding: gzip", b"transfer-encoding: chunked")),
    # RFC 9112 §6.3, case 4: where chunked is not the last coding, nobody knows where the body ends; §6.1: chunked once.
    *rows(400, "last transfer coding is not chunked", *(
        post(b"Transfer-Encoding: " + value, body=b"0\r\n\r\n")
        for value in (b"chunked, gzip", b"chunked, identity", b"identity", b"xchunked", b"chunkedx", b"'chunked'", b"gzip", b"deflate", b"cow", b"chunk",
                      b"trailers", b"chunked, x-chunked", b"gzip, deflate")
    )),
    *rows(400, "more than once in Transfer-Encoding", *(
        post(b"Transfer-Encoding: " + value, body=b"0\r\n\r\n") for value in (b"chunked, chunked", b"chunked, gzip, chunked", b"chunked,Chunked")
    )),
    *rows(400, "not a list of codings without parameters", *(
        post(b"Transfer-Encoding: " + value, body=b"0\r\n\r\n")
        for value in (b"x chunked", b"chunked;q=1", b"chunked,", b",chunked", b"\"chunked\"", b"", b"chunked\x80", b"\xa0chunked", b"chun ked",
                      b"gzip;x=\"chunked\"", b"gzip,,chunked", b"chunked ;", b"chunked; a=b", b"\\chunked", b"[chunked]")
    )),
    *rows(501, "the only transfer coding", *(
        post(b"Transfer-Encoding: " + value, body=b"0\r\n\r\n")
        for value in (b"gzip, chunked", b"identity, chunked", b"x, chunked", b"gzip , \tCHUNKED", b"x-gzip,chunked")
    )),
    *rows(400, "HTTP/1.0", get(b"Transfer-Encoding: chunked", line=b"POST / HTTP/1.0") + b"0\r\n\r\n"),
    # --- Chunks (RFC 9112 §7.1) ---
    *rows(400, "chunk's size is malformed", *(
        chunked(size + b"\r\nabc\r\n0\r\n\r\n")
        for size in (b"-3", b"+3", b"0x3", b"3h", b"g", b" 3", b"3 ", b"\t3", b"3\t", b"", b"3.0", b"3,3", b"3_0", b"1" * 16, b"f" * 17,
                     b"3;\x00", b"3;a\x01b", b"3;a\x7f", b"3 3", b";x", b"\xb3", b"0x", b"--", b"3:x", b"3 x",
                     # Extensions that do not fit the grammar (§7.1.1).
                     b"3;", b"3; ", b"3;;a", b"3;=a", b"3;a=", b"3;a=b c", b"3;a=\"b", b"3;a=b\"", b"3;a=\"b\"c", b"3;a b", b"3;a=b=c", b"3;a,b",
                     b"3;\xe9", b"3;a=\xe9", b"3 a=b", b"3;a=\"b\\\"", b"3;(a)", b"3;a=b;", b"3;a:b")
    )),
    *rows(400, "extensions are longer", chunked(b"1;a=%b\r\nx\r\n" % (b"y" * 2000) * 9)),
    *rows(431, "trailers", chunked(b"0\r\n" + b"X: y\r\n" * 201 + b"\r\n"), chunked(b"0\r\n" + b"X: %b\r\n" % (b"y" * 4000) * 17 + b"\r\n")),
    *rows(400, "longer than its size", chunked(b"2\r\nabc\r\n0\r\n\r\n"), chunked(b"3\r\nabcd\r\n0\r\n\r\n")),
    *rows(400, "bare LF", chunked(b"3\nabc\r\n0\r\n\r\n"), chunked(b"3\r\nabc\n0\r\n\r\n"), chunked(b"0\n\n"), chunked(b"0\r\n\n"),
          chunked(b"3;a\nb\r\nabc\r\n0\r\n\r\n"), chunked(b"0\r\nX: y\n\r\n")),
    *rows(400, "size line or a trailer is too long", chunked(b"3;" + b"x" * 5000 + b"=y\r\nabc\r\n0\r\n\r\n"), chunked(b"0\r\nX: " + b"y" * 5000)),
    *rows(400, "trailer is malformed", chunked(b"0\r\nbad\r\n\r\n"), chunked(b"0\r\nX : y\r\n\r\n"), chunked(b"0\r\n X: y\r\n\r\n"),
          chunked(b"0\r\n: y\r\n\r\n"), chunked(b"0\r\nX: \x00\r\n\r\n"), chunked(b"0\r\nX: y\r\n z\r\n\r\n"), chunked(b"0\r\nX: a\rb\r\n\r\n")),
    # Fields that must not be smuggled in behind a body (RFC 9110 §6.5.1).
    *rows(400, "must not be one", *(
        chunked(b"0\r\n" + name + b": 1\r\n\r\n")
        for name in (b"Content-Length", b"Transfer-Encoding", b"Host", b"Connection", b"Keep-Alive", b"TE", b"Trailer", b"Upgrade", b"Expect",
                     b"Authorization", b"Cookie", b"Set-Cookie", b"Content-Encoding", b"X-Forwarded-For", b"X-Forwarded-Proto",
                     b"X-Forwarded-Host", b"Proxy-Authorization", b"Proxy-Authenticate", b"Proxy-Connection", b"HTTP2-Settings", b"hOsT")
    )),
]  # fmt: skip


def _name(row: tuple[int, str, bytes]) -> str:
    return re.sub(r"[^\x21-\x7e]", ".", repr(row[2])[2:70])


async def _refused(proxy: Proxy, server: Server, raw: bytes) -> tuple[int, dict[str, str], bytes]:
    status, fields, body = parsed(await proxy.talk(raw, half_close=False))
    assert fields["connection"] == "close"
    assert body.endswith(b"\n")
    assert body.count(b"\n") == 1
    return status, fields, body


@pytest.mark.parametrize("row", REFUSED, ids=_name)
async def test_refused(proxy: Proxy, server: Server, row: tuple[int, str, bytes]) -> None:
    status, words, raw = row
    await proxy.route(server)
    answer = await _refused(proxy, server, raw)
    assert answer[0] == status, answer
    assert words in answer[2].decode()
    # What could be forwarded before the fault was seen (a body that breaks) is never completed.
    assert all(b"chunked" in seen and not seen.endswith(b"0\r\n\r\n") for seen in server.seen)


@pytest.mark.parametrize(
    ("raw", "start"),
    [
        (get(line=b"GET /a//b HTTP/1.1"), b"GET /a/b HTTP/1.1"),
        (get(line=b"GET //a HTTP/1.1"), b"GET /a HTTP/1.1"),
        (get(line=b"GET //a//?x=//y HTTP/1.1"), b"GET /a/?x=//y HTTP/1.1"),
        (get(line=b"GET /a/./b/ HTTP/1.1"), b"GET /a/b/ HTTP/1.1"),
        (get(line=b"GET /a/../b HTTP/1.1"), b"GET /b HTTP/1.1"),
        (get(line=b"GET /a/b/.. HTTP/1.1"), b"GET /a/ HTTP/1.1"),
        (get(line=b"GET /a/.. HTTP/1.1"), b"GET / HTTP/1.1"),
        (get(line=b"GET /. HTTP/1.1"), b"GET / HTTP/1.1"),
        (get(line=b"GET /%7euser/%41%2f%2F HTTP/1.1"), b"GET /~user/A%2F%2F HTTP/1.1"),
        (get(line=b"GET /%e2%82%ac HTTP/1.1"), b"GET /%E2%82%AC HTTP/1.1"),
        (get(line=b"GET /a%2e%2e/b HTTP/1.1"), b"GET /a../b HTTP/1.1"),
        (get(line=b"GET /%2e%2e%2fa/x HTTP/1.1"), b"GET /..%2Fa/x HTTP/1.1"),
        (get(line=b"GET //[ HTTP/1.1"), b"GET /%5B HTTP/1.1"),
        (get(line=b"GET /a]^{x}|%7b HTTP/1.1"), b"GET /a%5D%5E%7Bx%7D%7C%7B HTTP/1.1"),
        (get(line=b"GET http://a/b|c HTTP/1.1"), b"GET /b%7Cc HTTP/1.1"),
        (get(line=b"GET /.hidden/..x HTTP/1.1"), b"GET /.hidden/..x HTTP/1.1"),
        (get(line=b"GET /?a=%zz&b=|{}[]\\^`\"<> HTTP/1.1"), b"GET /?a=%zz&b=|{}[]\\^`\"<> HTTP/1.1"),
        (get(line=b"GET /? HTTP/1.1"), b"GET /? HTTP/1.1"),
        (get(line=b"GET /a?b?c HTTP/1.1"), b"GET /a?b?c HTTP/1.1"),
        (get(line=b"GET http://a/x HTTP/1.1"), b"GET /x HTTP/1.1"),
        (get(line=b"GET http://A HTTP/1.1"), b"GET / HTTP/1.1"),
        (get(line=b"GET http://a?q HTTP/1.1"), b"GET /?q HTTP/1.1"),
        (get(line=b"GET HTTPS://a/x//y HTTP/1.1"), b"GET /x/y HTTP/1.1"),
        (get(line=b"OPTIONS * HTTP/1.1"), b"OPTIONS * HTTP/1.1"),
        (get(line=b"OPTIONS /x HTTP/1.1"), b"OPTIONS /x HTTP/1.1"),
        (get(line=b"!#$%&'*+-.^_`|~ / HTTP/1.1"), b"!#$%&'*+-.^_`|~ / HTTP/1.1"),
        (get(line=b"get / HTTP/1.1"), b"get / HTTP/1.1"),
        (get(line=b"GET / HTTP/1.0", host=b""), b"GET / HTTP/1.1"),
        (get(line=b"GET / HTTP/1.0"), b"GET / HTTP/1.1"),
        (b"\r\n" + get(), b"GET / HTTP/1.1"),
        (get(host=b"Host:a\r\n"), b"GET / HTTP/1.1"),
        (get(host=b"Host:  \t a \t\r\n"), b"GET / HTTP/1.1"),
        (get(b"X:", b"Y: \x80\xff\t!"), b"GET / HTTP/1.1"),
        (get(host=b"Host: [::1]:8080\r\n"), b"GET / HTTP/1.1"),
        (get(host=b"Host: a:\r\n"), b"GET / HTTP/1.1"),
        (get(host=b"Host: a_b.example.\r\n"), b"GET / HTTP/1.1"),
        (post(b"Content-Length: 003", body=b"abc"), b"POST / HTTP/1.1"),
        (post(b"Transfer-Encoding: Chunked", body=b"3\r\nabc\r\n0\r\n\r\n"), b"POST / HTTP/1.1"),
        (chunked(b"003;a=b ;c\r\nabc\r\n0\r\n\r\n"), b"POST / HTTP/1.1"),
    ],
    ids=lambda value: re.sub(r"[^\x21-\x7e]", ".", repr(value)[2:60]),
)  # fmt: skip
async def test_accepted_and_written_anew(proxy: Proxy, server: Server, raw: bytes, start: bytes) -> None:
    await proxy.route(server)
    status, _, _ = parsed(await proxy.talk(raw))
    assert status == 200
    assert server.seen[0].startswith(start + b"\r\nHost: ")
    assert server.seen[0].lower().count(b"\r\nhost:") == 1


async def test_what_is_pipelined_behind_a_refused_request_is_not_looked_at(proxy: Proxy, server: Server) -> None:
    await proxy.route(server)
    for raw in (get(b"Bad Field: x") + get(line=b"GET /next HTTP/1.1"), chunked(b"zz\r\n") + get(line=b"GET /next HTTP/1.1")):
        answer = await proxy.talk(raw, half_close=False)
        assert answer.count(b"HTTP/1.1 ") == 1
        assert b"400 Bad Request" in answer
    assert not any(b"/next" in seen for seen in server.seen)


BAD_RESPONSES = [
    b"garbage\r\n\r\n", b"\r\nHTTP/1.1 200 OK\r\n\r\n", b"HTTP/1.1\r\n\r\n", b"HTTP/1.1 20 OK\r\n\r\n", b"HTTP/1.1 2000 OK\r\n\r\n",
    b"HTTP/1.1 099 Low\r\n\r\n", b"HTTP/1.1 600 High\r\n\r\n", b"HTTP/1.1 abc OK\r\n\r\n", b"HTTP/1.1  200 OK\r\n\r\n",
    b"HTTP/1.2 200 OK\r\n\r\n", b"HTTP/2.0 200 OK\r\n\r\n", b"HTTP/0.9 200 OK\r\n\r\n", b"http/1.1 200 OK\r\n\r\n", b"ICY 200 OK\r\n\r\n",
    b"HTTP/1.1 200 O\x00K\r\n\r\n", b"HTTP/1.1 200 O\rK\r\n\r\n", b"HTTP/1.1 200 OK\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nX: a\nY: b\r\n\r\n", b"HTTP/1.1 200 OK\r\nX: a\r b\r\n\r\n", b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nX : a\r\n\r\n", b"HTTP/1.1 200 OK\r\nX\r\n\r\n", b"HTTP/1.1 200 OK\r\n: a\r\n\r\n", b"HTTP/1.1 200 OK\r\nX: \x01\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok", b"HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nok",
    b"HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nok", b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\nok",
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 0x2\r\n\r\nok", b"HTTP/1.1 200 OK\r\nContent-Length: 9999999999999999999\r\n\r\nok",
    b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked;q=1\r\n\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\nok",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nX: " + b"y" * 70_000 + b"\r\n\r\n",
]  # fmt: skip


@pytest.mark.parametrize("reply", BAD_RESPONSES, ids=lambda reply: re.sub(r"[^\x21-\x7e]", ".", repr(reply)[2:70]))
async def test_a_backend_with_the_same_faults_is_502_and_nothing_leaks(proxy: Proxy, server: Server, reply: bytes) -> None:
    await proxy.route(server)
    server.replies = [reply]
    reader, writer = await proxy.connect()
    writer.write(get())
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 502 Bad Gateway\r\n")
    length = int(re.search(rb"Content-Length: (\d+)", head).group(1))
    await reader.readexactly(length)
    writer.write(get())
    assert await reader.readexactly(len(OK)) == OK, "the next answer is the next answer"
    writer.close()


# --- limits: each is configurable, each refusal names the number ---


@pytest.mark.parametrize(
    ("limits", "raw", "status", "words"),
    [
        (Limits(head_bytes=200), get(b"X: " + b"y" * 200), 431, "200 bytes"),
        (Limits(fields=3), get(b"A: 1", b"B: 2", b"C: 3"), 431, "3 header fields"),
        (Limits(target_bytes=20), get(line=b"GET /" + b"a" * 20 + b" HTTP/1.1"), 414, "20 bytes"),
        (Limits(target_bytes=20), b"GET /" + b"a" * 200, 414, "20 bytes"),
        (Limits(target_bytes=20), get(line=b"GET http://a/" + b"a" * 20 + b" HTTP/1.1"), 414, "20 bytes"),
        (Limits(body_bytes=3), post(b"Content-Length: 4", body=b"abcd"), 413, "3 bytes"),
        (Limits(body_bytes=12), chunked(b"4\r\nabcd\r\n4\r\nefgh\r\n0\r\n\r\n"), 413, "12 bytes"),
    ],
)  # fmt: skip
async def test_limits(proxy: Proxy, server: Server, limits: Limits, raw: bytes, status: int, words: str) -> None:
    await proxy.route(server)
    await proxy.apply(Listener("l", 80, limits=limits))
    answer = await _refused(proxy, server, raw)
    assert answer[0] == status
    assert words in answer[2].decode()
    # Up to the limit all is well, and the limit can be changed while connections stand.
    reader, writer = await proxy.connect()
    await proxy.apply(Listener("l", 80))
    writer.write(raw if status != 414 or b"\r\n\r\n" in raw else get())
    assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 200 ")
    writer.close()


async def test_requests_per_connection(proxy: Proxy, server: Server) -> None:
    await proxy.route(server)
    await proxy.apply(Listener("l", 80, limits=Limits(requests_per_connection=5)))
    reader, writer = await proxy.connect()
    for number in range(5):
        writer.write(get())
        head = await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(2)
        assert (b"Connection: close" in head) == (number == 4)
    assert await reader.read() == b""
    writer.close()


async def test_connections_of_a_listener_and_of_an_address(proxy: Proxy, server: Server) -> None:
    await proxy.route(server)
    for limits in (Limits(connections=2), Limits(connections_per_address=2)):
        await proxy.apply(Listener("l", 80, limits=limits))
        held = [await proxy.connect() for _ in range(2)]
        for reader, writer in held:
            writer.write(get())
            assert await reader.readexactly(len(OK)) == OK
        with pytest.raises((ConnectionError, AssertionError, IndexError, ValueError)):
            await proxy.get()
        for _, writer in held:
            writer.close()
            await writer.wait_closed()
        status = 0
        while status != 200:  # the places are free once the proxy has seen the others go
            try:
                status = (await proxy.get())[0]
            except (ConnectionError, IndexError, ValueError):
                continue
    assert proxy.runtime.ports.tcp[80].listener_port.turned_away >= 2


async def test_bodies_that_trickle_are_cut_off_and_slow_ones_are_not(proxy: Proxy, server: Server) -> None:
    await proxy.route(server)
    await proxy.apply(Listener("l", 80, limits=Limits(body_seconds=10, body_rate=100)))
    trickle_reader, trickle = await proxy.connect()
    steady_reader, steady = await proxy.connect()
    for writer, first in ((trickle, b"x"), (steady, b"x" * 5000)):
        writer.write(post(b"Content-Length: 6000") + first)
    while len(server.seen) < 2:
        await proxy.get()
    now = proxy.runtime.clock.now
    proxy.runtime.tick(now + 11)
    answer = await trickle_reader.read()
    assert answer.startswith(b"HTTP/1.1 408 Request Timeout\r\n")
    assert b"100 bytes a second" in answer
    steady.write(b"x" * 1000)
    assert await steady_reader.readexactly(len(OK)) == OK
    for writer in (trickle, steady):
        writer.close()
