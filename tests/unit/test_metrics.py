"""What is counted on the request path, as Prometheus reads it."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from gateway.filters.api.filter_metrics import BUCKETS, OCTETS, OCTETS_OF_ALL, shown
from gateway.process.messages import FilterStatistics, RelayStatistics, Statistics, TargetStatistics
from gateway.process.metrics import exposition
from gateway.proxy.route import Counter


def test_responses_by_status_and_duration() -> None:
    counter = Counter()
    for status_class, seconds in ((2, 0.0001), (2, 0.0004), (2, 0.0007), (5, 0.003), (3, 100.0)):
        counter.count(status_class, seconds)
    assert counter.classes == [0, 0, 3, 1, 0, 1]
    assert counter.slots[:4] == [2, 1, 0, 1], "under 0.5, 1, 2 and 4 ms"
    target = TargetStatistics("ns/r/0", "ns/s:80", tuple(counter.classes), tuple(counter.slots), counter.seconds)
    text = exposition([Statistics(targets=(target,)), Statistics(targets=(target,))]).decode()
    assert 'fsm_requests_total{backend="ns/s:80",code="2xx",rule="ns/r/0"} 6.0' in text
    assert 'fsm_request_duration_seconds_bucket{backend="ns/s:80",le="0.001",rule="ns/r/0"} 6.0' in text
    assert 'fsm_request_duration_seconds_bucket{backend="ns/s:80",le="+Inf",rule="ns/r/0"} 10.0' in text


def test_what_was_not_served() -> None:
    text = exposition(
        [Statistics(unmatched=1, refused=2, turned_away=3, gated=3, unrouted=2, dropped_datagrams=1), Statistics(turned_away=4)]
    ).decode()
    assert "fsm_requests_unmatched_total 1.0" in text
    assert "fsm_requests_refused_total 2.0" in text
    assert "fsm_connections_turned_away_total 7.0" in text
    assert "fsm_connections_gated_total 3.0" in text
    assert "fsm_connections_unrouted_total 2.0" in text
    assert "fsm_datagrams_dropped_total 1.0" in text


def test_retries_that_a_budget_refused() -> None:
    workers = [
        Statistics(refused_retries=(("Service/ns/s", 2), ("Service/ns/t", 0))),
        Statistics(refused_retries=(("Service/ns/s", 3),)),
    ]
    text = exposition(workers).decode()
    assert 'fsm_retries_refused_total{backend="Service/ns/s"} 5.0' in text
    assert 'fsm_retries_refused_total{backend="Service/ns/t"} 0.0' in text


def test_streams() -> None:
    worker = Statistics(
        relays=(
            RelayStatistics("TCPRoute/ns/r/0", "ns/a:1", 2, 1),
            RelayStatistics("TCPRoute/ns/r/0", "ns/b:1", 1, 0),
        ),
        relayed=2,
    )
    text = exposition([worker, worker]).decode()
    assert 'fsm_streams_total{relay="TCPRoute/ns/r/0",result="accepted"} 6.0' in text
    assert 'fsm_streams_total{relay="TCPRoute/ns/r/0",result="refused"} 2.0' in text
    assert "fsm_streams_open 4.0" in text


def test_filters() -> None:
    worker = Statistics(filters=(FilterStatistics("default/hello", 7, 2, 1, "line 3: ValueError"),))
    text = exposition([worker, worker]).decode()
    assert 'fsm_filter_calls_total{filter="default/hello"} 14.0' in text
    assert 'fsm_filter_failures_total{filter="default/hello"} 4.0' in text
    assert 'fsm_filter_slow_total{filter="default/hello"} 2.0' in text


def test_endpoints_that_stand_aside_for_a_worker_count_once() -> None:
    workers = [Statistics(ejected=(("ns/s:80", "10.0.0.1:80"),)), Statistics(ejected=(("ns/s:80", "10.0.0.1:80"),))]
    assert 'fsm_endpoints_ejected{backend="ns/s:80"} 1.0' in exposition(workers).decode()
    assert 'fsm_endpoints_resting{backend="ns/s:80"} 1.0' in exposition(workers).decode()  # for one more release


def measured(name: str, *series: tuple[str, str, tuple[tuple[str, str], ...], tuple[float, ...]]) -> FilterStatistics:
    return FilterStatistics(name, 0, 0, 0, measures=series)


def test_what_filters_measured_is_added_up_over_workers() -> None:
    worker = Statistics(filters=(measured("a", ("counter", "n_total", (("kind", "x"),), (2.0,))),))
    assert 'n_total{filter="a",kind="x"} 4.0' in exposition([worker, worker]).decode()


def test_no_filter_hides_what_another_measures() -> None:
    """Under one name in several kinds, the name has no kind; every sample is there."""
    one, other = measured("a", ("gauge", "logins", (), (1.0,))), measured("b", ("counter", "logins_total", (), (2.0,)))
    text = exposition([Statistics(filters=(one, other))]).decode()
    assert "# TYPE logins untyped" in text
    assert 'logins{filter="a"} 1.0' in text
    assert 'logins_total{filter="b"} 2.0' in text


def test_what_filters_measured_is_bounded_over_workers_and_over_filters() -> None:
    """Each worker keeps to its bound; names of which every worker has others do not get round it, nor do many filters."""

    def worker(index: int, name: str) -> Statistics:
        return Statistics(
            filters=(measured(name, *(("gauge", f"g{index}_{n}", (("l", "x" * 100),), (1.0,)) for n in range(150))),)
        )

    empty = len(exposition([Statistics()]))
    of_one = exposition([worker(index, "a") for index in range(16)])
    assert OCTETS / 2 < len(of_one) - empty < OCTETS * 1.1
    assert b'fsm_filter_measures_dropped_total{filter="a"}' in of_one
    of_all = exposition([worker(index, f"f{index}") for index in range(100)])
    assert OCTETS_OF_ALL / 2 < len(of_all) - empty < OCTETS_OF_ALL * 1.1


@given(
    st.sampled_from(["counter", "gauge", "histogram"]),
    st.from_regex(re.compile(r"[a-z_][a-z0-9_]{0,99}", re.ASCII), fullmatch=True),
    st.dictionaries(
        st.from_regex(re.compile("[A-Za-z_][A-Za-z0-9_]{0,63}", re.ASCII), fullmatch=True), st.text(max_size=200), max_size=16
    ),
)
def test_a_series_takes_no_more_room_than_was_reckoned(kind: str, name: str, labels: dict[str, str]) -> None:
    values = tuple([1e18] * (BUCKETS + 1) if kind == "histogram" else [1e18])
    series = (kind, name, tuple(sorted(labels.items())), values)
    without, with_it = (
        len(exposition([Statistics(filters=(measured("ns/filter", *measures),))])) for measures in ((), (series,))
    )
    taken = with_it - without
    assert taken <= shown("ns/filter", *series[:3])
