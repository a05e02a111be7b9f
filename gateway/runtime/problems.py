"""What cannot be put into force is a problem of a part, and of that part alone."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from gateway.snapshot import Problem

log = logging.getLogger("fsm.worker")


@contextmanager
def blamed(problems: list[Problem], whom: str | Callable[[], list[str]]) -> Iterator[None]:
    """What is raised here is a problem of these parts. ValueErrors are about what was configured; others are our own faults."""
    try:
        yield
    except Exception as error:
        words = str(error)
        names = [whom] if isinstance(whom, str) else whom()
        if not isinstance(error, ValueError):
            log.exception("%s cannot be put into force", ", ".join(names))
            words = f"the gateway fails at it ({type(error).__name__}: {error}); what was in force before stays where it can"
        problems += [Problem(name, words) for name in names]
