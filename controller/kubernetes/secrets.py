"""Secrets that filters and policies name: each is followed by its name, as long as something names it.

Of all Secrets the controller follows only certificates as a kind; what else is in a cluster's Secrets is none of its
business. An object that names one is put into the world once that Secret is known, so that no data plane sees the one
without the other.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from typing import Final, NamedTuple

from controller.kubernetes.api import Api
from controller.kubernetes.watch import Follower, Stored
from controller.objects.base import Ref
from controller.objects.kinds import KINDS, AnyObject

log = logging.getLogger("fsm")

PATIENCE: Final = 5.0  # seconds that an object waits for its Secrets; then it is put without, and its status says so
Put = Callable[[AnyObject, Stored], None]


class Following(NamedTuple):
    """A Secret that is followed."""

    follower: Follower
    task: asyncio.Task[None]


def named(obj: AnyObject) -> frozenset[Ref]:
    """The Secrets that an object names; certificates of listeners are not among them."""
    return frozenset(Ref("Secret", obj.ref.namespace, name) for name in obj.secret_names())


class NamedSecrets:
    """The Secrets that objects name, followed while they do.

    `put` and `drop` tell the world, of Secrets and of the objects that name them.
    """

    def __init__(
        self, api: Api, group: asyncio.TaskGroup, put: Put, drop: Callable[[Ref], None], namespaces: tuple[str, ...] = ()
    ) -> None:
        self._namespaces = namespaces  # whose Secrets may be read; empty for all
        self._api = api
        self._group = group
        self._put = put
        self._drop = drop
        self._names: dict[Ref, frozenset[Ref]] = {}  # by the object that names them
        self._uses: Counter[Ref] = Counter()
        self._following: dict[Ref, Following] = {}
        self._waiting: dict[Ref, tuple[AnyObject, Stored]] = {}
        self._later: set[asyncio.Task[None]] = set()

    def put(self, obj: AnyObject, stored: Stored) -> None:
        """An object is there, or has changed: it goes on once all that it names is known."""
        self._name(obj.ref, frozenset(ref for ref in named(obj) if not self._namespaces or ref.namespace in self._namespaces))
        if self._unknown(obj.ref):
            if obj.ref not in self._waiting:
                self._later.add(task := self._group.create_task(self._put_later(obj.ref)))
                task.add_done_callback(self._later.discard)
            self._waiting[obj.ref] = (obj, stored)
        else:
            self._waiting.pop(obj.ref, None)
            self._put(obj, stored)

    def drop(self, ref: Ref) -> None:
        """An object is gone, and what it named with it, unless another names it."""
        self._waiting.pop(ref, None)
        self._drop(ref)
        self._name(ref, frozenset())

    async def settled(self) -> None:
        """Until no object waits."""
        while self._later:
            await asyncio.wait(self._later)

    async def _put_later(self, ref: Ref) -> None:
        try:
            async with asyncio.timeout(PATIENCE):
                while unknown := self._unknown(ref):
                    await unknown[0].synced.wait()
        except TimeoutError:
            log.warning("%s: its Secrets cannot be read; it goes on without them", ref)
        if ref in self._waiting:
            self._put(*self._waiting.pop(ref))

    def _unknown(self, ref: Ref) -> list[Follower]:
        followers = [self._following[secret].follower for secret in self._names.get(ref, ())]
        return [follower for follower in followers if not follower.synced.is_set()]

    def _name(self, ref: Ref, names: frozenset[Ref]) -> None:
        before = self._names.pop(ref, frozenset())
        if names:
            self._names[ref] = names
        for secret in names - before:
            self._uses[secret] += 1
            if secret not in self._following:
                self._following[secret] = self._follow(secret)
        for secret in before - names:
            self._uses[secret] -= 1
            if not self._uses[secret]:
                del self._uses[secret]
                following = self._following.pop(secret)
                following.task.cancel()
                following.follower.synced.set()  # nobody waits for it any more
                self._drop(secret)

    def _follow(self, ref: Ref) -> Following:
        # A certificate is followed with all others; a Secret's type never changes.
        selector = f"metadata.name={ref.name},type!=kubernetes.io/tls"
        follower = Follower(
            self._api, KINDS["Secret"], self._put, self._drop, query={"fieldSelector": selector}, namespace=ref.namespace
        )
        return Following(follower, self._group.create_task(follower.run()))
