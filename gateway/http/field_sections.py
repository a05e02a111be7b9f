"""HTTP/2 field blocks ↔ HTTP/1.1 heads, by RFC 9113 §8 and HPACK (RFC 7541).

Inside the proxy a head is always HTTP/1.1 bytes or what was parsed from them, so that everything else exists once.
A block that came in is held to the same grammar as a head that did; only then is it written as lines, which is what
makes a translation that smuggles impossible (RFC 9113 §10.3).

Blocks that go out use the static table and literals that are never entered into the peer's dynamic table: a line is
the same bytes on every connection, and so is encoded once. Blocks that come in are decoded by the `hpack` library;
`Decoder.version` says whether one has changed the table, for whoever remembers what blocks mean.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable
from typing import Final

from hpack import Decoder as LibraryDecoder
from hpack import HPACKError, OversizedHeaderListError
from hpack.hpack import encode_integer
from hpack.huffman import HuffmanEncoder
from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH
from hpack.table import HeaderTable

from gateway.http.http1 import (
    BODILESS,
    CHUNKED,
    CHUNKED_FIELD,
    CODING,
    CONNECTION,
    EXPECT,
    FOLDED,
    HOP,
    HOST,
    KIND,
    LENGTH,
    LONG_HEAD,
    NO_LENGTH,
    NOT_A_TRAILER,
    PLAIN,
    UPGRADE,
    Field,
    ProtocolError,
    Request,
    Response,
    canonical,
    content_length,
    fold,
    is_host,
    kind_of,
    parse_target,
    sifted,
)  # fmt: skip
from gateway.snapshot import DEFAULT_LIMITS, Limits

Pair = tuple[bytes, bytes]
REMEMBERED: Final = 8192  # lines, each way
HEADS: Final = 2048  # whole heads on their way out

# A field name without upper-case letters, and a value that neither begins nor ends with white space (RFC 9113 §8.2.1).
_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]++")
_VALUE = re.compile(rb"(?:[\x21-\x7e\x80-\xff](?:[\t\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?)?")
_METHOD = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]++")
# Connection-specific fields, which HTTP/2 does not have (RFC 9113 §8.2.2).
_NOT_IN_HTTP2: Final = frozenset((b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade"))


class Malformed(Exception):
    """A block that is not a message (RFC 9113 §8.1.1). `status` is the answer that a client deserves for it."""

    def __init__(self, reason: str, status: int = 400) -> None:
        super().__init__(reason)
        self.reason = reason
        self.status = status


class TooLarge(Exception):
    """A field section over the limit; the decoder cannot go on."""


class Undecodable(Exception):
    """Not HPACK."""


class _Table(HeaderTable):
    """A dynamic table that counts its changes."""

    version = 0

    def add(self, name: bytes, value: bytes) -> None:
        self.version += 1
        super().add(name, value)

    @property
    def maxsize(self) -> int:
        return int(HeaderTable.maxsize.fget(self))  # type: ignore[attr-defined]

    @maxsize.setter
    def maxsize(self, newmax: int) -> None:
        self.version += 1
        HeaderTable.maxsize.fset(self, newmax)  # type: ignore[attr-defined]


class Decoder:
    """One connection's decoder."""

    __slots__ = ("_library", "_table")

    def __init__(self, most: int) -> None:
        self._library = LibraryDecoder(max_header_list_size=most)
        self._table = _Table()
        self._library.header_table = self._table

    @property
    def version(self) -> int:
        """Differs from an earlier value if the table has changed since."""
        return self._table.version

    def decode(self, block: bytes) -> list[Pair]:
        """Names and values in their order. Raises TooLarge or Undecodable, after which no block can be read."""
        try:
            return self._library.decode(block, raw=True)  # type: ignore[return-value]  # its tuples are pairs
        except OversizedHeaderListError:
            raise TooLarge from None
        except (HPACKError, IndexError, ValueError) as error:
            raise Undecodable(str(error)) from None


# --- from blocks to heads ---------------------------------------------------------------------------------

_fields: dict[Pair, Field] = {}


