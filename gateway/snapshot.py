"""The contract between the control plane and the data plane: what one Gateway should do, as data.

A snapshot is a set of small named parts. Parts are frozen and comparable, so equality is the whole change
detector, and they serialise with msgspec, so the same values travel over a feed, a pipe or into a file.
Children name their parent (a rule names its listeners and backends); a parent never lists its children.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Literal, TypeAlias

import msgspec

from gateway.base.logs import whereto

Pair: TypeAlias = tuple[str, str]
Specificity: TypeAlias = tuple[int, int]  # see `Attachment.specificity`


class Struct(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """A frozen value; equal values are interchangeable."""


# --- matching ---------------------------------------------------------------------------------------------


class PathMatch(Struct, frozen=True):
    """`HTTPPathMatch`: kind is the Gateway API's type; Method is the last of two path elements, as gRPC has them."""

    kind: Literal["Exact", "PathPrefix", "RegularExpression", "Method"] = "PathPrefix"
    value: str = "/"


class ValueMatch(Struct, frozen=True):
    """A header or query parameter and the value it must have; a regular expression must match all of it."""

    name: str
    value: str
    regex: bool = False


class Match(Struct, frozen=True):
    """`HTTPRouteMatch`: every condition must hold."""

    path: PathMatch = PathMatch()
    method: str = ""
    headers: tuple[ValueMatch, ...] = ()
    query: tuple[ValueMatch, ...] = ()


# --- filters ----------------------------------------------------------------------------------------------


class RequestHeaders(Struct, frozen=True, tag="RequestHeaderModifier"):
    """Edit the request's fields: set, then add, then remove."""

    set: tuple[Pair, ...] = ()
    add: tuple[Pair, ...] = ()
    remove: tuple[str, ...] = ()


class ResponseHeaders(Struct, frozen=True, tag="ResponseHeaderModifier"):
    """Edit the response's fields: set, then add, then remove."""

    set: tuple[Pair, ...] = ()
    add: tuple[Pair, ...] = ()
    remove: tuple[str, ...] = ()


class PathEdit(Struct, frozen=True):
    """`HTTPPathModifier`: replace the whole path, or only the prefix that the rule matched."""

    kind: Literal["ReplaceFullPath", "ReplacePrefixMatch"]
    value: str


class Redirect(Struct, frozen=True, tag="RequestRedirect"):
    """Answer with a Location. Empty fields are taken from the request."""

    scheme: str = ""
    hostname: str = ""
    path: PathEdit | None = None
    port: int = 0
    status: int = 302


class Rewrite(Struct, frozen=True, tag="URLRewrite"):
    """Change Host or path on the way to the backend."""

    hostname: str = ""
    path: PathEdit | None = None


class Mirror(Struct, frozen=True, tag="RequestMirror"):
    """Send a copy of `numerator` out of `denominator` requests to a backend, and drop its answer."""

    backend: str
    numerator: int = 100
    denominator: int = 100


class Cors(Struct, frozen=True, tag="CORS"):
    """Answer preflights, and tell browsers what they may show to whom."""

    allow_origins: tuple[str, ...] = ()
    allow_credentials: bool = False
    allow_methods: tuple[str, ...] = ()
    allow_headers: tuple[str, ...] = ()
    expose_headers: tuple[str, ...] = ()
    max_age: int = 5


class ExternalAuth(Struct, frozen=True, tag="ExternalAuth"):
    """Ask a backend whether a request may pass."""

    backend: str
    protocol: Literal["HTTP", "GRPC"] = "HTTP"
    path: str = ""  # before the request's own path
    allowed_headers: tuple[str, ...] = ()  # of the request, that the backend sees
    allowed_response_headers: tuple[str, ...] = ()  # of the answer, that go into the request
    body_bytes: int = 0  # of the request, that the backend sees


class Fault(Struct, frozen=True, tag="Fault"):
    """A filter that could not be resolved: it answers with an error, never passes on."""

    status: int = 500
    reason: str = ""


class Scripted(Struct, frozen=True, tag="Script"):
    """A filter in Python: the name of its `Script`."""

    script: str


Filter: TypeAlias = RequestHeaders | ResponseHeaders | Redirect | Rewrite | Mirror | Cors | ExternalAuth | Scripted | Fault

# --- limits ---


