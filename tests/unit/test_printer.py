"""What `fsm run` tells: each thing once, its end, many of a kind as one."""

from __future__ import annotations

import pytest

from controller.cli.printer import MAX_TOLD, Printer, summed
from controller.inspect.complaints import Complaint
from controller.objects.base import Ref
from controller.objects.documents import DocumentFault
from controller.standalone.gateway import Summary
from gateway.snapshot import Listener, Problem


def complaint(name: str, message: str = "is wrong", reason: str = "ResolvedRefs BackendNotFound") -> Complaint:
    ref = Ref("HTTPRoute", "default", name)
    return Complaint(ref, str(ref), ("spec", "rules", 0), message, reason)


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]):
    return lambda: capsys.readouterr().err.splitlines()


def test_complaints_come_and_go(said) -> None:
    printer = Printer()
    a, b = complaint("a"), complaint("b")
    printer.complaints([a])
    assert said() == ["HTTPRoute default/a: spec.rules[0]: is wrong"]
    printer.complaints([a, b])
    assert said() == ["HTTPRoute default/b: spec.rules[0]: is wrong"]
    printer.complaints([a, b])
    assert said() == []
    printer.complaints([a._replace(message="is wrong otherwise"), b])
    assert said() == ["HTTPRoute default/a: spec.rules[0]: is wrong otherwise"], "the same field: that is no end"
    printer.complaints([b])
    assert said() == ["no longer: HTTPRoute default/a: spec.rules[0]: is wrong otherwise"]
    printer.complaints([a, b])
    assert said() == ["HTTPRoute default/a: spec.rules[0]: is wrong"], "it has come back"


def test_faults_come_and_go(said) -> None:
    printer = Printer()
    one, two = (DocumentFault("f.yaml", line, "is wrong; be right", f"HTTPRoute default/{line}", "spec") for line in (1, 2))
    printer.faults([one, two])
    assert said() == [str(one), str(two)]
    printer.faults([two])
    assert said() == ["no longer: HTTPRoute default/1: spec: is wrong"]
    printer.faults([])
    assert said() == ["all files are good again"]


def test_problems_come_and_go(said) -> None:
    printer = Printer()
    problem = Problem("default/f", "default/f, line 3: ValueError: x")
    printer.problems((problem,))
    printer.problems((problem,))
    assert said() == ["default/f is not in force: line 3: ValueError: x"]
    printer.problems(())
    assert said() == ["no longer: default/f is not in force"]


def test_no_flood_of_one_kind_nor_of_many(said) -> None:
    printer = Printer(where="./here")
    printer.complaints([complaint(f"r{number}") for number in range(1000)])
    assert said() == [
        "HTTPRoute default/r0: spec.rules[0]: is wrong (and 999 more of this kind)",
        "fsm validate ./here tells all of them",
    ]
    kinds = [complaint(f"s{number}", reason=f"Accepted Reason{number}") for number in range(50)]
    printer.complaints([complaint(f"r{number}") for number in range(1000)] + kinds)
    told = said()
    assert len(told) == MAX_TOLD + 2
    assert told[-2] == f"and {50 - MAX_TOLD} more of other kinds"
    faults = [
        DocumentFault(f"{n}.yaml", 1, f'found "x{n}"; a number is needed', f"HTTPRoute default/r{n}", f"spec.rules[{n}]")
        for n in range(100)
    ]
    printer.faults(faults)
    assert (
        said()[0] == '0.yaml:1: HTTPRoute default/r0: spec.rules[0]: found "x0"; a number is needed (and 99 more of this kind)'
    )


def test_few_of_a_kind_are_told_one_by_one() -> None:
    assert summed(["a", "b", "a"]) == [(0, 0), (1, 0), (2, 0)]
    assert summed(["a"] * 3 + ["b"] + ["a"] * 3) == [(0, 5), (3, 0)]


HTTP, OTHER = Listener("a", 80), Listener("b", 80, hostname="b.example")


@pytest.mark.parametrize(
    ("routes", "listeners", "line"),
    [
        (1, (HTTP,), "1 route on 1 listener at http://127.0.0.1:8080"),
        (3, (HTTP, OTHER), "3 routes on 2 listeners at http://127.0.0.1:8080"),
        (0, (HTTP, Listener("c", 443, "HTTPS")), "0 routes on 2 listeners at http://127.0.0.1:8080, https://127.0.0.1:8443"),
        (1, (Listener("d", 53, "UDP"), Listener("e", 53, "TCP")), "1 route on 2 listeners at udp://127.0.0.1:8053, tcp://127.0.0.1:8053"),
        (1, tuple(Listener(f"l{n}", 1000 + n) for n in range(9)), ", http://127.0.0.1:9004 and 4 more"),
        (0, (), "nothing is served: there is no valid listener yet, and the files are followed until there is"),
    ],
)  # fmt: skip
def test_what_is_served_in_a_line(said, routes: int, listeners: tuple[Listener, ...], line: str) -> None:
    Printer(8000 if routes or listeners else 0).begin(None, Summary(routes, listeners))
    [found] = said()
    assert found.endswith(line)


def test_an_ipv6_address_in_a_url(said) -> None:
    Printer(host="::1").begin(None, Summary(1, (HTTP,)))
    assert said() == ["1 route on 1 listener at http://[::1]:80"]
