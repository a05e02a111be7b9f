"""The backends of a worker, and the addresses that they share: endpoints change in place."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from gateway.base.clock import Clock
from gateway.interfaces import Endpoint
from gateway.runtime.certificates import Certificates
from gateway.scripting.shared_state.memory import Memory
from gateway.snapshot import Backend as BackendPart
from gateway.snapshot import RetryBudget
from gateway.tls.contexts import Security
from gateway.transport.turns import Turns
from gateway.upstream.backend import Backend
from gateway.upstream.health_checks import Checks
from gateway.upstream.pools import Address, Pools
from gateway.upstream.retry_budget import RetryAllowance


class Backends:
    """Backends by name, with the pools of connections to their endpoints."""

    def __init__(self, clock: Clock, turns: Turns, certificates: Certificates, memory: Callable[[], Memory]) -> None:
        self.pools = Pools(clock, turns)
        self._certificates = certificates
        self._memory = memory  # that workers share
        self._budgets: dict[str, RetryAllowance] = {}
        self._backends: dict[str, Backend] = {}
        self._addresses: Counter[Address] = Counter()  # how many backends have one
        self._reached: dict[str, tuple[Address, ...]] = {}  # by backend

    def get(self, name: str) -> Backend:
        """The backend of a name; one that nothing is known of yet has no endpoints."""
        backend = self._backends.get(name)
        if backend is None:
            backend = self._backends[name] = Backend(name)
        return backend

    def put(self, part: BackendPart) -> None:
        """Put a backend's endpoints into force; an address that no backend has any more takes its connections along."""
        backend = self.get(part.name)
        is_http2 = part.protocol == "h2c"
        security = self._certificates.of_backend(part)
        new = tuple(Address(e.address, e.port, is_http2, security) for e in part.endpoints)
        self._addresses.update(new)
        backend.endpoints.set([self.pools.get(address) for address in new])
        backend.endpoints.prefer(_load if part.balance == "LeastLoad" else None)
        self._check(backend, part)
        self._limit_retries(backend, part.budget)
        before, self._reached[part.name] = self._reached.get(part.name, ()), new
        for address in before:
            self._addresses[address] -= 1
            if not self._addresses[address]:
                del self._addresses[address]
                self.pools.retire(address)

    def _check(self, backend: Backend, part: BackendPart) -> None:
        """Have the health of its endpoints looked at, as it says."""
        if backend.checks is not None and backend.checks.health != part.health:
            backend.checks.stop()
            backend.checks = None
        if part.health is not None:
            if backend.checks is None:
                backend.checks = Checks(part.health, backend.endpoints)
            backend.checks.follow(backend.endpoints)

    def _limit_retries(self, backend: Backend, spec: RetryBudget | None) -> None:
        """Have what is sent to it counted, where only so much may be sent again; backends of one budget together."""
        before = backend.budget
        if spec is None and before is None:
            return
        backend.budget = None
        if spec is not None:
            found = self._budgets.get(spec.name)
            if found is None:
                found = self._budgets[spec.name] = RetryAllowance(spec, self._take_retry)
            elif found.spec != spec:
                found.follow(spec)
            backend.budget = found
        backend.endpoints.count(backend.budget.count if backend.budget is not None else None)
        if before is None or before is backend.budget:
            return
        if all(other.budget is not before for other in self._backends.values()):
            self._budgets.pop(before.spec.name, None)

    def _take_retry(self, spec: RetryBudget) -> bool:
        """A turn of the minimum rate of retries, among all workers."""
        return self._memory().take(b"\0retries\0" + spec.name.encode(), spec.seconds / spec.count, spec.count, 0) is not None

    def refused_retries(self) -> tuple[tuple[str, int], ...]:
        """How many retries were refused, by budget."""
        return tuple((name, budget.refused) for name, budget in self._budgets.items())

    def reach(self, host: str, port: int, security: Security | None) -> Endpoint:
        """The connections to a host that a filter asks."""
        return self.pools.get(Address(host, port, False, security))

    def failures(self) -> tuple[tuple[str, str, int], ...]:
        """How many attempts to connect have failed: backend, reason, count."""
        return tuple((name, reason, n) for name, backend in self._backends.items() for reason, n in backend.failures.items())

    def ejected(self) -> tuple[tuple[str, str], ...]:
        """Endpoints that were ejected, with their backends."""
        return tuple(
            (name, "{}:{}".format(*endpoint.where))
            for name, backend in self._backends.items()
            for endpoint in backend.endpoints.ejected
        )

    def stop_checks(self) -> None:
        """Look after the health of endpoints no more."""
        for backend in self._backends.values():
            if backend.checks is not None:
                backend.checks.stop()


def _load(endpoint: Endpoint) -> int:
    return endpoint.load
