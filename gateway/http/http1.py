"""HTTP/1.1 without I/O: heads in both directions, and how long their bodies are. Strict, by RFC 9110 and RFC 9112.

Whatever two parsers could read differently is refused, never repaired: that is what makes request smuggling
impossible. Nothing is forwarded that has not been validated; a field line is passed on as the bytes it came
in, the start line, Host and the hop-by-hop fields are always written anew.

What frames a message is written anew, whatever its sender wrote: `Content-Length: 010` goes on as `10`; for chunks see
`gateway.http.chunked`.

One compiled expression validates a whole head (about 1 µs for eleven fields); only then is it split. Lines
seen before are looked up instead of being split again, which is safe because the expression has passed them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple, TypeAlias

from gateway.http import paths
from gateway.snapshot import DEFAULT_LIMITS, Limits

LONG_HEAD: Final = 4096  # octets of a head that is too long to remember
MAX_INTERIM: Final = 100  # interim responses before one that is not; bytes of all of them
MAX_INTERIM_BYTES: Final = 65536

# Token and field-value (RFC 9110 §5.6.2, §5.5). Possessive, so that matching is linear in the input.
TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]++"
TOKEN_OCTETS = frozenset(bytes((octet,)) for octet in range(128) if re.fullmatch(TOKEN, bytes((octet,))))
_FIELDS = rb"(?:\r\n" + TOKEN + rb":[\t\x20-\x7e\x80-\xff]*+)*+"
# Origin-form: an absolute path of pchars (RFC 3986 §3.3) and of what browsers send beside them, which `paths` encodes; the
# query as browsers send it: any visible character but #.
_ORIGIN = rb"(/[A-Za-z0-9\-._~!$&'()*+,;=:@%/\[\]|^{}]*+)(?:\?([\x21\x22\x24-\x7e]*+))?+"
_LINE = rb"(" + TOKEN + rb") (?:" + _ORIGIN + rb"|([\x21-\x7e]++)) HTTP/1\.([01])"
_REQUEST_LINE = re.compile(_LINE)
_REQUEST = re.compile(_LINE + _FIELDS)
_TARGET = re.compile(_ORIGIN)
_RESPONSE = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9][0-9])((?: [\t\x20-\x7e\x80-\xff]*+)?+)" + _FIELDS)
_VERSION = re.compile(rb"[^ \r\n]+ [^ \r\n]+ HTTP/([0-9])\.([0-9])(?:\r\n|$)")
_ABSOLUTE = re.compile(rb"https?://([^/?]*)(.*)", re.IGNORECASE)
# uri-host [":" port] (RFC 3986 §3.2.2), with no userinfo.
_HOST = re.compile(rb"(?:\[[0-9A-Fa-f:.]+\]|(?:[A-Za-z0-9\-._~!$&'()*+,;=]|%[0-9A-Fa-f]{2})+)(?::([0-9]{0,5}))?")
# One coding of a Transfer-Encoding; none of those that are registered has parameters.
_CODING = re.compile(TOKEN)
FIELD_LINE = re.compile(TOKEN + rb":[\t\x20-\x7e\x80-\xff]*+")  # RFC 9112 §5


class ProtocolError(Exception):
    """The peer sent what HTTP forbids. `status` is the answer that a client deserves for it."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


class Field(NamedTuple):
    """One field line: what the proxy must know of it, its lower-case name, its value, and the line itself."""

    kind: int
    name: bytes
    value: bytes
    line: bytes


Edit: TypeAlias = Callable[[list[Field]], list[Field]]  # a new list; the given one stays as it is


# What a field means to a proxy. PLAIN ones pass unchanged. FOLDED and SHADOW: see `kind_of`.
(PLAIN, HOST, LENGTH, CODING, CONNECTION, HOP, UPGRADE, EXPECT, FORWARDED_FOR, FORWARDED, FOLDED, SHADOW) = range(12)
KIND: Final = {
    b"host": HOST,
    b"content-length": LENGTH,
    b"transfer-encoding": CODING,
    b"connection": CONNECTION,
    # Hop-by-hop fields that predate Connection options (RFC 9110 §7.6.1).
    b"keep-alive": HOP,
    b"proxy-connection": HOP,
    b"proxy-authenticate": HOP,
    b"proxy-authorization": HOP,
    b"te": HOP,
    b"http2-settings": HOP,
    b"upgrade": UPGRADE,
    b"expect": EXPECT,
    b"x-forwarded-for": FORWARDED_FOR,
    b"x-forwarded-proto": FORWARDED,
    b"x-forwarded-host": FORWARDED,
}
CHUNKED_FIELD: Final = Field(CODING, b"transfer-encoding", b"chunked", b"Transfer-Encoding: chunked")
_USUAL: Final = b"-0123456789abcdefghijklmnopqrstuvwxyz"