def _field(pair: Pair) -> Field:
    """A field line, held to the grammar. Raises Malformed."""
    remembered = _fields.get(pair)
    if remembered is not None:
        return remembered
    name, value = pair
    if not _NAME.fullmatch(name):
        raise Malformed("a field name is not a lower-case token")
    if not _VALUE.fullmatch(value):
        raise Malformed(f"the value of {name.decode()} holds characters that it may not")
    if name in _NOT_IN_HTTP2:
        raise Malformed(f"{name.decode()} has no meaning in HTTP/2")
    if name == b"te" and value.lower() != b"trailers":
        raise Malformed("te may only say trailers")
    field = canonical(Field(kind_of(name), name, value, b"%b: %b" % pair))
    if len(field.line) < 512:
        if len(_fields) >= REMEMBERED:
            _fields.clear()
        _fields[pair] = field
    return field


def _split(pairs: Iterable[Pair], known: frozenset[bytes]) -> tuple[dict[bytes, bytes], list[Field]]:
    """Pseudo-header fields, which come first and once (RFC 9113 §8.3), and the others."""
    pseudo: dict[bytes, bytes] = {}
    fields: list[Field] = []
    for pair in pairs:
        name, value = pair
        if name[:1] == b":":
            if fields:
                raise Malformed("a pseudo-header field comes after other fields")
            if name not in known or name in pseudo:
                raise Malformed(f"{name.decode('latin-1')!r} is unknown here or given twice")
            pseudo[bytes(name)] = value
        else:
            fields.append(_field(pair))
    return pseudo, fields


_REQUEST: Final = frozenset((b":method", b":scheme", b":authority", b":path", b":protocol"))
_RESPONSE: Final = frozenset((b":status",))


def request(pairs: list[Pair], limits: Limits, *, ended: bool) -> Request:
    """A request from its field section; `ended` where it has no content. Raises Malformed or ProtocolError."""
    if len(pairs) > limits.fields + 5:
        raise ProtocolError(431, f"more than {limits.fields} header fields")
    pseudo, fields = _split(pairs, _REQUEST)
    method = pseudo.get(b":method", b"")
    if not _METHOD.fullmatch(method):
        raise Malformed(":method is not a token")
    protocol = pseudo.get(b":protocol")
    if method == b"CONNECT" and protocol is None:
        raise ProtocolError(501, "CONNECT is not supported")
    if protocol is not None and method != b"CONNECT":
        raise Malformed(":protocol without CONNECT")
    target = pseudo.get(b":path")
    if target is None or pseudo.get(b":scheme", b"").lower() not in (b"http", b"https"):
        raise Malformed(":scheme and :path are needed")
    if len(target) > limits.target_bytes:
        raise ProtocolError(414, f"the request target is longer than {limits.target_bytes} bytes")
    if protocol is not None:
        return _websocket(protocol, target, pseudo, _with_one_cookie(fields), limits)
    length, fields = _content(_with_one_cookie(fields), ended=ended)
    if target == b"*" and method == b"OPTIONS":
        parsed = Request(method, b"/", None, False, fields)
        parsed.path = parsed.target = target
    else:
        parsed = Request(method, *_path(target), False, fields)
    parsed.length = length
    parsed.host = _host(pseudo, fields)
    parsed.sift(limits)
    return parsed


def _path(target: bytes) -> tuple[bytes, bytes | None]:
    parts = parse_target(target)
    if parts is None:
        raise Malformed(":path holds characters that it may not")
    return parts


def _host(pseudo: dict[bytes, bytes], fields: list[Field]) -> bytes:
    """RFC 9113 §8.3.1: :authority and Host must not disagree."""
    host = pseudo.get(b":authority")
    hosts = [field.value for field in fields if field.kind == HOST]
    if hosts:
        if len(hosts) > 1 or (host is not None and hosts[0].lower() != host.lower()):
            raise Malformed("host differs from :authority, or is given more than once")
        host = hosts[0]
    if not host:
        raise Malformed(":authority is missing")
    if not is_host(host):
        raise Malformed(":authority is not a valid host and port")
    return host


def _with_one_cookie(fields: list[Field]) -> list[Field]:
    """The fields with cookies as one line, which is all that HTTP/1.1 has (RFC 9113 §8.2.3)."""
    cookies = [field.value for field in fields if field.name == b"cookie"]
    if len(cookies) < 2:
        return fields
    value = b"; ".join(cookies)
    kept = [field for field in fields if field.name != b"cookie"]
    return [*kept, Field(PLAIN, b"cookie", value, b"cookie: " + value)]


