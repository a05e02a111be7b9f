"""What is sent to smuggle a request, and what must come of it: a row a case, raw bytes on both versions of HTTP.

`Row(name, sent, answers, seen)`: these bytes behind the preface of their version; the statuses that come back (0 for a
stream that is reset, or a connection that is cut); and the requests that any backend may read in what it got, with their
content. A row's `shows` must be somewhere in what the backend got, `hides` nowhere.
"""

from __future__ import annotations

from dataclasses import dataclass

from gateway.http.http2_frames import CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, RST_STREAM, frame, number
from support.http2_bytes import block

FORGED = b"GET /forged HTTP/1.1\r\nHost: internal\r\nX-User: admin\r\n\r\n"
TAIL = b"GET /next HTTP/1.1\r\nHost: a\r\n\r\n"
NEXT = (b"GET /next", b"")


@dataclass(frozen=True)
class Row:
    name: str
    sent: bytes
    answers: tuple[int, ...]
    seen: tuple[tuple[bytes, bytes], ...] = ()
    version: int = 1
    scene: str = "plain"
    shows: tuple[bytes, ...] = ()
    hides: tuple[bytes, ...] = ()

    def __repr__(self) -> str:
        return f"h{self.version}-{self.scene}-{self.name}".replace(" ", "-")


# --- HTTP/1.1 in front ------------------------------------------------------------------------------------


def head(*fields: bytes, line: bytes = b"POST /a HTTP/1.1", host: bytes = b"Host: a\r\n") -> bytes:
    return line + b"\r\n" + host + b"".join(one + b"\r\n" for one in fields) + b"\r\n"


def refused(name: str, sent: bytes, status: int = 400, **more: object) -> Row:
    """One answer, and nothing of it for the backend: what follows is not looked at."""
    return Row(name, sent, (status,), **more)  # type: ignore[arg-type]


def passed(name: str, sent: bytes, *seen: tuple[bytes, bytes], **more: object) -> Row:
    return Row(name, sent, (200,) * len(seen), seen, **more)  # type: ignore[arg-type]


TE = b"Transfer-Encoding: chunked"
HELLO5 = b"5\r\nhello\r\n0\r\n\r\n"
A = (b"POST /a", b"hello")
EMPTY = (b"POST /a", b"")