def fold(name: bytes) -> bytes:
    """What CGI and its kin (WSGI, PHP, Rack) tell of a lower-case name: all that is neither letter nor digit is one to them
    (RFC 3875 §4.1.18 for `-`; `_` becomes the same, and servers fold what is left in the same way)."""
    rest = name.translate(None, _USUAL)
    for octet in rest:
        name = name.replace(bytes((octet,)), b"-")
    return name


def kind_of(name: bytes) -> int:
    """The kind of a field by its lower-case name. A FOLDED one has a character besides letters, digits and `-`, which to some
    backends is the same name as another; a SHADOW is one that they take for a field of ours, and never goes on."""
    kind = KIND.get(name)
    if kind is not None:
        return kind
    if not name.translate(None, _USUAL):
        return PLAIN
    return SHADOW if fold(name) in KIND else FOLDED


# Fields that must not come as trailers: framing, routing, or trust depend on them (RFC 9110 §6.5.1).
NOT_A_TRAILER: Final = frozenset(KIND) | {b"authorization", b"cookie", b"set-cookie", b"content-encoding", b"trailer"}

CHUNKED: Final = -1  # a body that tells its own end
NO_LENGTH: Final = -2  # no framing field at all
BODILESS: Final = (204, 304)  # statuses of final responses that have no content, whatever they say (RFC 9110 §6.4.1)

# Lines seen before, and how many of each name: a name whose values never repeat is not worth remembering.
_lines: dict[bytes, Field] = {}
_variety: dict[bytes, int] = {}
LINES: Final = 8192
VARIETY: Final = 256


def canonical(field: Field) -> Field:
    """The field as it goes on: one that frames the message as everybody writes it, others as they came."""
    kind, name, value, line = field
    if kind == LENGTH:
        length = content_length(value)
        if length is not None:
            value = b"%d" % length
            return Field(LENGTH, name, value, b"%b: %b" % (line.partition(b":")[0], value))
    elif kind == CODING and value.lower() == b"chunked":
        return CHUNKED_FIELD
    elif kind == EXPECT and value.lower() == b"100-continue":
        return Field(EXPECT, name, value, b"Expect: 100-continue")
    return field


def field_of(line: bytes) -> Field:
    """Split a line that the head's expression has already validated."""
    name, _, value = line.partition(b":")
    lower = name.lower()
    field = canonical(Field(kind_of(lower), lower, value.strip(b" \t"), line))
    variety = _variety.get(lower, 0)
    if variety < VARIETY and len(line) < 512:
        if len(_lines) >= LINES:
            _lines.clear()
            _variety.clear()
        _variety[lower] = variety + 1
        _lines[line] = field
    return field


def _split(head: bytes, limits: Limits) -> list[Field]:
    lines = head.split(b"\r\n")
    if len(lines) > limits.fields + 1:
        raise ProtocolError(431, f"more than {limits.fields} header fields")
    get = _lines.get
    return [get(line) or field_of(line) for line in lines[1:]]


class Framing(NamedTuple):
    """How long the body is (octets, CHUNKED or NO_LENGTH), and the names that Connection lists, lower-case."""

    length: int
    options: frozenset[bytes]


_NO_OPTIONS: Final[frozenset[bytes]] = frozenset()
_NO_OPTION_OF_A_CONNECTION: Final = frozenset((b"content-length", b"transfer-encoding"))
_PLAIN_FRAMING: Final = Framing(NO_LENGTH, _NO_OPTIONS)


def content_length(value: bytes) -> int | None:
    """Octets, of a plain decimal number that is not absurd (RFC 9110 §8.6); None for anything else."""
    return int(value) if value.isdigit() and len(value) <= 18 else None