def _content(fields: list[Field], *, ended: bool) -> tuple[int, list[Field]]:
    """The length of the content, and the fields with what frames it."""
    length = NO_LENGTH
    for field in fields:
        if field.kind == LENGTH:
            number = content_length(field.value)
            if length != NO_LENGTH or number is None:
                raise Malformed("content-length is given more than once or is not a plain decimal number")
            length = number
        elif field.kind == EXPECT and field.value.lower() != b"100-continue":
            raise ProtocolError(417, "the only expectation understood is 100-continue")
    if ended and length > 0:
        raise Malformed("the content is shorter than content-length")
    if not ended and length == NO_LENGTH:
        length = CHUNKED
        fields = [*fields, CHUNKED_FIELD]
    return length, fields


def _websocket(protocol: bytes, target: bytes, pseudo: dict[bytes, bytes], fields: list[Field], limits: Limits) -> Request:
    """Extended CONNECT (RFC 8441) as the upgrade that it stands for. The key proves nothing here, as both ends are ours: one
    that the client sends has no meaning (§5), and would be a second one. Nor has a tunnel any content (RFC 9110 §9.3.6)."""
    if protocol.lower() != b"websocket":
        raise ProtocolError(501, "the only protocol understood with CONNECT is websocket")
    added = [
        Field(UPGRADE, b"upgrade", b"websocket", b"Upgrade: websocket"),
        Field(CONNECTION, b"connection", b"upgrade", b"Connection: Upgrade"),
        Field(PLAIN, b"sec-websocket-key", b"Z2F0ZXdheSBvdmVyIGgyIQ==", b"Sec-WebSocket-Key: Z2F0ZXdheSBvdmVyIGgyIQ=="),
    ]
    kept = [field for field in fields if field.kind not in (LENGTH, EXPECT) and not _is_handshake(field)]
    handshake = Request(b"GET", *_path(target), False, kept + added)
    handshake.upgrade = b"websocket"
    handshake.host = _host(pseudo, fields)
    handshake.sift(limits)
    return handshake


def _is_handshake(field: Field) -> bool:
    """Whether it is of the handshake that HTTP/2 does not have, or could be taken for that."""
    return field.name in _HANDSHAKE or (field.kind == FOLDED and fold(field.name) in _HANDSHAKE)


def response(pairs: list[Pair], *, ended: bool, head_only: bool) -> Response:
    """A response from its field section, and where it has content the field that frames it. Raises Malformed."""
    pseudo, fields = _split(pairs, _RESPONSE)
    status = pseudo.get(b":status", b"")
    if len(status) != 3 or not status.isdigit() or not 100 <= int(status) <= 599:
        raise Malformed(":status is not a status")
    parsed = Response(int(status), b"", False, fields)
    if head_only or parsed.status < 200 or parsed.status in BODILESS:
        return parsed  # RFC 9110 §8.6: a length would be that of another answer, and none is made up
    if parsed.length != NO_LENGTH:
        if ended and parsed.length > 0:
            raise Malformed("the content is shorter than content-length")
    elif ended:
        parsed.length = 0
        parsed.fields = [*fields, Field(LENGTH, b"content-length", b"0", b"content-length: 0")]
    else:
        parsed.length = CHUNKED
        parsed.fields = [*fields, CHUNKED_FIELD]
    return parsed


def trailers(pairs: list[Pair], limits: Limits = DEFAULT_LIMITS) -> list[Field]:
    """A trailer section. Raises Malformed."""
    _, fields = _split(pairs, frozenset())
    for field in fields:
        if field.name in NOT_A_TRAILER:
            raise Malformed(f"{field.name.decode()} may not come as a trailer")
    try:
        return sifted(fields, limits)
    except ProtocolError as error:
        raise Malformed(error.reason) from None


# --- from heads to blocks ---------------------------------------------------------------------------------

_huffman = HuffmanEncoder(REQUEST_CODES, REQUEST_CODES_LENGTH)
_EXACT: Final[dict[Pair, int]] = {}
_NAMED: Final[dict[bytes, int]] = {}
for _index, (_name, _value) in enumerate(HeaderTable.STATIC_TABLE, 1):
    _NAMED.setdefault(_name, _index)
    if _value:
        _EXACT[_name, _value] = _index


def _integer(value: int, bits: int, flags: int = 0) -> bytes:
    encoded = encode_integer(value, bits)
    encoded[0] |= flags
    return bytes(encoded)


