"""Ask all questions about requests, or some of them, and print a table of bars and what was found.

python -m bench [QUESTION …] [--rounds 7] [--seconds 2] [--json FILE]
"""

from __future__ import annotations

import argparse
import os
import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import uvloop
from rich.console import Console
from rich.table import Table

from bench import rig
from bench.questions import QUESTIONS, Effort
from bench.rig import Row


def table(rows: list[Row], title: str) -> Table:
    """Bars and findings."""
    made = Table("question", "bar", "found", "", title=title, title_justify="left")
    for row in rows:
        mark = {True: "[green]reached", False: "[red]missed", None: ""}[row.reached]
        made.add_row(row.question, row.bar, row.found, mark)
    return made


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "system": platform.system(),
    }


def as_json(rows: list[Row]) -> dict[str, Any]:
    """Rows for machines."""
    return {"machine": machine(), "rows": [row.__dict__ for row in rows]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("questions", nargs="*", choices=[*QUESTIONS, []], metavar="QUESTION", help=", ".join(QUESTIONS))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rig.need("nginx", "haproxy", "caddy", "envoy", "wrk", "h2load", "taskset")
    console = Console(width=None if os.isatty(1) else 150)
    rows: list[Row] = []
    for name in arguments.questions or QUESTIONS:
        with console.status(name):
            found = uvloop.run(QUESTIONS[name](Effort(arguments.rounds, arguments.seconds)))
        for row in found:
            console.print(f"{row.question}: {row.found} ({row.bar})", highlight=False)
        rows += found
    console.print(table(rows, f"{arguments.rounds} interleaved rounds of {arguments.seconds:g} s"))
    rig.write(arguments.json, as_json(rows))


if __name__ == "__main__":
    main()