def framing(fields: Iterable[Field]) -> Framing:
    """Message body length by RFC 9112 §6.3, refusing every ambiguity that it mentions. PLAIN fields have no part in it.

    What frames a message stays with it, also where Connection lists it (RFC 9110 §7.6.1: no field for all recipients may be).
    """
    length = NO_LENGTH
    coding = None
    options = _NO_OPTIONS
    for kind, _, value, _ in fields:
        if kind == LENGTH:
            if length != NO_LENGTH:
                raise ProtocolError(400, "Content-Length is given more than once")
            number = content_length(value)
            if number is None:
                raise ProtocolError(400, "Content-Length is not a plain decimal number")
            length = number
        elif kind == CODING:
            if coding is not None:
                raise ProtocolError(400, "Transfer-Encoding is given more than once")
            coding = value.lower()
        elif kind == CONNECTION:
            options |= {option.strip(b" \t").lower() for option in value.split(b",")} - _NO_OPTION_OF_A_CONNECTION
    if coding is not None:
        if length != NO_LENGTH:
            raise ProtocolError(400, "Content-Length and Transfer-Encoding are both given")
        if coding != b"chunked":
            raise _coding_fault(coding)
        length = CHUNKED
    return Framing(length, options)


def _coding_fault(codings: bytes) -> ProtocolError:
    """RFC 9112 §6.3, case 4: 400 where chunked is not the last coding, as then nobody knows where the body ends; §6.1: 501
    for a coding before it that is not understood, and chunked is applied once."""
    names = [coding.strip(b" \t") for coding in codings.split(b",")]
    if not all(map(_CODING.fullmatch, names)):
        return ProtocolError(400, "Transfer-Encoding is not a list of codings without parameters")
    if names[-1] != b"chunked":
        return ProtocolError(400, "the last transfer coding is not chunked")
    if names.count(b"chunked") > 1:
        return ProtocolError(400, "chunked is given more than once in Transfer-Encoding")
    return ProtocolError(501, "the only transfer coding understood is chunked")


class Request:
    """A request's head. `path` is normalised, `target` is what goes to the backend: path and query."""

    __slots__ = (
        "fields", "host", "http10", "length", "method", "options", "path", "query", "special", "target", "upgrade",
    )  # fmt: skip

    def __init__(self, method: bytes, path: bytes, query: bytes | None, http10: bool, fields: list[Field]) -> None:
        self.method = method
        self.http10 = http10
        self.fields = fields
        self.special = [field for field in fields if field[0]]  # those that mean something to a proxy
        self.path, self.query, self.target = b"", b"", b""
        self.host = b""
        self.upgrade = b""
        self.length, self.options = framing(self.special)
        self.aim(path, query)

    def aim(self, path: bytes, query: bytes | None) -> None:
        """Set the target. Raises ProtocolError for a path that cannot be normalised."""
        if paths.may_be_written_otherwise(path):
            try:
                path = paths.normalise(path)
            except ValueError as error:
                raise ProtocolError(400, str(error)) from None
        self.path = path
        if query is None:
            self.query, self.target = b"", path
        else:
            self.query, self.target = query, b"%b?%b" % (path, query)

    def sift(self, limits: Limits) -> None:
        """Take away what a backend could take for another field. Raises ProtocolError."""
        if any(field[0] >= FOLDED for field in self.special):
            self.fields = sifted(self.fields, limits)
            self.special = [field for field in self.fields if field[0]]

    @property
    def keep_alive(self) -> bool:
        """Whether the client means to use the connection again (RFC 9112 §9.3)."""
        if self.http10:
            return b"keep-alive" in self.options and b"close" not in self.options
        return b"close" not in self.options

    def values(self, name: bytes) -> list[bytes]:
        """All values of one field, by lower-case name, in the order they came."""
        return [field.value for field in self.fields if field.name == name]

    def value(self, name: bytes) -> bytes | None:
        """The field's values joined by commas (RFC 9110 §5.3), or None where there is none."""
        values = self.values(name)
        return b",".join(values) if values else None

    def __repr__(self) -> str:
        return f"<Request {self.method.decode()} {self.host.decode()}{self.target.decode('latin-1')}>"


