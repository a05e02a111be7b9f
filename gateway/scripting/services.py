"""What a worker gives a filter besides requests: an HTTP client, what is shared, metrics, secrets. One for each source.

An inline filter has these as they are; a confined one asks for them over its line.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from gateway.filters.api import HttpClient, Metrics, Reply, Shared
from gateway.filters.api.filter_metrics import Measured, Measures
from gateway.filters.api.http_client import Call
from gateway.filters.api.shared_state import Operation, SharedAnswer
from gateway.scripting import http_client
from gateway.scripting.shared_state.local import local
from gateway.scripting.shared_state.memory import Memory, create
from gateway.snapshot import Script, Store

if TYPE_CHECKING:
    from gateway.scripting.shared_state.redis import Remote


class FilterServices:
    """What one filter may use: HTTP, shared state, metrics."""

    def __init__(
        self,
        script: Script,
        reach: http_client.Reach,
        share: Callable[[Operation], SharedAnswer],
        measured: Callable[[Measured], None],
    ) -> None:
        self.script = script
        self.share = share
        self.measured = measured
        self._reach = reach

    async def fetch(self, call: Call) -> Reply:
        """Make a request for it."""
        return await http_client.send(call, self._reach, self.script.network)

    def inline(self) -> Mapping[str, Any]:
        """By the names under which `gateway.filters.api` has them."""
        return {
            "http": HttpClient(self.fetch),
            "shared": Shared(self.share),
            "metrics": Metrics(self.measured),
            "secrets": MappingProxyType(dict(self.script.secrets)),
        }


class ServiceFactory:
    """Where a worker's supplies come from: its view of the shared memory, and the stores that it speaks to."""

    def __init__(self, reach: http_client.Reach, memory: int | None, index: int, count: int) -> None:
        self._reach = reach
        self._descriptor = memory  # of the memory that all workers map; None where there is one worker only
        self._place = index, count
        self._memory: Memory | None = None
        self._remotes: dict[Store, Remote] = {}

    def memory(self) -> Memory:
        """The shared memory, mapped when somebody needs it."""
        if self._memory is None:
            self._memory = Memory(self._descriptor if self._descriptor is not None else create(), *self._place)
        return self._memory

    def supply(self, measures: Measures, script: Script) -> FilterServices:
        """The services of one source."""
        do = local(self.memory, script.name)
        if script.store is not None:
            do = self._remote(script.store).operations(script.name, do)
        return FilterServices(script, self._reach, do, measures.take)

    def _remote(self, store: Store) -> Remote:
        remote = self._remotes.get(store)
        if remote is None:
            from gateway.scripting.shared_state.redis import Remote  # a large library that most data planes do without

            remote = self._remotes[store] = Remote(store)
        return remote

    async def close(self) -> None:
        """Let go of everything."""
        for remote in self._remotes.values():
            await remote.close()
        if self._memory is not None:
            self._memory.close()


Supply = Callable[[Script], FilterServices]


def supplier(stock: ServiceFactory, measures: Measures) -> Supply:
    """Supplies for every source of one program."""
    return partial(stock.supply, measures)