def _string(text: bytes) -> bytes:
    short = _huffman.encode(text)
    return _integer(len(short), 7, 0x80) + short if len(short) < len(text) else _integer(len(text), 7) + text


def encoded(name: bytes, value: bytes) -> bytes:
    """One field: an entry of the static table, or a literal without indexing (RFC 7541 §6.1, §6.2.2)."""
    exact = _EXACT.get((name, value))
    if exact is not None:
        return _integer(exact, 7, 0x80)
    index = _NAMED.get(name)
    return (_integer(index, 4) if index else b"\0" + _string(name)) + _string(value)


_lines: dict[bytes, bytes] = {}
_heads: dict[bytes, bytes] = {}


def _line(line: bytes) -> bytes:
    """A field line's encoding; empty for one that HTTP/2 does not have."""
    name, _, value = line.partition(b":")
    lower = name.lower()
    representation = b"" if KIND.get(lower) in (CONNECTION, HOP, UPGRADE, CODING) else encoded(lower, value.strip(b" \t"))
    if len(line) < 512:
        if len(_lines) >= REMEMBERED:
            _lines.clear()
        _lines[line] = representation
    return representation


def response_block(head: bytes) -> bytes:
    """The block of a response's head of ours: HTTP/1.1 with the empty line at its end."""
    block = _heads.get(head)
    if block is None:
        lines = head.split(b"\r\n")
        get = _lines.get
        parts = [encoded(b":status", head[9:12])]
        for line in lines[1:-2]:
            part = get(line)
            parts.append(_line(line) if part is None else part)
        block = b"".join(parts)
        if len(head) < LONG_HEAD:
            if len(_heads) >= HEADS:
                _heads.clear()
            _heads[head] = block
    return block


def request_block(head: bytes, scheme: bytes) -> bytes:
    """The block of a request's head of ours: a start line, Host, fields, the empty line."""
    lines = head.split(b"\r\n")
    method, target, _ = lines[0].split(b" ")
    host = lines[1].partition(b":")[2].strip()
    parts = [encoded(b":method", method), encoded(b":scheme", scheme), encoded(b":authority", host), encoded(b":path", target)]
    get = _lines.get
    for line in lines[2:-2]:
        part = get(line)
        parts.append(_line(line) if part is None else part)
    parts.append(_TE)
    return b"".join(parts)


_TE: Final = encoded(b"te", b"trailers")  # we pass them on, whatever the client said


# A request for a WebSocket has these on HTTP/1.1 only (RFC 8441 §5).
_HANDSHAKE: Final = (b"sec-websocket-key", b"sec-websocket-accept")
_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 §1.3


def connect_block(head: bytes, scheme: bytes) -> bytes | None:
    """The block of an extended CONNECT that stands for an upgrade of ours; None where it is not to WebSocket."""
    lines = head.split(b"\r\n")
    if not any(line.lower() == b"upgrade: websocket" for line in lines):
        return None
    _, target, _ = lines[0].split(b" ")
    host = lines[1].partition(b":")[2].strip()
    pseudo = (
        (b":method", b"CONNECT"), (b":protocol", b"websocket"), (b":scheme", scheme), (b":authority", host), (b":path", target),
    )  # fmt: skip
    kept = [line for line in lines[2:-2] if line.partition(b":")[0].lower() not in _HANDSHAKE]
    return b"".join([encoded(*pair) for pair in pseudo] + [_line(line) for line in kept])


def websocket_accept(head: bytes) -> bytes:
    """What answers the key in a request for a WebSocket (RFC 6455 §4.2.2); empty where it has none."""
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"sec-websocket-key":
            return base64.b64encode(hashlib.sha1(value.strip() + _GUID, usedforsecurity=False).digest())
    return b""


def switched(response: Response, accept: bytes) -> Response:
    """What HTTP/1.1 calls an extended CONNECT that was granted: 101."""
    fields = [field for field in response.fields if field.kind in (PLAIN, FOLDED)]
    fields.append(Field(UPGRADE, b"upgrade", b"websocket", b"Upgrade: websocket"))
    if accept:
        fields.append(Field(PLAIN, b"sec-websocket-accept", accept, b"Sec-WebSocket-Accept: " + accept))
    return Response(101, b"Switching Protocols", False, fields)


def trailer_block(fields: Iterable[Field]) -> bytes:
    """The block of a trailer section."""
    return b"".join(_lines.get(field.line) or _line(field.line) for field in fields)