def parse_request(head: bytes, limits: Limits = DEFAULT_LIMITS) -> Request:
    """A request from the bytes before the empty line. Raises ProtocolError for anything not beyond doubt."""
    match = _REQUEST.fullmatch(head)
    if match is None:
        raise _request_fault(head)
    method, path, query, other, minor = match.groups()
    if len(head) > limits.target_bytes and match.start(5) - match.end(1) - 7 > limits.target_bytes:
        raise ProtocolError(414, f"the request target is longer than {limits.target_bytes} bytes")
    request = Request(method, path or b"", query, minor == b"0", _split(head, limits))
    host = None
    for kind, _, value, _ in request.special:
        if kind == HOST:
            # RFC 9112 §3.2: more than one Host, or an invalid one, is answered with 400.
            if host is not None:
                raise ProtocolError(400, "Host is given more than once")
            host = value
        elif kind == UPGRADE:
            request.upgrade = request.upgrade + b", " + value if request.upgrade else value
        elif kind == EXPECT and value.lower() != b"100-continue" and not request.http10:
            raise ProtocolError(417, "the only expectation understood is 100-continue")
    if path is None:
        host = _other_form(request, other, host)
    if host is None:
        if not request.http10:
            raise ProtocolError(400, "Host is missing")
        host = b""
    elif not is_host(host):
        raise ProtocolError(400, "Host is not a valid host and port")
    request.host = host
    if request.http10 and request.length == CHUNKED:
        # RFC 9112 §6.1: a transfer coding in an HTTP/1.0 message means its framing is faulty.
        raise ProtocolError(400, "Transfer-Encoding in an HTTP/1.0 request")
    request.sift(limits)
    return request


def sifted(fields: list[Field], limits: Limits) -> list[Field]:
    """The fields without those that a backend could take for another: SHADOW ones in any case, those with an underscore
    as the Gateway wants it. Raises ProtocolError."""
    how = limits.underscores
    if how == "Reject":
        for field in fields:
            if field.kind >= FOLDED and b"_" in field.name:
                raise ProtocolError(400, f"the name of a field has an underscore: {field.name.decode('latin-1')}")
    drops = how == "Drop"
    return [field for field in fields if field.kind != SHADOW and not (drops and field.kind == FOLDED and b"_" in field.name)]


def parse_line(line: bytes, host: bytes, limits: Limits) -> Request | None:
    """A request that has no fields but Host, from its first line; None for a line that deserves a closer look."""
    match = _REQUEST_LINE.fullmatch(line)
    if match is None or len(line) > limits.target_bytes:
        return None
    method, path, query, _, minor = match.groups()
    if path is None or minor == b"0" or method in (b"HEAD", b"CONNECT"):
        return None
    try:
        request = Request(method, path, query, False, [])
    except ProtocolError:
        return None
    request.host = host
    return request


def parse_target(target: bytes) -> tuple[bytes, bytes | None] | None:
    """Path and query of an origin-form target; None for anything else."""
    match = _TARGET.fullmatch(target)
    return None if match is None else (match.group(1), match.group(2))


def is_host(value: bytes) -> bool:
    """Whether a value is uri-host [":" port], with a port that exists (RFC 3986 §3.2.2)."""
    match = _HOST.fullmatch(value)
    return match is not None and int(match.group(1) or 0) < 65536


def request_start(method: bytes, target: bytes, host: bytes) -> bytes:
    """The first two lines of a request as it goes to a backend."""
    return b"%b %b HTTP/1.1\r\nHost: %b\r\n" % (method, target, host)


def _other_form(request: Request, target: bytes, host: bytes | None) -> bytes | None:
    """Absolute and asterisk form (RFC 9112 §3.2.2, §3.2.4); returns the host that counts."""
    if target == b"*" and request.method == b"OPTIONS":
        request.path = request.target = target
        return host
    if request.method == b"CONNECT":
        raise ProtocolError(501, "CONNECT is not supported")
    absolute = _ABSOLUTE.fullmatch(target)
    if absolute is None:
        raise ProtocolError(400, "the request target is neither a path nor a URL, or holds characters that neither may")
    authority, rest = absolute.groups()
    if host is not None and host.lower() != authority.lower():
        raise ProtocolError(400, "Host differs from the request target's authority")
    origin = _TARGET.fullmatch(rest if rest[:1] == b"/" else b"/" + rest)
    if origin is None:
        raise ProtocolError(400, "the request target's path holds characters that it may not")
    request.aim(*origin.groups())
    return bytes(authority)


