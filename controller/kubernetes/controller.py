"""The controller on a cluster: follows the API server, tells data planes, writes statuses, makes what must run.

Also the reconciler's sink. Every replica follows and serves the feed; only the leader writes.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import Final

import msgspec

from controller.delivery.feed_server import Allowance, FeedServer, UnreviewedError
from controller.delivery.reconcile import Reconciler
from controller.deploy import manifests
from controller.deploy.manifests import DeploymentSettings
from controller.kubernetes import feed_tls, leader_election
from controller.kubernetes.api import Api, ApiError, path
from controller.kubernetes.events import Events
from controller.kubernetes.infrastructure import InfrastructureWriter
from controller.kubernetes.pod_services import PodServiceWriter
from controller.kubernetes.secrets import NamedSecrets
from controller.kubernetes.status_writer import StatusWriter
from controller.kubernetes.watch import Follower, Stored
from controller.objects.base import GATEWAY_CLASS, GATEWAY_GROUP, Meta, Object, Ref
from controller.objects.core import GATEWAY_NAME
from controller.objects.gateways import Gateway
from controller.objects.kinds import KINDS, WITH_STATUS, AnyObject, Kind
from controller.objects.routes import ROUTES
from controller.state.problems import UNREADABLE
from controller.state.world import Report, World
from controller.translate import GatewayName
from controller.translate.gateways.gateways import Running
from controller.translate.shared.status import Status
from controller.translate.xbackends import Pods
from gateway.snapshot import Change

log = logging.getLogger("fsm")


class Deployment(Object, frozen=True):
    """apps/v1 Deployment, of which we only want to know that it is there."""


class CrdMeta(Meta, frozen=True):
    """Metadata with annotations."""

    annotations: dict[str, str] = msgspec.field(default_factory=dict)


class CrdObject(msgspec.Struct, frozen=True):
    """What is read of a CRD."""

    metadata: CrdMeta = CrdMeta()

    @property
    def ref(self) -> Ref:
        """What names it."""
        return Ref("CrdObject", "", self.metadata.name)


DEPLOYMENT = Kind(Deployment, "apps", ("v1",), "deployments")
WORDS: Final = 1.0  # times a second that data planes may change what is said of their Gateway's problems
SAVED_WORDS: Final = 20.0  # of these, for who was silent before
CRD = Kind(CrdObject, "apiextensions.k8s.io", ("v1",), "customresourcedefinitions", namespaced=False)


@dataclass(frozen=True)
class Options:
    """How the controller was started."""

    namespace: str
    identity: str
    image: str
    feed_host: str  # the name that data planes know the controller by
    feed_port: int = manifests.FEED_PORT
    bind: str = ""
    inline_filters: bool = False
    secret_namespaces: tuple[str, ...] = ()  # whose Secrets may be read; empty for all


class Cluster:
    """The controller of one cluster, one of its replicas."""

    def __init__(self, api: Api, options: Options) -> None:
        self._api = api
        self._options = options
        self.world = World()
        self.world.note(("setting", "secret namespaces"), options.secret_namespaces)
        self.world.note(("setting", "inline filters"), "allowed" if options.inline_filters else "")
        self.reconciler = Reconciler(self.world, self)
        self.writer = StatusWriter(api)
        self.events = Events(api)
        self.reconciler.problems.told = self.events.tell
        self._reviewer = feed_tls.Reviewer(api)
        self._words: dict[GatewayName, Allowance] = {}  # how often data planes may change what is said of their problems
        self._later: dict[GatewayName, asyncio.TimerHandle] = {}  # when that is looked at again
        self.feed = FeedServer(self.reconciler.publications, self._authorise)
        self.feed.on_acknowledged = self._acknowledged
        self._infrastructure: InfrastructureWriter
        self._pod_services = PodServiceWriter(api)
        self._secrets: NamedSecrets
        self._followers: dict[str, asyncio.Task[None]] = {}
        self._group: asyncio.TaskGroup
        self.ready = False
        self.leading = False

    async def run(self) -> None:
        """Until cancelled."""
        options = self._options
        authority = await feed_tls.authority(self._api, options.namespace)
        settings = DeploymentSettings(options.image, f"https://{options.feed_host}:{options.feed_port}", authority.pem)
        self._infrastructure = InfrastructureWriter(self._api, settings)
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                self._secrets = NamedSecrets(self._api, group, self._know, self._forget, options.secret_namespaces)
                await self._follow_everything()
                context = authority.server_context(options.feed_host)
                await self.feed.start(options.bind, options.feed_port, context)
                group.create_task(authority.keep_proving(context, options.feed_host))
                self._expect_data_planes()
                self.reconciler.wake()
                group.create_task(self.reconciler.run())
                group.create_task(self.writer.run())
                group.create_task(self.events.run())
                client = self._api.client
                group.create_task(leader_election.lead(client, options.namespace, options.identity, self._lead))
                self.ready = True
                log.info("ready: %d objects, feed on port %d", len(self.world), options.feed_port)
        finally:
            for timer in self._later.values():
                timer.cancel()
            await self.feed.stop()
            await self._infrastructure.stop()
            await self._pod_services.stop()

    # --- following ---

    async def _follow_everything(self) -> None:
        """CRDs first: they say which kinds there are, now and later."""
        crds = Follower(self._api, CRD, self._crd, lambda _: None)
        self._group.create_task(crds.run())
        await crds.synced.wait()
        waits = [follower for name in KINDS for follower in self._follow(name)]
        deployments = Follower(
            self._api, DEPLOYMENT, lambda *_: None, self._lost, query={"labelSelector": f"app={manifests.APP}"}
        )
        self._group.create_task(deployments.run())
        for waiting in (*waits, deployments):
            await waiting.synced.wait()
        await self._secrets.settled()

    def _follow(self, name: str) -> list[Follower]:
        followers = []
        for namespace in (self._options.secret_namespaces or ("",)) if name == "Secret" else ("",):
            key = f"{name} {namespace}"
            if key not in self._followers or self._followers[key].done():
                followers.append(follower := self._follower(name, namespace))
                self._followers[key] = self._group.create_task(follower.run())
        return followers

    def _follower(self, name: str, namespace: str) -> Follower:
        kind = KINDS[name]
        put, drop = (self._secrets.put, self._secrets.drop) if kind.names_secrets else (self._know, self._forget)
        return Follower(self._api, kind, put, drop, query=kind.query, namespace=namespace, odd=self._odd)

    def _crd(self, obj: AnyObject, _: Stored) -> None:
        assert isinstance(obj, CrdObject)
        for name, kind in KINDS.items():
            if obj.metadata.name == f"{kind.plural}.{kind.group}":
                if name == "GatewayClass":
                    version = obj.metadata.annotations.get(f"{GATEWAY_GROUP}/bundle-version", "")
                    self._note(("setting", "bundle version"), version)
                    channel = obj.metadata.annotations.get(f"{GATEWAY_GROUP}/channel", "")
                    self._note(("setting", "channel"), channel)
                if self.ready:
                    self._follow(name)  # it was missing, and has come

    def _know(self, obj: AnyObject, stored: Stored) -> None:
        if obj.ref.kind in WITH_STATUS:
            self.writer.seen(obj.ref, stored)
        if self.world.put(obj):
            self.reconciler.wake()

    def _odd(self, ref: Ref, wrong: str, stored: Stored) -> None:
        """An object cannot be read, or can again."""
        self.events.identities[ref] = stored.metadata.uid
        self.reconciler.problems.note(UNREADABLE, ref, [("", wrong)] if wrong else ())

    def _forget(self, ref: Ref) -> None:
        self.reconciler.problems.forget(ref)
        self.events.identities.pop(ref, None)
        if ref.kind in WITH_STATUS:
            self.writer.gone(ref)
        if ref.kind == "Service":
            for gateway in self._owner_of(ref):
                self._infrastructure.repair(gateway)
        if self.world.drop(ref):
            self.reconciler.wake()

    def _lost(self, ref: Ref) -> None:
        for name in self.world.refs("Gateway"):
            gateway = self.world.read(("object", name))
            if isinstance(gateway, Gateway) and name.namespace == ref.namespace and gateway.generated_name == ref.name:
                self._infrastructure.repair((name.namespace, name.name))

    def _owner_of(self, ref: Ref) -> list[GatewayName]:
        obj = self.world.read(("object", ref))
        name = obj.metadata.labels.get(GATEWAY_NAME) if obj is not None else None
        return [(ref.namespace, name)] if name else []

    def _note(self, key: tuple[str, str], value: object) -> None:
        if self.world.note(key, value):
            self.reconciler.wake()

    def _expect_data_planes(self) -> None:
        """After a restart: data planes that served before do so still, though none has spoken to us yet."""
        for ref in self.world.refs("Gateway"):
            if self.writer.was_programmed(ref):
                self.world.note(("report", ref.namespace, ref.name), Report(True))

    # --- leading ---

    def _lead(self, leading: bool) -> None:
        self.leading = leading
        self.writer.lead(leading)
        self._infrastructure.lead(leading)
        self._pod_services.lead(leading)
        self.events.lead(leading, self.reconciler.problems)
        if leading and self._class_is_missing():
            self._group.create_task(self._make_class())

    def _class_is_missing(self) -> bool:
        return self.world.read(("object", Ref("GatewayClass", "", GATEWAY_CLASS))) is None

    async def _make_class(self) -> None:
        try:
            await self._api.create(path(f"{GATEWAY_GROUP}/v1", "gatewayclasses"), manifests.gateway_class())
        except ApiError as error:
            if error.status != 409:
                log.warning("GatewayClass %s: %s", GATEWAY_CLASS, error)

    # --- Sink ---

    async def publish(self, gateway: GatewayName, change: Change) -> None:
        """Tell the Gateway's data planes."""
        self.feed.publish(gateway, change)

    async def write(self, statuses: dict[Ref, Status | None]) -> None:
        """Say it once the data planes have done it."""
        self._group.create_task(self._write(statuses))

    async def _write(self, statuses: dict[Ref, Status | None]) -> None:
        await self.feed.wait_applied(self._concerned(statuses), at_most=1.0)
        translator = self.reconciler.translator
        for ref in statuses:
            # By now there may be something newer to say.
            self.writer.want(ref, translator.statuses.get(ref))

    def _concerned(self, statuses: dict[Ref, Status | None]) -> set[GatewayName]:
        gateways: set[GatewayName] = set()
        for ref in statuses:
            if ref.kind == "Gateway":
                gateways.add((ref.namespace, ref.name))
            elif ref.kind in ROUTES:
                route = self.world.read(("object", ref))
                for parent in route.spec.parent_refs if route is not None else ():
                    gateways.add((parent.namespace or ref.namespace, parent.name))
                gateways.update(self.world.read(("gateways of route", *ref)))  # by ListenerSets, or by default
        return gateways & self.reconciler.publications.keys()

    async def follow(self, gateways: dict[GatewayName, Running | None]) -> None:
        """Make what must run, or remove it."""
        for name, gateway in gateways.items():
            self._infrastructure.want(name, gateway)
            if gateway is None:
                self.feed.dismiss(name)
                self._words.pop(name, None)

    async def look_for(self, pods: dict[Ref, Pods | None]) -> None:
        """Have a Service find the pods of an XBackend, or remove it."""
        for xbackend, found in pods.items():
            self._pod_services.want(xbackend, found)

    # --- data planes ---

    async def _authorise(self, token: str, gateway: GatewayName) -> str:
        gateway_object = self.world.read(("object", Ref("Gateway", *gateway)))
        if not isinstance(gateway_object, Gateway) or gateway not in self.reconciler.translator.gateways:
            return ""
        try:
            reviewed = await self._reviewer.review(token)
        except ApiError as error:
            log.warning("a data plane's token cannot be reviewed: %s", error)
            raise UnreviewedError from None
        if reviewed is None or reviewed.user != manifests.service_account(gateway[0], gateway_object.generated_name):
            return ""
        return reviewed.pod or " "

    def _acknowledged(self, gateway: GatewayName) -> None:
        channel = self.feed.channel(gateway)
        if not channel.connections:
            return  # it may serve on without us; what was reported last stands
        count = len(channel.connections)
        message = f"{count} data plane{'s' if count > 1 else ''} serve{'' if count > 1 else 's'} the Gateway."
        programmed = channel.is_programmed()
        known = self.world.read(("report", *gateway)) or Report()
        publication = self.reconciler.publications.get(gateway)
        problems = tuple(sorted(channel.problems(publication.parts))) if publication is not None else ()
        if problems != known.problems and not self._may_say(gateway):
            problems = known.problems
        report = Report(programmed, message if programmed else "", problems)
        if self.world.note(("report", *gateway), report):
            self.reconciler.wake()

    def _may_say(self, gateway: GatewayName) -> bool:
        """Problems are a data plane's words, and end in statuses: it may change them now and then, not as often as it likes."""
        loop = asyncio.get_running_loop()
        allowance = self._words.setdefault(gateway, Allowance(loop.time, rate=WORDS, saved=SAVED_WORDS))
        wait = allowance.wait()
        if not wait:
            allowance.take()
        elif gateway not in self._later:
            self._later[gateway] = loop.call_later(wait, self._look_again, gateway)
        return not wait

    def _look_again(self, gateway: GatewayName) -> None:
        self._later.pop(gateway, None)
        if gateway in self.reconciler.translator.gateways:
            self._acknowledged(gateway)