class Limits(Struct, frozen=True):
    """What a client may ask of a listener. 0 means no limit. Connections are counted by each worker."""

    head_bytes: int = 65536  # a request's first line and fields: 431
    fields: int = 200  # header fields: 431
    target_bytes: int = 8192  # the request target: 414
    body_bytes: int = 0  # a request's body: 413; bodies are streamed, never held, so no limit is needed for safety
    connections: int = 50_000  # of the listener's port; more are closed at once
    connections_per_address: int = 0  # of one client address; off, as clients behind one NAT or balancer share theirs
    head_seconds: float = 10.0  # from a head's first byte to its last: 408
    body_seconds: float = 30.0  # how long a request's body may come more slowly than body_rate: 408
    body_rate: int = 240  # bytes a second
    idle_seconds: float = 75.0  # between two requests
    stall_seconds: float = 300.0  # without a byte either way while a response is due: 504
    requests_per_connection: int = 0
    streams: int = 100  # requests at a time on one HTTP/2 connection
    buffered_bytes: int = 65536  # of a body or of pipelined requests that wait their turn, each
    unsent_bytes: int = 48 << 20  # that clients have not taken, over all connections: who takes nothing is cut
    underscores: Literal["Allow", "Reject", "Drop"] = "Allow"  # names of fields that have one: 400 for Reject


DEFAULT_LIMITS = Limits()

# --- parts ------------------------------------------------------------------------------------------------


class Clients(Struct, frozen=True):
    """Clients must prove who they are with a certificate of these authorities, unless `optional`."""

    authorities: str  # PEM
    optional: bool = False


class Listener(Struct, frozen=True, tag="listener"):
    """A port that accepts connections, and the hostnames for which it does ("" for all)."""

    name: str
    port: int
    protocol: Literal["HTTP", "HTTPS", "TLS", "TCP", "UDP"] = "HTTP"
    hostname: str = ""
    certificates: tuple[str, ...] = ()
    limits: Limits = DEFAULT_LIMITS
    passthrough: bool = False  # TLS that is not terminated here
    clients: Clients | None = None
    minimum: str = ""  # TLS version, such as "1.3"
    ciphers: str = ""  # of TLS 1.2, as OpenSSL writes them
    filters: tuple[Scripted, ...] = ()  # that meet connections, and requests before a rule is chosen; of the whole port


class Certificate(Struct, frozen=True, tag="certificate"):
    """A PEM chain and its private key. The key is a secret: never log it, never serve it."""

    name: str
    chain: str
    key: str
    names: tuple[str, ...] = ()  # for which it is good: a listener with several certificates shows the one that fits

    def __repr__(self) -> str:
        return f"Certificate(name={self.name!r}, chain=…, key=…)"


class Store(Struct, frozen=True):
    """A Redis or Valkey in which filters keep what all replicas share. The password is a secret."""

    host: str
    port: int = 6379
    database: int = 0
    username: str = ""
    password: str = ""
    tls: bool = False
    authorities: str = ""  # PEM; empty for those of the system
    seconds: float = 0.2  # to answer

    def __repr__(self) -> str:
        return f"Store({self.host}:{self.port}/{self.database})"


class Script(Struct, frozen=True, tag="script"):
    """A filter's source and what it is given. `passes` says what happens where it fails: the request goes on without it."""

    name: str
    source: str
    config: str = "{}"  # JSON
    execution: Literal["process", "inline"] = "process"
    passes: bool = False
    seconds: float = 1.0  # that a call may take
    memory: int = 256 << 20  # bytes that its process may have
    built_in: str = ""  # in place of a source: a type that comes with the gateway
    network: tuple[str, ...] = ()  # HOST:PORT that it may call; "*" for all
    is_tried: bool = True  # inline: loaded and tested in a process of its own first
    secrets: tuple[Pair, ...] = ()  # by the name by which the filter knows them
    store: Store | None = None  # where it keeps what it shares; None for the memory of this data plane

    def __repr__(self) -> str:
        return f"Script(name={self.name!r}, built_in={self.built_in!r}, …)"


class Endpoint(Struct, frozen=True):
    """One address of a backend; `pod` names what answers there, where that is known."""

    address: str
    port: int
    pod: str = ""


class SubjectName(Struct, frozen=True):
    """`SubjectAltName`: a name of which a backend's certificate must have one."""

    kind: Literal["Hostname", "URI"]
    value: str


