"""What filters print and log: with their name and level, and no more of it than a log has room for."""

from __future__ import annotations

import asyncio
import logging

import pytest

from gateway.base.logs import CHARACTERS_A_SECOND, FORMAT, LINES_A_SECOND, Bounded, LineAllowance, Printed
from gateway.process.worker import hear_filters
from gateway.scripting import loader


@pytest.fixture
def heard():
    """The logger of filters as a worker has it."""
    found = logging.getLogger("fsm.filter")
    before = found.level, found.propagate, list(found.handlers)
    yield found
    found.level, found.propagate, found.handlers = before


def test_an_inline_filter_is_heard_by_its_name(heard: logging.Logger, capsys: pytest.CaptureFixture[str]) -> None:
    hear_filters()
    loader.load("default/hello", """
from gateway.filters.api import log
print("printed", 1, sep="-", end="")
print("!")
log.warning("100% \\x1b[31mred")
log.debug("not heard")
def request(request): pass
""")  # fmt: skip
    said = [line.partition(" ")[2].partition(" ")[2] for line in capsys.readouterr().err.splitlines()]
    assert said == ["INFO fsm.filter.default/hello printed-1!", r"WARNING fsm.filter.default/hello 100% \x1b[31mred"]


async def test_what_is_left_out_is_counted(capsys: pytest.CaptureFixture[str]) -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter(FORMAT))
    handler.addFilter(Bounded(handler))
    logger = logging.Logger("fsm.filter.loud")
    quiet = logging.Logger("fsm.filter.quiet")
    for one in (logger, quiet):
        one.addHandler(handler)
    for number in range(LINES_A_SECOND + 900):
        logger.info("line %d", number)
    quiet.info("heard all the same")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == LINES_A_SECOND + 1
    assert lines[-1].endswith("INFO fsm.filter.quiet heard all the same")
    said = ""
    async with asyncio.timeout(10):
        while "left out" not in (said := capsys.readouterr().err):  # though nothing more is said
            await asyncio.sleep(0.01)
    assert f"WARNING fsm.filter.loud 900 more lines were left out: {LINES_A_SECOND} lines and 64 KiB a second" in said


def test_long_lines_are_bounded_as_well() -> None:
    left_out: list[int] = []
    allowance = LineAllowance(left_out.append)
    assert allowance.takes("x" * CHARACTERS_A_SECOND)
    assert not allowance.takes("x")


def test_lines_are_cut_where_they_end() -> None:
    lines: list[str] = []
    print("a", "b", file=Printed(lines.append))
    out = Printed(lines.append)
    print("c", end="", file=out)
    print("d\ne", file=out)
    assert lines == ["a b", "cd", "e"]