def _request_fault(head: bytes) -> ProtocolError:
    """Say what is wrong with a head that the expression refused."""
    line, _, rest = head.partition(b"\r\n")
    return request_line_fault(line) or ProtocolError(400, _field_fault(rest))


def request_line_fault(line: bytes) -> ProtocolError | None:
    """What is wrong with a request line; None where nothing is."""
    version = _VERSION.match(line)
    if version and (version.group(1) != b"1" or version.group(2) not in b"01"):
        return ProtocolError(505, "only HTTP/1.0 and HTTP/1.1 are spoken here")
    return ProtocolError(400, _line_fault(line)) if not _REQUEST_LINE.fullmatch(line) else None


def _line_fault(line: bytes) -> str:
    words = line.split(b" ")
    if b"\n" in line or b"\r" in line:
        return "malformed request line: a bare CR or LF"
    if len(words) == 2:
        return "malformed request line: no HTTP version (HTTP/0.9 is not spoken here)"
    if len(words) != 3:
        return "malformed request line: not three words with one space between them"
    if not re.fullmatch(TOKEN, words[0]):
        return "malformed request line: the method is not a token"
    if not _VERSION.match(line):
        return "malformed request line: the version is not HTTP/ and two digits"
    return "malformed request line: the target holds characters that it may not"


def _field_fault(block: bytes) -> str:
    if re.search(rb"(?<!\r)\n|\r(?!\n)", block):
        return "a bare CR or LF in the header section"
    for number, line in enumerate(block.split(b"\r\n"), 1):
        if not FIELD_LINE.fullmatch(line):
            if line[:1] in (b" ", b"\t"):
                return f"field line {number} is folded (obs-fold)"
            return f"field line {number} is malformed"
    return "malformed header section"


class Response:
    """A response's head: the status, how its body ends, and its fields."""

    __slots__ = ("fields", "http10", "length", "options", "reason", "status")

    def __init__(self, status: int, reason: bytes, http10: bool, fields: list[Field]) -> None:
        self.status = status
        self.reason = reason
        self.http10 = http10
        self.fields = fields
        self.length, self.options = framing(fields)

    @property
    def keep_alive(self) -> bool:
        """Whether the server will take another request on this connection."""
        if self.http10:
            return b"keep-alive" in self.options
        return b"close" not in self.options


def parse_response(head: bytes) -> Response:
    """A response from the bytes before the empty line. Raises ProtocolError(502) for anything doubtful."""
    match = _RESPONSE.fullmatch(head)
    if match is None:
        raise ProtocolError(502, "the backend sent a malformed response head")
    try:
        response = Response(int(match.group(2)), match.group(3).strip(), match.group(1) == b"0", _split(head, DEFAULT_LIMITS))
        if response.http10 and response.length == CHUNKED:
            raise ProtocolError(502, "Transfer-Encoding in an HTTP/1.0 response")  # RFC 9112 §6.1: its framing is faulty
    except ProtocolError as error:
        raise ProtocolError(502, f"the backend's response: {error.reason}") from None
    return response


class Interim:
    """Counts interim responses to one request: any number is allowed (RFC 9110 §15.2), but not any amount of work for us."""

    __slots__ = ("_bytes", "_number")

    def __init__(self) -> None:
        self._number = 0
        self._bytes = 0

    def count(self, size: int) -> None:
        """One more, of so many bytes. Raises ProtocolError for one too many."""
        self._number += 1
        self._bytes += size
        if self._number > MAX_INTERIM or self._bytes > MAX_INTERIM_BYTES:
            raise ProtocolError(502, "the backend sends one interim response after another")


_lengths: dict[bytes, int] = {}


def length_behind(head: bytes) -> int:
    """How long the content is that follows a request's head of ours."""
    length = _lengths.get(head)
    if length is None:
        length = NO_LENGTH
        for line in head.split(b"\r\n")[2:-2]:
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
            elif name.lower() == b"transfer-encoding":
                length = CHUNKED
        if len(head) < LONG_HEAD:
            if len(_lengths) >= 1024:
                _lengths.clear()
            _lengths[head] = length
    return length
