"""Prometheus metrics from the workers' statistics: counted in the workers, added up here when asked."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from gateway.filters.api.filter_metrics import OCTETS_OF_ALL, SERIES, Labels, shown
from gateway.process.messages import Statistics

SLOTS = range(14)  # 0.5 ms … 4 s; the rest counts as +Inf


class Supervision(NamedTuple):
    """How the workers are, as their parent sees it."""

    answering: int
    wanted: int
    restarts: Mapping[str, int]  # by reason
    set_aside: int

    def collect(self) -> Iterator[Metric]:
        """The families."""
        yield GaugeMetricFamily("fsm_workers", "Workers that serve and answer.", value=self.answering)
        yield GaugeMetricFamily("fsm_workers_wanted", "Workers that there should be.", value=self.wanted)
        family = CounterMetricFamily("fsm_worker_restarts", "Workers that were replaced, by reason.", labels=["reason"])
        for reason, count in self.restarts.items():
            family.add_metric([reason], count)
        yield family
        yield GaugeMetricFamily("fsm_parts_set_aside", "Parts that end workers and are not in force.", value=self.set_aside)


class Callers(NamedTuple):
    """The admin server's callers, as metrics."""

    listening: int
    let_go: int
    turned_away: int

    def collect(self) -> Iterator[Metric]:
        """The families."""
        yield GaugeMetricFamily("fsm_admin_streams", "Callers that follow changes.", value=self.listening)
        yield CounterMetricFamily(
            "fsm_admin_streams_refused", "Streams of changes that were one too many, or not read.", value=self.let_go
        )
        yield CounterMetricFamily(
            "fsm_admin_connections_dropped",
            "Connections to the admin server that gave way to newer ones.",
            value=self.turned_away,
        )


class Snapshot(Collector):
    """One answer of all workers, as metric families."""

    def __init__(self, workers: Iterable[Statistics], parent: Iterable[Supervision | Callers]) -> None:
        self._workers = list(workers)
        self._parent = parent

    def collect(self) -> Iterator[Metric]:
        """The families."""
        requests = CounterMetricFamily(
            "fsm_requests", "Responses, by rule, backend and class of status.", labels=["rule", "backend", "code"]
        )
        seconds = HistogramMetricFamily(
            "fsm_request_duration_seconds",
            "Seconds from a request's head to its response's end.",
            labels=["rule", "backend"],
        )
        for (rule, backend), (classes, slots, total) in self._added_up().items():
            for index, count in enumerate(classes):
                if index:
                    requests.add_metric([rule, backend, f"{index}xx"], count)
            running = 0
            buckets = []
            for slot in SLOTS:
                running += slots[slot]
                buckets.append((f"{2**slot * 0.0005:g}", running))
            buckets.append(("+Inf", sum(slots)))
            seconds.add_metric([rule, backend], buckets, total)
        for collector in self._parent:
            yield from collector.collect()
        yield requests
        yield seconds
        yield self._counter("fsm_requests_unmatched", "Requests that no rule took (404).", "unmatched")
        yield self._counter("fsm_requests_refused", "Requests that broke the protocol or a limit (4xx).", "refused")
        yield self._counter("fsm_connections_turned_away", "Client connections over a limit.", "turned_away")
        yield self._counter("fsm_connections_gated", "Client connections that a ListenerFilter did not let in.", "gated")
        yield self._counter("fsm_connections_unrouted", "Client connections whose server name nobody serves.", "unrouted")
        yield self._counter("fsm_datagrams_dropped", "Datagrams that no filter, limit or route let pass.", "dropped_datagrams")
        streams = CounterMetricFamily(
            "fsm_streams", "Connections of TCPRoutes and TLSRoutes, flows of UDPRoutes.", labels=["relay", "result"]
        )
        for relay, counts in self._relays().items():
            for result, count in zip(("accepted", "refused"), counts, strict=True):
                streams.add_metric([relay, result], count)
        yield streams
        yield from self._filters()
        yield from self._measured()
        yield self._gauge("fsm_streams_open", "Connections and flows that are passed on as bytes now.", "relayed")
        yield self._gauge("fsm_client_connections", "Client connections that are open.", "connections")
        yield from self._ejected()
        yield self._unconnected()
        yield self._refused_retries()
        yield self._gauge("fsm_tunnels", "Upgraded connections (WebSocket) that are open.", "tunnels")

    def _added_up(self) -> dict[tuple[str, str], tuple[list[int], list[int], float]]:
        result: dict[tuple[str, str], tuple[list[int], list[int], float]] = {}
        for worker in self._workers:
            for target in worker.targets:
                old = result.get((target.rule, target.backend), ([0] * 6, [0] * 32, 0.0))
                result[target.rule, target.backend] = (
                    [a + b for a, b in zip(old[0], target.classes, strict=True)],
                    [a + b for a, b in zip(old[1], target.slots, strict=True)],
                    old[2] + target.seconds,
                )
        return result

    def _filters(self) -> Iterator[Metric]:
        """One family for each thing that is counted of filters in Python."""
        for attribute, name, text in (
            ("calls", "fsm_filter_calls", "Calls of functions of filters in Python."),
            ("failures", "fsm_filter_failures", "Calls that raised, took too long, or returned what means nothing."),
            ("slow", "fsm_filter_slow", "Calls that kept a worker from everything else for more than 50 ms."),
        ):
            of_filters = (one for worker in self._workers for one in worker.filters)
            yield _summed(name, text, ["filter"], (((one.name,), getattr(one, attribute)) for one in of_filters))

    def _measured(self) -> Iterator[Metric]:
        """What filters measured themselves, added up; as much as each may show, however many workers there are."""
        sums: dict[tuple[str, str, str, Labels], list[float]] = {}
        left: dict[str, tuple[int, int]] = {}  # of each filter: octets, series
        dropped: Tally[str] = Tally()
        of_all = OCTETS_OF_ALL
        for worker in self._workers:
            for statistics in worker.filters:
                if statistics.dropped:
                    dropped[statistics.name] += statistics.dropped
                octets, series = left.get(statistics.name, (statistics.most, SERIES))
                for kind, name, labels, values in statistics.measures:
                    known = sums.get((statistics.name, kind, name, labels))
                    if known is not None:
                        sums[statistics.name, kind, name, labels] = [a + b for a, b in zip(known, values, strict=True)]
                        continue
                    size = shown(statistics.name, kind, name, labels)
                    if not series or size > octets or (statistics.most < OCTETS_OF_ALL and size > of_all):
                        dropped[statistics.name] += 1
                        continue
                    octets, series = octets - size, series - 1
                    of_all -= size if statistics.most < OCTETS_OF_ALL else 0
                    sums[statistics.name, kind, name, labels] = [*values]
                left[statistics.name] = octets, series
        yield from _families(sums)
        family = CounterMetricFamily(
            "fsm_filter_measures_dropped", "Things that filters measured under more names than are kept.", labels=["filter"]
        )
        for filter_name, count in dropped.items():
            family.add_metric([filter_name], count)
        yield family

    def _relays(self) -> dict[str, tuple[int, int]]:
        result: dict[str, tuple[int, int]] = {}
        for worker in self._workers:
            for statistics in worker.relays:
                accepted, refused = result.get(statistics.relay, (0, 0))
                result[statistics.relay] = (accepted + statistics.accepted, refused + statistics.refused)
        return result

    def _ejected(self) -> Iterator[Metric]:
        """Workers see for themselves: an endpoint that one of them has ejected counts."""
        seen = {endpoint for worker in self._workers for endpoint in worker.ejected}
        for name, text in (
            ("fsm_endpoints_ejected", "Endpoints that a worker has ejected."),
            ("fsm_endpoints_resting", "Deprecated: fsm_endpoints_ejected has its place, and it goes with the next release."),
        ):
            family = GaugeMetricFamily(name, text, labels=["backend"])
            for backend, count in Tally(backend for backend, _ in seen).items():
                family.add_metric([backend], count)
            yield family

    def _unconnected(self) -> Metric:
        text = "Connections to endpoints that could not be made, by reason: refused, timeout, name, tls, unreachable, fault."
        counted = (((backend, reason), count) for worker in self._workers for backend, reason, count in worker.unconnected)
        return _summed("fsm_backend_connect_failures", text, ["backend", "reason"], counted)

    def _refused_retries(self) -> Metric:
        text = "Retries that a retry budget refused (503), by the Service or XBackend."
        counted = (((backend,), count) for worker in self._workers for backend, count in worker.refused_retries)
        return _summed("fsm_retries_refused", text, ["backend"], counted)

    def _counter(self, name: str, text: str, attribute: str) -> Metric:
        return CounterMetricFamily(name, text, value=sum(getattr(worker, attribute) for worker in self._workers))

    def _gauge(self, name: str, text: str, attribute: str) -> Metric:
        return GaugeMetricFamily(name, text, value=sum(getattr(worker, attribute) for worker in self._workers))


