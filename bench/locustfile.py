"""The user's view of a canary, for locust: every answer must show a version, and its share is counted.

    locust -f bench/locustfile.py --headless -u 20 -r 20 -t 30s --host http://127.0.0.1:8080

Prints the versions seen at the end. FSM_HOST sets the Host header (demo.example.com).
"""

from __future__ import annotations

import os
import re
from collections import Counter

from locust import FastHttpUser, constant_throughput, events, task

SEEN: Counter[str] = Counter()
VERSION = re.compile(r"ver: ([^\n<]+)")


class Visitor(FastHttpUser):
    """Ten requests a second, on one kept connection."""

    wait_time = constant_throughput(10)

    @task
    def callme(self) -> None:
        headers = {"Host": os.environ.get("FSM_HOST", "demo.example.com")}
        with self.client.get("/callme", headers=headers, catch_response=True) as answer:
            found = VERSION.search(answer.text or "")
            if answer.status_code != 200 or found is None:
                answer.failure(f"status {answer.status_code}, no version")
            else:
                SEEN[found.group(1).strip()] += 1


@events.quitting.add_listener
def report(environment: object, **_: object) -> None:
    total = sum(SEEN.values())
    for version, count in sorted(SEEN.items()):
        print(f"version {version}: {count} answers, {100 * count / total:.1f} %")
