"""One replica writes: whoever holds the Lease. kubernetes_asyncio does the electing."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import aiohttp
from kubernetes_asyncio.client.exceptions import ApiException
from kubernetes_asyncio.leaderelection.electionconfig import Config
from kubernetes_asyncio.leaderelection.leaderelection import LeaderElection
from kubernetes_asyncio.leaderelection.resourcelock.leaselock import LeaseLock

from controller.deploy.install import LEASE

log = logging.getLogger("fsm.lease")

DURATION, RENEW, RETRY = 10, 7, 2  # seconds: a Lease is good for; to renew it within; between tries


async def lead(api_client: Any, namespace: str, identity: str, changed: Callable[[bool], None]) -> None:
    """Stand for election until cancelled; `changed` hears when this replica becomes the leader or stops being it."""
    leading: set[asyncio.Task[Any]] = set()

    async def started() -> None:
        task = asyncio.current_task()
        assert task is not None
        leading.add(task)
        log.info("%s leads", identity)
        changed(True)
        try:
            await asyncio.Event().wait()
        finally:
            leading.discard(task)
            changed(False)
            log.warning("%s leads no more", identity)

    async def stopped() -> None:
        """`started` says it."""

    while True:
        lock = LeaseLock(LEASE, namespace, identity, api_client)
        config = Config(
            lock, lease_duration=DURATION, renew_deadline=RENEW, retry_period=RETRY,
            onstarted_leading=started, onstopped_leading=stopped,
        )  # fmt: skip
        try:
            await LeaderElection(config).run()
        except (aiohttp.ClientError, ApiException, OSError, TimeoutError) as error:
            log.warning("the Lease cannot be renewed: %s", error)
            await asyncio.sleep(RETRY)
        finally:
            for task in list(leading):
                task.cancel()
