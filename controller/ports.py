"""Free ports that stay free until they are used.

A port that the kernel gives out (bind to 0) may be given to an outgoing connection the moment it is let go; ports
outside of the range for those are nobody's.
"""

from __future__ import annotations

import random
import socket
from pathlib import Path

RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")


def free_ports(count: int) -> list[int]:
    """Ports of the loopback address on which nobody listens."""
    found: set[int] = set()
    low = int(RANGE.read_text().split()[0]) if RANGE.exists() else 32768
    while len(found) < count:
        port = random.randrange(10000, max(low, 12000))  # noqa: S311  # not a secret
        try:
            with socket.create_server(("127.0.0.1", port)):
                found.add(port)
        except OSError:
            continue
    return list(found)