# Content-Length and Transfer-Encoding, in every doubtful company (RFC 9112 §6.1, §6.3).
FRAMING = [
    refused("CL and TE", head(b"Content-Length: 4", TE) + b"0\r\n\r\n" + FORGED),
    refused("TE and CL", head(TE, b"Content-Length: 4") + b"0\r\n\r\n" + FORGED),
    refused("CL 0 and TE", head(b"Content-Length: 0", TE) + b"5\r\nhello\r\n0\r\n\r\n" + FORGED),
    refused("CL and TE identity", head(b"Content-Length: 5", b"Transfer-Encoding: identity") + b"hello" + FORGED),
    refused("two CL that differ", head(b"Content-Length: 5", b"Content-Length: 0") + b"hello" + FORGED),
    refused("two CL that agree", head(b"Content-Length: 5", b"Content-Length: 5") + b"hello" + TAIL),
    refused("CL list that agrees", head(b"Content-Length: 5, 5") + b"hello" + TAIL),
    refused("CL list that differs", head(b"Content-Length: 5, 0") + b"hello" + FORGED),
    *(
        refused(f"CL {value!r}", head(b"Content-Length: " + value) + b"hello" + FORGED)
        for value in (
            b"+5", b"-5", b"5_", b"0_5", b"0x5", b"5 0", b"5;", b"5.0", b"", b"five", b"\xd9\xa5", b"5,", b",5", b"5\x0b", b"5e0", b"0b101", b"0o5",
            b"5\xa0", b"18446744073709551621", b"4294967301" * 2, b"00000000000000000005", b"'5'", b"5#", b"(5)", b"5\t0",
        )
    ),
    passed("CL with zeros", head(b"Content-Length: 005") + b"hello" + TAIL, A, NEXT, shows=(b"\r\nContent-Length: 5\r\n",), hides=(b"005",)),
    passed("CL 010 is ten", head(b"Content-Length: 010") + b"0123456789" + TAIL, (b"POST /a", b"0123456789"), NEXT,
           shows=(b"\r\nContent-Length: 10\r\n",), hides=(b"010\r\n",)),
    passed("CL 00", head(b"Content-Length: 00") + TAIL, EMPTY, NEXT, shows=(b"\r\nContent-Length: 0\r\n",)),
    passed("CL with white space", head(b"Content-Length: \t 5 \t ") + b"hello" + TAIL, A, NEXT, shows=(b"\r\nContent-Length: 5\r\n",)),
    passed("CL without space", head(b"cOnTeNt-LeNgTh:5") + b"hello" + TAIL, A, NEXT, shows=(b"\r\ncOnTeNt-LeNgTh: 5\r\n",)),
    *(
        refused(f"TE {value!r}", head(b"Transfer-Encoding: " + value) + HELLO5 + FORGED)
        for value in (
            b"chunked, identity", b"identity", b"xchunked", b"chunkedx", b"x chunked", b"chunked x", b"chunked;q=1", b"chunked,", b",chunked",
            b'"chunked"', b"'chunked'", b"", b"chunked\x0b", b"\x0bchunked", b"chunked\xa0", b"chunked, chunked", b"chunked, x", b"chunked\x00",
            b"chun\tked", b"gzip", b"\xefchunked", b"chunked;", b"[chunked]", b"chunked=1", b"0", b"x, chunked, x",
        )
    ),
    *(
        refused(f"TE {value!r}", head(b"Transfer-Encoding: " + value) + HELLO5 + FORGED, 501)
        for value in (b"gzip, chunked", b"identity, chunked", b"x,chunked", b"identity ,\tchunked")
    ),
    refused("two TE", head(TE, TE) + HELLO5 + FORGED),
    refused("two TE that differ", head(TE, b"Transfer-Encoding: identity") + HELLO5 + FORGED),
    refused("two TE in other order", head(b"Transfer-Encoding: x", b"transfer-encoding: chunked") + HELLO5 + FORGED),
    refused("TE before the colon", head(b"Transfer-Encoding : chunked") + HELLO5 + FORGED),
    refused("TE folded", head(b"Transfer-Encoding:", b" chunked") + HELLO5 + FORGED),
    refused("TE on a folded line", head(b"X: y", b" Transfer-Encoding: chunked") + HELLO5 + FORGED),
    refused("CL folded", head(b"Content-Length:", b"\t5") + b"hello" + FORGED),
    refused("TE behind a bare LF", head(b"X: y\nTransfer-Encoding: chunked") + HELLO5 + FORGED),
    refused("TE behind a bare CR", head(b"X: y\rTransfer-Encoding: chunked") + HELLO5 + FORGED),
    refused("CL behind a bare LF", head(b"X: y\nContent-Length: 55") + FORGED),
    refused("CL ended by a bare LF", b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 5\n\r\nhello" + FORGED),
    refused("head ended by bare LFs", b"POST /a HTTP/1.1\nHost: a\nContent-Length: 5\n\nhello\r\n\r\n" + FORGED),
    refused("NUL in TE's name", head(b"Transfer-Encoding\0: chunked") + HELLO5 + FORGED),
    refused("tab in TE's name", head(b"Transfer-Encoding\t: chunked") + HELLO5 + FORGED),
    refused("space before TE", b"POST /a HTTP/1.1\r\n Transfer-Encoding: chunked\r\nHost: a\r\n\r\n" + HELLO5 + FORGED),
    refused("TE on HTTP/1.0", head(TE, line=b"POST /a HTTP/1.0") + HELLO5 + FORGED),
    refused("TE and CL on HTTP/1.0", head(TE, b"Content-Length: 5", line=b"POST /a HTTP/1.0") + HELLO5 + FORGED),
    passed("TE in other letters", head(b"TRANSFER-ENCODING:\tChUnKeD \t") + HELLO5 + TAIL, A, NEXT,
           shows=(b"\r\nTransfer-Encoding: chunked\r\n",), hides=(b":\tchunked",)),
    passed("neither", head() + TAIL, EMPTY, NEXT),
    passed("CL named by Connection", head(b"Connection: content-length", b"Content-Length: 5") + b"hello" + TAIL, A, NEXT,
           shows=(b"\r\nContent-Length: 5\r\n",)),
    passed("TE named by Connection", head(b"Connection: transfer-encoding", TE) + HELLO5 + TAIL, A, NEXT, shows=(b"\r\n" + TE + b"\r\n",)),
    passed("Host named by Connection", head(b"Connection: host, x", b"X: y", b"Content-Length: 0") + TAIL, EMPTY, NEXT, hides=(b"X: y",)),
    passed("CL on HTTP/1.0 kept", head(b"Content-Length: 05", b"Connection: keep-alive", line=b"POST /a HTTP/1.0") + b"hello" + TAIL, A, NEXT),
    passed("HTTP/1.0 not kept", head(b"Content-Length: 5", line=b"POST /a HTTP/1.0") + b"hello" + FORGED, A),
]  # fmt: skip


def chunked(body: bytes, tail: bytes = FORGED) -> bytes:
    return head(TE) + body + tail


def one_by_one(data: bytes) -> bytes:
    return b"".join(b"1\r\n%c\r\n" % octet for octet in data)


# Chunks (RFC 9112 §7.1): what is refused, and what is written anew.
CHUNKS = [
    *(
        refused(f"size {size!r}", chunked(size + b"\r\nhello\r\n0\r\n\r\n"))
        for size in (
            b"0x5", b"+5", b"--5", b"5_", b"0_5", b" 5", b"5 ", b"\t5", b"5\t", b"5.0", b"5,", b"", b"h", b"5h", b"\x005", b"5\x00", b"5\x0b", b"\xd9\xa5",
            b"100000000000000005", b"0" * 15 + b"5", b"ffffffffffffffff5", b"'5'", b"5\r", b"5#", b"5:", b"5/a=b", b"5 0", b"0X5", b"5\xa0",
        )
    ),
    *(
        refused(f"extension {ext!r}", chunked(b"5" + ext + b"\r\nhello\r\n0\r\n\r\n"))
        for ext in (
            b";", b"; ", b";;a", b";=b", b";a=", b';a="b', b";a=b c", b";a\x00", b";a=\x01", b";a\rb", b";a\n", b';a="b"c', b";\xe9", b";a==b",
            b';a="\\"', b" a", b";a=b;", b";a=(b)",
        )
    ),
    *(
        passed(f"extension {ext!r} ends here", chunked(b"5" + ext + b"\r\nhello\r\n0" + ext + b"\r\n\r\n", TAIL), A, NEXT,
               shows=(b"\r\n\r\n5\r\nhello\r\n0\r\n\r\n",), hides=(b";",))
        for ext in (b";a", b";a=b", b';a="b"', b" ; a = b", b";a;b=c", b';a="0\\r\\n\\"', b';a=" ; "', b";chunk-signature=0123456789abcdef", b"\t;\ta")
        if b"\\r\\n" not in ext
    ),
    passed("size with zeros", chunked(b"00005\r\nhello\r\n000\r\n\r\n", TAIL), A, NEXT, shows=(b"\r\n\r\n5\r\nhello\r\n0\r\n\r\n",)),
    passed("size in capitals", chunked(b"0A\r\n0123456789\r\n0\r\n\r\n", TAIL), (b"POST /a", b"0123456789"), NEXT,
           shows=(b"\r\n\r\na\r\n0123456789\r\n",)),
    passed("many small ones become one", chunked(b"1\r\nh\r\n1\r\ne\r\n3\r\nllo\r\n0\r\n\r\n", TAIL), A, NEXT, shows=(b"5\r\nhello\r\n",)),
    passed("a thousand chunks, read in turns", chunked(one_by_one(FORGED * 20) + b"0\r\n\r\n", TAIL), (b"POST /a", FORGED * 20), NEXT),
    Row("a thousand chunks and a fault", chunked(one_by_one(FORGED * 20) + b"0x\r\n"), (400,)),
    Row("a thousand chunks and nothing more", head(TE) + one_by_one(FORGED * 20), ()),
    passed("content that looks like the end", chunked(b"7\r\n\r\n0\r\n\r\n\r\n0\r\n\r\n", TAIL), (b"POST /a", b"\r\n0\r\n\r\n"), NEXT),
    passed("content that looks like a request", chunked(b"%x\r\n%b\r\n0\r\n\r\n" % (len(FORGED), FORGED), TAIL), (b"POST /a", FORGED), NEXT),
    refused("shorter than it says", chunked(b"6\r\nhello\r\n0\r\n\r\n")),
    refused("longer than it says", chunked(b"4\r\nhello\r\n0\r\n\r\n")),
    refused("size ended by LF", chunked(b"5\nhello\r\n0\r\n\r\n")),
    refused("data ended by LF", chunked(b"5\r\nhello\n0\r\n\r\n")),
    refused("data ended by CR", chunked(b"5\r\nhello\r0\r\n\r\n")),
    refused("data ended by nothing", chunked(b"5\r\nhello0\r\n\r\n")),
    refused("data ended by spaces", chunked(b"5\r\nhello  0\r\n\r\n")),
    refused("last ended by LF", chunked(b"5\r\nhello\r\n0\n\r\n")),
    refused("end ended by LF", chunked(b"5\r\nhello\r\n0\r\n\n")),
    refused("end ended by CR CR", chunked(b"5\r\nhello\r\n0\r\n\r\r\n")),
    refused("an empty line before a size", chunked(b"\r\n5\r\nhello\r\n0\r\n\r\n")),
    refused("two chunks with an empty line between", chunked(b"2\r\nhe\r\n\r\n3\r\nllo\r\n0\r\n\r\n")),
    Row("no end", head(TE) + b"5\r\nhello\r\n", (), ()),
    Row("no end behind the last", head(TE) + b"5\r\nhello\r\n0\r\n", (), ()),
    Row("half a size", head(TE) + b"5", (), ()),
    # Trailers (RFC 9110 §6.5.1).
    *(
        refused(f"trailer {line!r}", chunked(b"5\r\nhello\r\n0\r\n" + line + b"\r\n\r\n"))
        for line in (
            b"Content-Length: 55", b"Transfer-Encoding: chunked", b"Host: b", b"Connection: close", b"Authorization: x", b"Cookie: a=b",
            b"X-Forwarded-For: 1.2.3.4", b"Expect: 100-continue", b"TE: trailers", b"Trailer: x", b"Upgrade: x", b"X : y", b" X: y", b"X", b": y", b"X: \0",
            b"X: a\rb", b"X: a\nb", b"GET /forged HTTP/1.1", b"Content-Encoding: gzip",
        )
    ),
    passed("a trailer", chunked(b"5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n", TAIL), A, NEXT, shows=(b"0\r\nX-Sum: 1\r\n\r\n",)),
    passed("a trailer that looks like framing", chunked(b"5\r\nhello\r\n0\r\nContent_Length: 55\r\nX-Sum: 1\r\n\r\n", TAIL), A, NEXT,
           shows=(b"0\r\nX-Sum: 1\r\n\r\n",), hides=(b"55",)),
    refused("too many trailers", chunked(b"0\r\n" + b"X: y\r\n" * 201 + b"\r\n"), 431),
]  # fmt: skip

# Fields that some backends take for others (RFC 3875 §4.1.18).
NAMES = [
    *(
        passed(f"{name!r} goes nowhere", head(name + b": " + value, b"Content-Length: 5") + b"hello" + TAIL, A, NEXT, hides=(name.lower() + b":",))
        for name, value in (
            (b"Content_Length", b"55"), (b"content_length", b"0"), (b"Transfer_Encoding", b"chunked"), (b"Transfer.Encoding", b"x"),
            (b"X_Forwarded_For", b"6.6.6.6"), (b"X-Forwarded_For", b"6.6.6.6"), (b"X_Forwarded-Proto", b"https"), (b"x_forwarded_host", b"internal"),
            (b"Content.Length", b"55"), (b"Content~Length", b"55"), (b"Transfer!Encoding", b"chunked"), (b"Proxy_Authorization", b"x"),
            (b"Keep_Alive", b"1"), (b"HTTP2_Settings", b"x"),
        )
    ),
    passed("an honest underscore", head(b"X_Trace: 1", b"Content-Length: 5") + b"hello" + TAIL, A, NEXT, shows=(b"X_Trace: 1\r\n",)),
    passed("beside an edited field", head(b"X_User: admin", b"x-user: me", b"X.User: admin", b"Content-Length: 5") + b"hello" + TAIL, A, NEXT,
           scene="edited", shows=(b"X-User: nobody\r\n",), hides=(b"admin", b"x-user: me")),
    passed("beside a removed field", head(b"X_Secret: 1", b"X-Secret: 1", b"Content-Length: 5") + b"hello" + TAIL, A, NEXT, scene="edited",
           hides=(b"ecret",)),
    passed("beside a field of a filter", head(b"X_Seen: admin", b"X-Seen: admin", b"Content-Length: 5") + b"hello" + TAIL, A, NEXT,
           scene="scripted", shows=(b"x-seen: filter\r\n",), hides=(b"admin",)),
    # Some backends add trailers to the fields.
    passed("a trailer in place of an edited field", chunked(b"5\r\nhello\r\n0\r\nX-User: admin\r\nX_Secret: 1\r\nx-secret: 1\r\nX-Sum: 1\r\n\r\n", TAIL),
           A, NEXT, scene="edited", shows=(b"0\r\nX-Sum: 1\r\n\r\n",), hides=(b"admin", b"secret")),
    *(
        passed("a trailer in place of a field of a filter", chunked(b"5\r\nhello\r\n0\r\nX_Seen: admin\r\nX-Seen: admin\r\n\r\n", TAIL), A, NEXT,
               scene=scene, shows=(b"x-seen: filter\r\n",), hides=(b"admin",))
        for scene in ("setting", "setting-later")
    ),
    passed("a trailer in place of a field that a filter removes", chunked(b"5\r\nhello\r\n0\r\nX-Seen: admin\r\n\r\n", TAIL), A, NEXT,
           scene="popping", hides=(b"admin",)),
    refused("rejected", head(b"X_Trace: 1", b"Content-Length: 5") + b"hello" + FORGED, scene="rejecting"),
    refused("rejected as a trailer", chunked(b"5\r\nhello\r\n0\r\nX_Sum: 1\r\n\r\n"), scene="rejecting"),
    passed("dropped", head(b"X_Trace: 1", b"X-Trace: 2", b"Content-Length: 5") + b"hello" + TAIL, A, NEXT, scene="dropping",
           shows=(b"X-Trace: 2\r\n",), hides=(b"x_trace",)),
    passed("dropped as a trailer", chunked(b"5\r\nhello\r\n0\r\nX_Sum: 1\r\nY: 2\r\n\r\n", TAIL), A, NEXT, scene="dropping",
           shows=(b"0\r\nY: 2\r\n\r\n",), hides=(b"x_sum",)),
]  # fmt: skip

GET = b"GET /a HTTP/1.1"
G = (b"GET /a", b"")
# Heads: where lines and words end (RFC 9112 §2.2, §3, §5).
HEADS = [
    refused("CR LF in a value", head(b"X: a\r\n\r\nGET /forged HTTP/1.1\r\nHost: a\r\nX: \x01", line=GET, host=b"Host : a\r\n")),
    refused("bare CR ends the head", b"GET /a HTTP/1.1\rHost: a\r\r" + FORGED),
    refused("NUL in a value", head(b"X: a\0b", line=GET) + FORGED),
    refused("NUL in the target", head(line=b"GET /a\0b HTTP/1.1") + FORGED),
    refused("LF in the target", b"GET /a\nX HTTP/1.1\r\nHost: a\r\n\r\n" + FORGED),
    refused("a space in the target", head(line=b"GET /a HTTP/1.1 /b HTTP/1.1") + FORGED),
    refused("a tab between words", head(line=b"GET\t/a HTTP/1.1") + FORGED),
    refused("two spaces", head(line=b"GET  /a HTTP/1.1") + FORGED),
    refused("HTTP/0.9", b"GET /a\r\n\r\n" + FORGED),
    refused("HTTP/1.10", head(line=b"GET /a HTTP/1.10") + FORGED),
    refused("HTTP/2.0 in a line", head(line=b"GET /a HTTP/2.0") + FORGED, 505),
    refused("two empty lines ahead", b"\r\n\r\n" + head(line=GET) + FORGED),
    refused("an empty name", head(b": x", line=GET) + FORGED),
    refused("no colon", head(b"Content-Length 5", line=GET) + FORGED),
    refused("a folded value", head(b"X: a", b"\tb", line=GET) + FORGED),
    refused("a line of spaces", head(b"   ", line=GET) + FORGED),
    refused("a quoted name", head(b'"X": a', line=GET) + FORGED),
    refused("no Host", head(line=GET, host=b"") + FORGED),
    refused("two Hosts", head(b"Host: b", line=GET) + FORGED),
    refused("Host with a path", head(line=GET, host=b"Host: a/b\r\n") + FORGED),
    refused("Host with a user", head(line=GET, host=b"Host: u@a\r\n") + FORGED),
    refused("Host list", head(line=GET, host=b"Host: a, b\r\n") + FORGED),
    refused("Host differs from the target", head(line=b"GET http://b/a HTTP/1.1") + FORGED),
    refused("CONNECT", head(line=b"CONNECT a:80 HTTP/1.1") + FORGED, 501),
    refused("CONNECT with a body", head(b"Content-Length: 55", line=b"CONNECT a:80 HTTP/1.1") + FORGED, 501),
    passed("an empty line ahead", b"\r\n" + head(line=GET) + TAIL, G, NEXT),
    passed("absolute form", head(line=b"GET http://a/a HTTP/1.1") + TAIL, G, NEXT, hides=(b"http://",)),
    passed("OPTIONS *", head(line=b"OPTIONS * HTTP/1.1") + TAIL, (b"OPTIONS *", b""), NEXT),
    passed("a space that was encoded", head(line=b"GET /a%20HTTP/1.1%0d%0aX:y HTTP/1.1") + TAIL, (b"GET /a%20HTTP/1.1%0D%0AX:y", b""), NEXT),
    passed("fields of the connection", head(b"Connection: keep-alive, X-Internal", b"X-Internal: 1", b"Keep-Alive: 5", b"Proxy-Connection: x", b"TE: x",
           line=GET) + TAIL, G, NEXT, hides=(b"x-internal", b"keep-alive", b"proxy-connection", b"\r\nte:")),
]  # fmt: skip


def learned(value: bytes, line: bytes = GET) -> bytes:
    """A head like those that went before, but for this value."""
    return line + b"\r\nHost: a\r\nX-Id: " + value + b"\r\nCookie: c=9\r\n\r\n"


# Where requests end: pipelining, bodies where nobody expects them, expectations.
ENDS = [
    passed("pipelined", head(line=GET) * 3 + TAIL, G, G, G, NEXT),
    passed("pipelined behind a body", head(b"Content-Length: 5") + b"hello" + TAIL, A, NEXT),
    passed("pipelined behind chunks", chunked(HELLO5, TAIL), A, NEXT),
    Row("pipelined behind a fault", head(line=GET) + head(b"Bad Name: x", line=GET) + FORGED, (200, 400), (G,)),
    Row("pipelined behind a bad chunk", chunked(HELLO5, b"") + chunked(b"zz\r\n"), (200, 400), (A,)),
    *(
        passed(f"{method.decode()} with a body", head(b"Content-Length: 5", line=method + b" /a HTTP/1.1") + b"hello" + TAIL, (method + b" /a", b"hello"), NEXT)
        for method in (b"GET", b"DELETE", b"OPTIONS", b"PUT", b"TRACE", b"FOO")
    ),
    *(
        passed(f"{method.decode()} with chunks", head(TE, line=method + b" /a HTTP/1.1") + HELLO5 + TAIL, (method + b" /a", b"hello"), NEXT)
        for method in (b"GET", b"DELETE", b"OPTIONS", b"PATCH")
    ),
    passed("a body that is a request", head(b"Content-Length: %d" % len(FORGED), line=GET) + FORGED + TAIL, (b"GET /a", FORGED), NEXT),
    Row("less than CL", head(b"Content-Length: 500") + FORGED, (), ()),
    passed("HEAD", head(line=b"HEAD /a HTTP/1.1") + TAIL, (b"HEAD /a", b""), NEXT),
    passed("HEAD with a body", head(b"Content-Length: 5", line=b"HEAD /a HTTP/1.1") + b"hello" + TAIL, (b"HEAD /a", b"hello"), NEXT),
    passed("an expectation", head(b"Content-Length: 5", b"Expect: 100-continue") + b"hello" + TAIL, A, NEXT),
    passed("an expectation in capitals", head(b"Content-Length: 05", b"Expect:100-CONTINUE") + b"hello" + TAIL, A, NEXT, shows=(b"Expect: 100-continue\r\n",)),
    passed("an expectation and chunks", head(TE, b"Expect: 100-continue") + HELLO5 + TAIL, A, NEXT),
    refused("another expectation", head(b"Content-Length: 5", b"Expect: 100-continue, x") + b"hello" + FORGED, 417),
    passed("an expectation of HTTP/1.0", head(b"Content-Length: 5", b"Expect: 100-continue", line=b"POST /a HTTP/1.0") + b"hello" + FORGED, A,
           hides=(b"expect",)),
    Row("no rule", head(line=b"GET /a HTTP/1.1", host=b"Host: nobody.example\r\n") + TAIL, (404, 200), (NEXT,)),
    Row("no rule and a body", head(b"Content-Length: 55", host=b"Host: nobody.example\r\n") + FORGED, (404,), ()),
    # The heads that the fast path has learned, alone as it wants them, with what does not fit in the place of a value.
    passed("learned", learned(b"9"), G),
    *(
        refused(f"learned with {value!r}", learned(value))
        for value in (b"9\nContent-Length: 55", b"9\rX: y", b"9\0", b"9\r\n X: y", b"9\r\nX : y", b"9\r\n: y", b"9\r\nX", b"9\x7f", b"9\n", b"9\r", b"9\r\n\r",
                      b"9\r\nHost: b", b"9\r\nContent-Length: 1\r\nContent-Length: 1", b"9\r\nTransfer-Encoding: x", b"9\nHost: b", b"9\n\n" + FORGED)
    ),
    refused("learned with another expectation", learned(b"9\r\nExpect: x"), 417),
    passed("learned with a look-alike", learned(b"9\r\nContent_Length: 55"), G, hides=(b"55",)),
    passed("learned with a field of the connection", learned(b"9\r\nConnection: cookie"), G),
    Row("learned with a request in a value", learned(b"9\r\n\r\nGET /forged HTTP/1.1\r\nHost: internal\r\nX-Id: 9"), (200, 404), (G,)),
    passed("learned with a body", learned(b"9\r\nContent-Length: 05") + b"hello", (b"GET /a", b"hello")),
    passed("learned with a body of its own end", learned(b"9\r\nContent-Length: 04") + b"\r\n\r\n", (b"GET /a", b"\r\n\r\n")),
    passed("learned with a body that is the same head", learned(b"9\r\nContent-Length: %d" % len(learned(b"9"))) + learned(b"9"), (b"GET /a", learned(b"9"))),
    refused("learned with another line", learned(b"9", b"GET /a\0 HTTP/1.1")),
    refused("learned with a line that ends in LF", learned(b"9", b"GET /a HTTP/1.1\nX: y")),
    passed("learned and pipelined", learned(b"9") * 2 + TAIL, G, G, NEXT),
]  # fmt: skip

WS = (
    b"Upgrade: websocket",
    b"Connection: Upgrade",
    b"Sec-WebSocket-Version: 13",
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
)
W = (b"GET /ws", b"")
WS_GET = b"GET /ws HTTP/1.1"
# Requests for another protocol, to backends that change to it and to those that do not.
UPGRADES = [
    passed("WebSocket that is not taken", head(*WS, line=WS_GET) + TAIL, W, NEXT),
    Row("WebSocket that is taken", head(*WS, line=WS_GET) + b"hello", (101,), (W,), scene="upgrading"),
    Row("WebSocket and a request behind it", head(*WS, line=WS_GET) + FORGED, (101,), (W,), scene="upgrading"),
    passed("WebSocket with a body", head(*WS, b"Content-Length: 5", line=WS_GET) + b"hello" + TAIL, (b"GET /ws", b"hello"), NEXT, hides=(b"upgrade:",)),
    passed("WebSocket with chunks", head(*WS, TE, line=WS_GET) + HELLO5 + TAIL, (b"GET /ws", b"hello"), NEXT, hides=(b"upgrade:",)),
    passed("WebSocket with a body to who would take it", head(*WS, b"Content-Length: 5", line=WS_GET) + b"hello" + TAIL, (b"GET /ws", b"hello"), NEXT,
           scene="upgrading", hides=(b"upgrade:",)),
    passed("WebSocket on HTTP/1.0", head(*WS, line=b"GET /ws HTTP/1.0") + FORGED, W, scene="upgrading", hides=(b"upgrade:",)),
    passed("Upgrade that Connection does not name", head(WS[0], line=WS_GET) + TAIL, W, NEXT, scene="upgrading", hides=(b"upgrade",)),
    passed("h2c", head(b"Upgrade: h2c", b"Connection: Upgrade, HTTP2-Settings", b"HTTP2-Settings: AAMAAABkAAQAAP__", line=WS_GET) + TAIL, W, NEXT,
           scene="upgrading", hides=(b"upgrade", b"http2-settings")),
    passed("h2c among others", head(b"Upgrade: websocket, h2c", b"Connection: Upgrade", line=WS_GET) + TAIL, W, NEXT, scene="upgrading",
           hides=(b"upgrade",)),
    refused("WebSocket with CL and TE", head(*WS, b"Content-Length: 5", TE, line=WS_GET) + b"hello" + FORGED, scene="upgrading"),
]  # fmt: skip

PUT = b"PUT /a HTTP/1.1"  # which may be sent twice (RFC 9110 §9.2.2)
# The same bytes where somebody else has a hand in the body.
SCENES = [
    row
    for scene in ("mirrored", "retried", "scripted", "body-filter", "edited")
    for row in (
        passed("CL", head(b"Content-Length: 005", line=PUT) + b"hello" + TAIL, (b"PUT /a", b"hello"), NEXT, scene=scene),
        passed(
            "chunks",
            head(TE, line=PUT) + b'005;a="b"\r\nhello\r\n00\r\nX-Sum: 1\r\n\r\n' + TAIL,
            (b"PUT /a", b"hello"),
            NEXT,
            scene=scene,
            hides=(b";a",),
        ),
        passed(
            "a body that is a request",
            head(b"Content-Length: %d" % len(FORGED), line=PUT) + FORGED + TAIL,
            (b"PUT /a", FORGED),
            NEXT,
            scene=scene,
        ),
        passed("GET with chunks", head(TE, line=GET) + HELLO5 + TAIL, (b"GET /a", b"hello"), NEXT, scene=scene),
        refused("CL and TE", head(b"Content-Length: 4", TE) + b"0\r\n\r\n" + FORGED, scene=scene),
        refused("bad chunk", chunked(b"5\r\nhello\r\nx\r\n"), scene=scene),
        Row("less than CL", head(b"Content-Length: 500") + FORGED, (), (), scene=scene),
        Row("no end", head(TE) + b"5\r\nhello\r\n", (), (), scene=scene),
    )
]


def web(data: bytes) -> bytes:
    return b"\0" + len(data).to_bytes(4, "big") + data


WEB = b"Content-Type: application/grpc-web"
# gRPC-Web, whose content is taken apart and framed anew; base64 comes in pieces that are nothing yet.
GRPC_WEB = [
    passed("gRPC-Web", head(WEB, b"Content-Length: 10") + web(b"hello") + TAIL, (b"POST /a", web(b"hello")), NEXT, scene="grpc"),
    passed("gRPC-Web in chunks", head(WEB, TE) + b"a;x\r\n" + web(b"hello") + b"\r\n0\r\n\r\n" + TAIL, (b"POST /a", web(b"hello")), NEXT, scene="grpc"),
    passed("gRPC-Web as text in small pieces", head(WEB + b"-text", TE) + b"1\r\nA\r\n3\r\nAAA\r\n4\r\nAAVo\r\n4\r\nZWxs\r\n4\r\nbw==\r\n0\r\n\r\n" + TAIL,
           (b"POST /a", web(b"hello")), NEXT, scene="grpc"),
    passed("gRPC-Web with CL 0", head(WEB, b"Content-Length: 0") + TAIL, (b"POST /a", b""), NEXT, scene="grpc"),
    # Refused as gRPC refuses, and where it ends is beyond doubt.
    Row("gRPC-Web that is no base64", head(WEB + b"-text", b"Content-Length: 8") + b"!!!!!!!!" + TAIL, (200, 200), (NEXT,), scene="grpc"),
    Row("gRPC-Web that is no base64 in chunks", head(WEB + b"-text", TE) + b"8\r\n!!!!!!!!\r\n0\r\n\r\n" + TAIL, (200, 200), (NEXT,), scene="grpc"),
]  # fmt: skip

# --- HTTP/2 in front --------------------------------------------------------------------------------------

BOTH = END_HEADERS | END_STREAM


def asked(stream: int, *fields: tuple[str, str], end: bool = True, **pseudo: str | None) -> bytes:
    return frame(HEADERS, BOTH if end else END_HEADERS, stream, block(*fields, **{"path": "/a", **pseudo}))


def content(stream: int, data: bytes, *, end: bool = True) -> bytes:
    return frame(DATA, END_STREAM if end else 0, stream, data)


NEXT2 = asked(3, path="/next")
FORGED_TEXT = FORGED.decode()


def bad2(name: str, *fields: tuple[str, str], status: int = 400, **pseudo: str | None) -> Row:
    """A malformed request; the next stream goes on."""
    return Row(name, asked(1, *fields, **pseudo) + NEXT2, (status, 200), (NEXT,), version=2)


def posted(
    name: str, *fields: tuple[str, str], said: bytes = b"hello", answers: tuple[int, ...] = (200, 200), **more: object
) -> Row:
    """A request with content, and one behind it."""
    seen = ((A, NEXT) if said == b"hello" else ((b"POST /a", said), NEXT)) if answers == (200, 200) else (NEXT,)
    sent = asked(1, *fields, method="POST", end=False) + content(1, said) + NEXT2
    return Row(name, sent, answers, seen, version=2, **more)  # type: ignore[arg-type]


INJECTIONS = (
    "/a\r\nX: y",
    "/a\nX: y",
    "/a\rb",
    "/a\0b",
    "/a b",
    "/a HTTP/1.1\r\n\r\nGET /forged HTTP/1.1",
    "/a\tb",
    "/a#b",
    "/a\x7f",
    "/é",
    "a",
    "",
    "//[",
    "*",
)
PSEUDO = [
    *(bad2(f"path {value!r}", path=value) for value in INJECTIONS if value != "//["),
    *(
        bad2(f"method {value!r}", method=value)
        for value in ("GET /forged HTTP/1.1\r\nHost: b\r\n\r\nGET", "G\nT", "G\rT", "G\0T", "G T", "GET\t", "", " GET", "G:T", "GÉT")
    ),
    *(
        bad2(f"authority {value!r}", authority=value)
        for value in ("a\r\nX: y", "a\nb", "a\rb", "a\0b", "a b", "a/b", "a?b", "u@a", "a, b", "", "a:99999", "a\tb", "é", "[::1", "a#b")
    ),
    *(bad2(f"scheme {value!r}", scheme=value) for value in ("http\r\nX: y", "ftp", "", "http\0", "http ", "http://a/forged?")),
    bad2("no path", path=None),
    bad2("no method", method=None),
    bad2("no scheme", scheme=None),
    bad2("no authority", authority=None),
    bad2("two paths", (":path", "/forged")),
    bad2("two methods", (":method", "POST")),
    bad2("two authorities", (":authority", "b")),
    bad2("an unknown pseudo field", (":forged", "1")),
    bad2("status in a request", (":status", "200")),
    bad2("a pseudo field behind others", ("x", "1"), (":path", "/forged")),
    bad2("host differs from authority", ("host", "b")),
    bad2("host twice", ("host", "a"), ("host", "a")),
    bad2("host twice and no authority", ("host", "a"), ("host", "a"), authority=None),
    bad2("protocol without CONNECT", (":protocol", "websocket")),
    bad2("CONNECT", method="CONNECT", path=None, scheme=None, status=501),
    bad2("CONNECT with a path", method="CONNECT", status=501),
]  # fmt: skip

FIELDS2 = [
    *(
        bad2(f"value {value!r}", ("x", value))
        for value in ("a\r\nX: y", "a\nb", "a\rb", "a\0b", "\r\n\r\n" + FORGED_TEXT, " a", "a ", "\ta", "a\x01", "a\x7f", "a\r\n b")
    ),
    *(
        bad2(f"name {name!r}", (name, "1"))
        for name in ("X", "x\r\ny", "x\ny", "x\0", "x y", "x:", "x\r\n\r\nget /forged http/1.1\r\nx", "", "é", "x(", "transfer-encoding\0", "content-length ", "x\t")
    ),
    *(
        bad2(f"{name}: {value}", (name, value))
        for name, value in (
            ("connection", "close"), ("connection", "content-length"), ("transfer-encoding", "chunked"), ("transfer-encoding", "identity"),
            ("keep-alive", "5"), ("proxy-connection", "x"), ("upgrade", "websocket"), ("upgrade", "h2c"), ("te", "gzip"), ("te", "trailers, chunked"),
            ("content-length", "5"), ("content-length", "+0"), ("content-length", "0x0"), ("content-length", "0, 0"), ("content-length", "-1"),
            ("content-length", ""), ("content-length", "0" * 20), ("content-length", "\xd9\xa3"),
        )
    ),
    bad2("CL twice", ("content-length", "0"), ("content-length", "0")),
    bad2("another expectation", ("expect", "x"), status=417),
    Row("CL 00 with no content", asked(1, ("content-length", "00")) + NEXT2, (200, 200), (G, NEXT), version=2, shows=(b"content-length: 0\r\n",)),
    posted("CL with zeros", ("content-length", "005"), shows=(b"content-length: 5\r\n",)),
    posted("no CL becomes chunks", shows=(b"Transfer-Encoding: chunked\r\n",)),
    posted("an expectation", ("content-length", "5"), ("expect", "100-Continue"), shows=(b"Expect: 100-continue\r\n",)),
    posted("CL and TE", ("content-length", "5"), ("transfer-encoding", "chunked"), answers=(400, 200)),
    posted("TE alone", ("transfer-encoding", "chunked"), answers=(400, 200)),
    posted("content that looks like the end", said=b"0\r\n\r\n" + FORGED),
    posted("more than CL", ("content-length", "0"), answers=(0, 200), said=FORGED),
    posted("more than CL by one", ("content-length", "4"), answers=(0, 200)),
    posted("less than CL", ("content-length", "6"), answers=(0, 200)),
    posted("Content_Length", ("content_length", "0"), ("content-length", "5"), hides=(b"content_length",)),
    posted("Content_Length alone", ("content_length", "0"), hides=(b"content_length",)),
    posted("Transfer_Encoding", ("transfer_encoding", "chunked"), ("content-length", "5"), hides=(b"transfer_encoding",)),
    posted("X_Forwarded_For", ("x_forwarded_for", "6.6.6.6"), hides=(b"6.6.6.6",)),
    posted("metadata with an underscore", ("x_trace", "1"), shows=(b"x_trace: 1\r\n",)),
    posted("beside an edited field", ("x_user", "admin"), ("x-user", "me"), scene="edited", shows=(b"X-User: nobody\r\n",), hides=(b"admin", b"x-user: me")),
    posted("rejected", ("x_trace", "1"), answers=(400, 200), scene="rejecting"),
    posted("dropped", ("x_trace", "1"), scene="dropping", hides=(b"x_trace",)),
    Row("content of a GET", asked(1, end=False) + content(1, b"hello") + NEXT2, (200, 200), ((b"GET /a", b"hello"), NEXT), version=2),
    Row("content of a HEAD", asked(1, method="HEAD", end=False) + content(1, b"hello") + NEXT2, (200, 200), ((b"HEAD /a", b"hello"), NEXT), version=2),
    Row("cookies in pieces", asked(1, ("cookie", "a=b"), ("cookie", "c=d")) + NEXT2, (200, 200), (G, NEXT), version=2, shows=(b"cookie: a=b; c=d\r\n",)),
    Row("a name in a CONTINUATION", frame(HEADERS, END_STREAM, 1, block(path="/a")) + frame(CONTINUATION, END_HEADERS, 1, b"\0\x01X\x011") + NEXT2, (400, 200),
        (NEXT,), version=2),
]  # fmt: skip


def parts(
    name: str,
    *pieces: bytes,
    answers: tuple[int, ...] = (200, 200),
    seen: tuple[tuple[bytes, bytes], ...] = (A, NEXT),
    **more: object,
) -> Row:
    return Row(name, b"".join((asked(1, method="POST", end=False), *pieces, NEXT2)), answers, seen, version=2, **more)  # type: ignore[arg-type]


def trailing(*fields: tuple[str, str]) -> bytes:
    return frame(HEADERS, BOTH, 1, block(*fields, method=None, scheme=None, authority=None, path=None))


CONTENT2 = [
    parts("content in pieces", content(1, b"he", end=False), content(1, b"llo")),
    parts("empty DATA between", content(1, b"he", end=False), content(1, b"", end=False), content(1, b"llo", end=False), content(1, b"")),
    parts("padded DATA", frame(DATA, END_STREAM | 0x8, 1, b"\x03helloGET")),
    parts("padding alone", frame(DATA, 0x8, 1, b"\x03GET"), content(1, b"hello")),
    parts("a trailer", content(1, b"hello", end=False), trailing(("x-sum", "1")), shows=(b"0\r\nx-sum: 1\r\n\r\n",)),
    parts("a trailer that looks like framing", content(1, b"hello", end=False), trailing(("content_length", "55"), ("x-sum", "1")),
          shows=(b"0\r\nx-sum: 1\r\n\r\n",), hides=(b"55",)),
    parts("a trailer in place of an edited field", content(1, b"hello", end=False), trailing(("x-user", "admin"), ("x_secret", "1"), ("x-sum", "1")),
          scene="edited", shows=(b"0\r\nx-sum: 1\r\n\r\n",), hides=(b"admin", b"secret")),
    *(
        parts("a trailer in place of a field of a filter", content(1, b"hello", end=False), trailing(("x_seen", "admin"), ("x-seen", "admin")), scene=scene,
              shows=(b"x-seen: filter\r\n",), hides=(b"admin",))
        for scene in ("setting", "setting-later")
    ),
    *(
        parts(f"trailer {name}", content(1, b"hello", end=False), trailing((name, value)), answers=(0, 200), seen=(NEXT,))
        for name, value in (
            ("content-length", "55"), ("transfer-encoding", "chunked"), ("host", "b"), (":path", "/forged"), (":status", "200"), ("connection", "x"),
            ("X", "y"), ("x", "a\r\nb"), ("x\n", "a"), ("x-forwarded-for", "6.6.6.6"), ("authorization", "x"), ("trailer", "x"),
        )
    ),
    parts("a second head", content(1, b"hello", end=False), frame(HEADERS, END_HEADERS, 1, block(path="/forged")), answers=(0, 200), seen=(NEXT,)),
    parts("a second head that ends", content(1, b"hello", end=False), frame(HEADERS, BOTH, 1, block(path="/forged")), answers=(0, 200), seen=(NEXT,)),
    Row("reset in the middle", asked(1, method="POST", end=False) + content(1, FORGED, end=False) + frame(RST_STREAM, 0, 1, number(8)) + NEXT2, (200,),
        (NEXT,), version=2),
    Row("reset in the middle of CL", asked(1, ("content-length", "500"), method="POST", end=False) + content(1, FORGED, end=False)
        + frame(RST_STREAM, 0, 1, number(8)) + NEXT2, (200,), (NEXT,), version=2),
    *(
        posted("content", scene=scene) for scene in ("mirrored", "scripted", "body-filter")
    ),
    *(
        posted("content of known length", ("content-length", "05"), scene=scene) for scene in ("mirrored", "scripted", "body-filter")
    ),
    Row("content again", asked(1, method="PUT", end=False) + content(1, b"hello") + NEXT2, (200, 200), ((b"PUT /a", b"hello"), NEXT), version=2,
        scene="retried"),
    Row("content of known length again", asked(1, ("content-length", "05"), method="PUT", end=False) + content(1, b"hello") + NEXT2, (200, 200),
        ((b"PUT /a", b"hello"), NEXT), version=2, scene="retried"),
    *(
        parts("trailers and a filter", content(1, b"hello", end=False), trailing(("x-sum", "1")), scene=scene) for scene in ("mirrored", "body-filter")
    ),
    Row("gRPC-Web in pieces", asked(1, ("content-type", "application/grpc-web-text"), method="POST", end=False) + content(1, b"A", end=False)
        + content(1, b"AAAAAVo", end=False) + content(1, b"ZW", end=False) + content(1, b"xsbw==") + NEXT2, (200, 200), ((b"POST /a", web(b"hello")), NEXT),
        version=2, scene="grpc"),
]  # fmt: skip

SOCKET = {"method": "CONNECT", "path": "/ws"}


def socket(*fields: tuple[str, str], end: bool = False) -> bytes:
    said = block((":protocol", "websocket"), ("sec-websocket-version", "13"), *fields, method="CONNECT", path="/ws")
    return frame(HEADERS, BOTH if end else END_HEADERS, 1, said)


# Extended CONNECT (RFC 8441): nothing behind the head reaches a backend that has not changed protocols.
SOCKETS = [
    Row("CONNECT that is not taken", socket() + content(1, FORGED, end=False) + NEXT2, (502, 200), (W, NEXT), version=2, hides=(b"forged",)),
    Row("CONNECT that ends at once", socket(end=True) + NEXT2, (502, 200), (W, NEXT), version=2),
    Row("CONNECT with a whole request behind", socket() + content(1, FORGED) + NEXT2, (502, 200), (W, NEXT), version=2, hides=(b"forged",)),
    Row("CONNECT with CL", socket(("content-length", "55")) + content(1, FORGED, end=False) + NEXT2, (502, 200), (W, NEXT), version=2,
        hides=(b"forged", b"content-length")),
    Row("CONNECT with the client's own key", socket(("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="), ("sec_websocket_key", "x")) + NEXT2, (502, 200), (W, NEXT),
        version=2, shows=(b"Sec-WebSocket-Key: ",), hides=(b"dghlihnhbxbsz", b"_key")),
    Row("CONNECT with cookies in pieces", socket(("cookie", "a=b"), ("cookie", "c=d")) + NEXT2, (502, 200), (W, NEXT), version=2,
        shows=(b"cookie: a=b; c=d\r\n",)),
    Row("CONNECT with an expectation", socket(("expect", "100-continue")) + NEXT2, (502, 200), (W, NEXT), version=2, hides=(b"expect",)),
    Row("CONNECT to another protocol", frame(HEADERS, END_HEADERS, 1, block((":protocol", "tcp"), method="CONNECT", path="/ws"))
        + content(1, FORGED, end=False) + NEXT2, (501, 200), (NEXT,), version=2),
    Row("CONNECT with LF in protocol", frame(HEADERS, END_HEADERS, 1, block((":protocol", "websocket\nx"), method="CONNECT", path="/ws"))
        + content(1, FORGED, end=False) + NEXT2, (501, 200), (NEXT,), version=2),
    Row("CONNECT that is taken", socket() + content(1, FORGED) + NEXT2, (200, 200), (W, NEXT), version=2, scene="upgrading"),
    Row("CONNECT that is taken and mirrored", socket() + content(1, FORGED, end=False) + NEXT2, (502, 200), (W, NEXT), version=2, scene="mirrored",
        hides=(b"forged",)),
]  # fmt: skip

ROWS = [
    *FRAMING, *CHUNKS, *NAMES, *HEADS, *ENDS, *UPGRADES, *SCENES, *GRPC_WEB, *PSEUDO, *FIELDS2, *CONTENT2, *SOCKETS,
]  # fmt: skip