class BackendTLS(Struct, frozen=True):
    """How a backend is spoken to over TLS, and whom it must prove to be (`BackendTLSPolicy`)."""

    server_name: str  # SNI, and the name in the certificate where `names` is empty
    authorities: str = ""  # PEM; empty for those of the system
    names: tuple[SubjectName, ...] = ()
    certificate: str = ""  # the part with which we prove who we are
    own: Certificate | None = None  # the same, where it is for this backend only
    minimum: str = ""  # TLS version, such as "1.3"


class HealthMatch(Struct, frozen=True):
    """What a healthy endpoint answers: all of what is said."""

    statuses: tuple[int, ...] = ()
    body: str = ""  # somewhere in it
    headers: tuple[Pair, ...] = ()


class Health(Struct, frozen=True):
    """How to tell that an endpoint is well: by asking (`interval`), or by requests that find nobody."""

    interval: float = 0.0  # seconds; 0: nobody asks
    max_fails: int = 1
    fail_timeout: float = 5.0  # seconds that it stands aside where nobody asks
    path: str = ""  # empty: it takes connections
    matches: tuple[HealthMatch, ...] = ()


class RetryBudget(Struct, frozen=True):
    """`RetryConstraint` (GEP-3388): how much of what backends are sent may be sent again. Backends with one name share it."""

    name: str
    percent: int = 20  # of what was sent in the last `interval` seconds
    interval: float = 10.0
    count: int = 10  # that may be sent again in any case, every `seconds`
    seconds: float = 1.0


class Backend(Struct, frozen=True, tag="backend"):
    """A named set of endpoints. Empty means that nothing is ready: 503."""

    name: str
    endpoints: tuple[Endpoint, ...] = ()
    protocol: Literal["http", "h2c", "tcp", "udp"] = "http"
    tls: BackendTLS | None = None
    health: Health | None = None
    balance: Literal["RoundRobin", "LeastLoad"] = "RoundRobin"
    budget: RetryBudget | None = None


class Persistence(Struct, frozen=True):
    """`SessionPersistence`: by a header, or by a cookie."""

    header: str = ""
    cookie: str = ""
    path: str = "/"
    seconds: float = 0.0  # how long a session may last; 0 for as long as the client keeps it
    permanent: bool = False  # the cookie outlives the browser's session
    same_site: str = ""  # Strict, Lax or None; "" for nothing about it
    secure: bool | None = None  # None: where the listener is one of TLS
    domain: str = ""  # for which the cookie is; "" for the host that sets it


class Target(Struct, frozen=True):
    """A share of a rule's traffic. With `fault` set it answers that status instead (the reference is broken)."""

    weight: int = 1
    backend: str = ""
    filters: tuple[Filter, ...] = ()
    fault: int = 0
    reason: str = ""
    written: str = ""  # what a broken reference names; its counts go by it, as those of others by their backends
    hashed: bool = False  # a client's requests go to the same endpoint, by its address
    persistence: Persistence | None = None  # the backend's own: the rule's is not for it


class Timeouts(Struct, frozen=True):
    """Seconds; 0 means none."""

    request: float = 0.0
    backend_request: float = 0.0


NO_TIMEOUTS = Timeouts()


class Retry(Struct, frozen=True):
    """`HTTPRouteRetry`: which answers, besides none at all, are asked for again, how often, and after how many seconds."""

    codes: tuple[int, ...] = ()
    attempts: int = 1
    backoff: float = 0.0


class Attachment(Struct, frozen=True):
    """Where a rule applies: a listener, and one hostname of the intersection ("" for all)."""

    listener: str
    hostname: str = ""
    written: str | None = None  # what the route says, where that is another one: "*.example.com", or "" for nothing

    @property
    def specificity(self) -> Specificity:
        """By what the route itself says (HTTPRouteSpec.hostnames): less for a name than for a wildcard, and for a longer one;
        what says nothing comes last."""
        own = self.hostname if self.written is None else self.written
        return (0 if own and not own.startswith("*") else 1 if own else 2), -len(own)


class Order(Struct, frozen=True, array_like=True, order=True):
    """The Gateway API's tie-break, as one comparable value: oldest route, then namespace/name, then position.

    `since` is the route's creationTimestamp as text. It is a sort key and nothing else: a position in one
    list would change for every younger route whenever an older one appears.
    """

    since: str = ""
    route: str = ""
    index: int = 0


