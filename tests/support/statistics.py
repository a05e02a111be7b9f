"""What data planes have counted."""

from __future__ import annotations


def weights(text: str, canary: int) -> str:
    head, _, tail = text.partition("weight: 100")
    return head + f"weight: {100 - canary}" + tail.replace("weight: 0", f"weight: {canary}")
