"""The certificates of listeners, and those with which backends are spoken to: loaded anew only where one has changed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from gateway.snapshot import Backend as BackendPart
from gateway.snapshot import Certificate, Listener, Parts, Problem, key
from gateway.tls import contexts

# What a backend is offered to be spoken to in (RFC 7301). Whose bytes are passed on speaks what the client speaks.
_ALPN: Final = {"http": "http/1.1", "h2c": "h2", "tcp": "", "udp": ""}


class Certificates:
    """The TLS contexts of a worker, by the parts that they are made of."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._of_listeners: dict[str, tuple[object, list[contexts.Shown]]] = {}  # with what they were made of
        self._of_backends: dict[str, contexts.Security] = {}

    def forget_listener(self, name: str) -> None:
        """A listener is gone."""
        self._of_listeners.pop(name, None)

    def forget_backend(self, name: str) -> None:
        """What a backend is shown has changed."""
        self._of_backends.pop(name, None)

    def of_listeners(self, listeners: Sequence[Listener]) -> tuple[dict[str, Sequence[contexts.Shown]], list[Problem]]:
        """By hostname; and what is wrong with those that have none."""
        by_hostname: dict[str, Sequence[contexts.Shown]] = {}
        problems = []
        for listener in listeners:
            try:
                by_hostname[listener.hostname] = self._of_listener(listener)
            except ValueError as error:
                by_hostname[listener.hostname] = ()
                problems.append(Problem(listener.name, str(error)))
        return by_hostname, problems

    def _of_listener(self, listener: Listener) -> list[contexts.Shown]:
        """Raises ValueError for a certificate that is not known."""
        certificates: list[Certificate] = []
        for name in listener.certificates:
            certificate = self._parts.get(("certificate", name))
            if not isinstance(certificate, Certificate):
                raise ValueError(f"certificate {name} is not known")
            certificates.append(certificate)
        made_of = (tuple(certificates), listener)
        before = self._of_listeners.get(listener.name)
        if before is not None and before[0] == made_of:
            return before[1]
        # A TLSRoute's backend speaks what it likes: nothing is promised for it.
        protocols = contexts.ALPN if listener.protocol == "HTTPS" else ()
        shown = [
            contexts.Shown(frozenset(certificate.names), contexts.context(certificate, listener, protocols))
            for certificate in certificates
        ]
        self._of_listeners[listener.name] = (made_of, shown)
        return shown

    def of_backend(self, part: BackendPart) -> contexts.Security | None:
        """How to speak TLS to a backend; the same as before where nothing of that has changed, so that pools stay."""
        if part.tls is None:
            self._of_backends.pop(part.name, None)
            return None
        before = self._parts.get(key(part))
        certificate = self._parts.get(("certificate", part.tls.certificate))
        is_same = isinstance(before, BackendPart) and (before.tls, before.protocol) == (part.tls, part.protocol)
        if not is_same or part.name not in self._of_backends:
            if part.tls.certificate and not isinstance(certificate, Certificate):
                raise ValueError(f"certificate {part.tls.certificate} is not known")
            given = part.tls.own or (certificate if isinstance(certificate, Certificate) else None)
            security = contexts.towards(part.tls, given, _ALPN[part.protocol])
            self._of_backends[part.name] = security
        return self._of_backends[part.name]