class Rule(Struct, frozen=True, tag="rule"):
    """One rule of a route: when it applies, what it does to the request, and where the request goes."""

    name: str
    order: Order
    at: tuple[Attachment, ...]
    matches: tuple[Match, ...] = (Match(),)
    filters: tuple[Filter, ...] = ()
    targets: tuple[Target, ...] = ()
    timeouts: Timeouts = NO_TIMEOUTS
    retry: Retry | None = None
    persistence: Persistence | None = None
    grpc: bool = False  # a GRPCRoute's: gRPC-Web is translated


class Relay(Struct, frozen=True, tag="relay"):
    """The rule of a TLSRoute, TCPRoute or UDPRoute: where connections or flows go. The hostname of TLS is the SNI."""

    name: str
    order: Order
    at: tuple[Attachment, ...]
    targets: tuple[Target, ...] = ()
    filters: tuple[Scripted, ...] = ()


Part: TypeAlias = Listener | Certificate | Script | Backend | Rule | Relay
Key: TypeAlias = tuple[str, str]
Parts: TypeAlias = dict[Key, Part]

# Dependencies first: a backend is known before the rule that needs it, a certificate before who shows it.
RANK = {"certificate": 0, "script": 0, "backend": 1, "listener": 2, "rule": 3, "relay": 3}


def key(part: Part) -> Key:
    """(kind, name): what identifies a part within its Gateway."""
    kind = part.__struct_config__.tag
    assert isinstance(kind, str)
    return kind, part.name


class Change(Struct, frozen=True):
    """What to put and what to drop to get from one snapshot to the next, named by the digest of the latter."""

    version: str = ""
    put: tuple[Part, ...] = ()
    drop: tuple[Key, ...] = ()
    reset: bool = False  # the change starts from nothing: whatever is not put is dropped


class Problem(Struct, frozen=True):
    """Something that a data plane could not do, and for which part."""

    part: str
    message: str


def difference(old: Mapping[Key, Part], new: Mapping[Key, Part], version: str = "") -> Change:
    """The change that turns `old` into `new`, dependencies first."""
    put = [part for k, part in new.items() if old.get(k) != part]
    put.sort(key=lambda part: RANK[key(part)[0]])
    return Change(version=version, put=tuple(put), drop=tuple(k for k in old if k not in new))


def apply(parts: Parts, change: Change) -> None:
    """Bring `parts` forward by one change, in place."""
    if change.reset:
        parts.clear()
    for k in change.drop:
        parts.pop(k, None)
    for part in change.put:
        parts[key(part)] = part


_encode = msgspec.msgpack.Encoder(order="deterministic").encode


def fingerprint(part: Part) -> int:
    """A 128-bit hash of one part."""
    return int.from_bytes(hashlib.blake2b(_encode(part), digest_size=16).digest(), "big")


def digest(fingerprints: Iterable[int]) -> str:
    """The name of a set of parts. A sum, so that one change costs one hash and the order does not matter."""
    return f"{sum(fingerprints) % 2**128:032x}"


def redacted(part: Part) -> Part:
    """The part as it may be shown: without private keys, nor what filters are configured with, which may be keys as well."""
    match part:
        case Certificate():
            return msgspec.structs.replace(part, key="(private key withheld)")
        case Script():
            return _without_secrets(part)
        case Backend(tls=BackendTLS(own=Certificate() as own) as tls):
            return msgspec.structs.replace(part, tls=msgspec.structs.replace(tls, own=redacted(own)))
        case _:
            return part


def _without_secrets(part: Script) -> Script:
    secrets = tuple((name, "(withheld)") for name, _ in part.secrets)
    store = msgspec.structs.replace(part.store, password="(withheld)") if part.store and part.store.password else part.store  # noqa: S106
    config = part.config
    if config != "{}":
        config = _without_keys(config) if part.built_in else '"(withheld)"'
    return msgspec.structs.replace(part, config=config, secrets=secrets, store=store)


def _without_keys(config: str) -> str:
    """What a kind of ours is configured with, but for what may be keys: fields that it sends, all of a URL but its host."""
    value = msgspec.json.decode(config)
    if isinstance(value.get("headers"), dict):
        value["headers"] = dict.fromkeys(value["headers"], "(withheld)")
    if "target" in value:
        value["target"] = whereto(str(value["target"]))
    return msgspec.json.encode(value).decode()