def _summed(name: str, text: str, labels: list[str], counted: Iterable[tuple[tuple[str, ...], int]]) -> Metric:
    """A counter that the workers have counts of, by the values of its labels."""
    sums: Tally[tuple[str, ...]] = Tally()
    for values, count in counted:
        sums[values] += count
    family = CounterMetricFamily(name, text, labels=labels)
    for values, count in sums.items():
        family.add_metric(values, count)
    return family


def _families(sums: dict[tuple[str, str, str, Labels], list[float]]) -> Iterator[Metric]:
    """One for each name. One that is of several kinds has none: no filter hides what another one measures."""
    families: dict[str, Metric] = {}
    for (filter_name, kind, name, labels), values in sums.items():
        short = name.removesuffix("_total")
        metric = families.get(short)
        if metric is None:
            metric = families[short] = Metric(short, "Measured by a filter.", kind)
        elif metric.type != kind:
            metric.type = "unknown"
        _add(metric, kind, {"filter": filter_name, **dict(labels)}, values)
    yield from families.values()


def _add(metric: Metric, kind: str, labelled: dict[str, str], values: list[float]) -> None:
    name = metric.name
    if kind == "histogram":
        running = 0.0
        for slot in SLOTS:
            running += values[slot]
            metric.add_sample(f"{name}_bucket", {**labelled, "le": f"{2**slot * 0.0005:g}"}, running)
        metric.add_sample(f"{name}_bucket", {**labelled, "le": "+Inf"}, sum(values[:-1]))
        metric.add_sample(f"{name}_count", labelled, sum(values[:-1]))
        metric.add_sample(f"{name}_sum", labelled, values[-1])
    else:
        metric.add_sample(f"{name}_total" if kind == "counter" else name, labelled, values[0])


def exposition(workers: Iterable[Statistics], *parent: Supervision | Callers) -> bytes:
    """The text that Prometheus reads: of the workers, and of their parent."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Snapshot(workers, parent))
    return generate_latest(registry)
