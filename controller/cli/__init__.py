"""The command `fsm`. One file per command; this one puts them together."""

from __future__ import annotations

import sys


def main() -> None:
    """Entry point. Without what the control plane needs, says how to get it."""
    try:
        from controller.cli.app import app
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] in ("controller", "gateway"):
            raise
        sys.exit(f"fsm needs {error.name}, which a data plane does without: pip install 'fsm-gateway[controller]'")

    try:
        app()
    except KeyboardInterrupt:
        sys.exit(130)
