"""The data plane's process: workers, the feed that tells them what to do, and the admin server.

python -m gateway --gateway default/simple-fsm-gateway --feed https://fsm-controller.fsm-system.svc:9443
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import socket
import time
from pathlib import Path

import uvloop

from gateway.admin.feed import Feed, FeedSource
from gateway.admin.server import Admin
from gateway.base import logs
from gateway.base.privacy import keep_to_yourself
from gateway.process.supervisor import Workers
from gateway.snapshot import Change, Problem, key

log = logging.getLogger("fsm")
ANEW = 5.0  # seconds before the feed is followed again after a fault of ours


def arguments() -> argparse.Namespace:
    """The command line; each option can come from the environment."""
    parser = argparse.ArgumentParser(prog="python -m gateway", description=__doc__)
    option = parser.add_argument
    option("--gateway", required=True, help="namespace/name of the Gateway to serve")
    option("--feed", required=True, help="the controller's feed, as https://host:port")
    option("--token-file", type=Path, help="a bearer token that proves who this is")
    option("--authority", default=os.environ.get("FSM_FEED_CA", ""), help="the feed's CA, as PEM (FSM_FEED_CA)")
    option("--cache", type=Path, help="a file to keep the last good snapshot in")
    option("--workers", type=int, default=1, help="processes that serve")
    option("--bind", default="", help="the address to listen on; empty for all")
    option("--admin", default="0.0.0.0:9091", help="host:port of health, metrics and the page")
    option("--drain-delay", type=float, default=5.0, help="seconds to serve on after SIGTERM, until nobody sends here")
    option("--drain-grace", type=float, default=25.0, help="seconds that requests may take to finish after that")
    return parser.parse_args()


async def run(options: argparse.Namespace) -> None:
    """Until SIGTERM."""
    stop = asyncio.Event()
    for name in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(name, stop.set)
    try:
        source = FeedSource(options.feed, options.gateway, token=options.token_file, authority=options.authority)
    except ValueError as error:
        raise SystemExit(f"--feed: {error}") from None
    workers = Workers(options.workers, bind=options.bind)
    admin = Admin(workers)
    host, _, port = options.admin.rpartition(":")
    await admin.start(host, int(port))  # first: whether there is a worker yet is what health says

    async def put(change: Change) -> tuple[Problem, ...]:
        started = time.perf_counter()
        problems = await workers.apply(change)
        names = tuple(f"{kind} {name}" for kind, name in (*map(key, change.put), *change.drop))
        admin.applied(change.version, names, time.perf_counter() - started)
        for problem in problems:
            log.error("%s: %s", problem.part, problem.message)
        return problems

    def failed(words: str) -> None:
        log.error("%s", words)
        admin.told()  # perhaps something is set aside

    workers.on_failure = failed
    feed = Feed(source, put, cache=options.cache, instance=socket.gethostname())

    async def serve() -> None:
        await workers.start()
        following = asyncio.create_task(_follow(feed))
        try:
            await feed.synced.wait()
            admin.ready = True
            await following
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)

    serving = asyncio.create_task(serve())
    stopped = asyncio.create_task(stop.wait())
    await asyncio.wait([serving, stopped], return_when=asyncio.FIRST_COMPLETED)
    # Readiness fails first; who has not noticed yet is still served, and told to go elsewhere next time.
    admin.ready = False
    log.info("draining")
    await workers.stop(delay=options.drain_delay, grace=options.drain_grace)
    for task in (serving, stopped):
        task.cancel()
    ends = await asyncio.gather(serving, stopped, return_exceptions=True)
    await admin.stop()
    if isinstance(ends[0], Exception):
        raise ends[0]


async def _follow(feed: Feed) -> None:
    """For good. What nobody thought of ends neither the workers nor what they know."""
    while True:
        try:
            await feed.run()
        except Exception:
            log.exception("the feed is followed anew in %g s; what is in force stays", ANEW)
        await asyncio.sleep(ANEW)


def main() -> None:
    """Entry point."""
    keep_to_yourself()
    logging.basicConfig(level=logging.INFO, format=logs.FORMAT)
    uvloop.run(run(arguments()))


if __name__ == "__main__":
    main()
