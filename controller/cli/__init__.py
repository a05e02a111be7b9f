"""The command `fsm`. One file per command; this one puts them together."""

from __future__ import annotations

import sys


def main() -> None:
    """Entry point."""
    from controller.cli.app import app

    try:
        app()
    except KeyboardInterrupt:
        sys.exit(130)
