"""What is counted on the request path, as Prometheus reads it."""

from __future__ import annotations

from gateway.messages import FilterStatistics, RelayStatistics, Statistics, TargetStatistics
from gateway.prepared import Counter
from gateway.telemetry.metrics import exposition


def test_responses_by_status_and_duration() -> None:
    counter = Counter()
    for hundreds, seconds in ((2, 0.0001), (2, 0.0004), (2, 0.0007), (5, 0.003), (3, 100.0)):
        counter.count(hundreds, seconds)
    assert counter.classes == [0, 0, 3, 1, 0, 1]
    assert counter.slots[:4] == [2, 1, 0, 1], "under 0.5, 1, 2 and 4 ms"
    target = TargetStatistics("ns/r/0", "ns/s:80", tuple(counter.classes), tuple(counter.slots), counter.seconds)
    text = exposition([Statistics(targets=(target,)), Statistics(targets=(target,))]).decode()
    assert 'fsm_requests_total{backend="ns/s:80",code="2xx",rule="ns/r/0"} 6.0' in text
    assert 'fsm_request_duration_seconds_bucket{backend="ns/s:80",le="0.001",rule="ns/r/0"} 6.0' in text
    assert 'fsm_request_duration_seconds_bucket{backend="ns/s:80",le="+Inf",rule="ns/r/0"} 10.0' in text


def test_what_was_not_served() -> None:
    text = exposition([Statistics(unmatched=1, refused=2, turned_away=3), Statistics(turned_away=4)]).decode()
    assert "fsm_requests_unmatched_total 1.0" in text
    assert "fsm_requests_refused_total 2.0" in text
    assert "fsm_connections_turned_away_total 7.0" in text


def test_streams() -> None:
    worker = Statistics(relays=(RelayStatistics("TCPRoute/ns/r/0", 3, 1),), relayed=2)
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
    workers = [Statistics(resting=(("ns/s:80", "10.0.0.1:80"),)), Statistics(resting=(("ns/s:80", "10.0.0.1:80"),))]
    assert 'fsm_endpoints_resting{backend="ns/s:80"} 1.0' in exposition(workers).decode()
