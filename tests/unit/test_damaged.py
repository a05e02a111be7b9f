"""One stored object stops nobody else: every kind, with everything that can be wrong with one, through the real ways in.

As watch events of an API server (which may have been stored under older schemas), and as files. What is damaged is refused,
named, or as good as before; nothing leaves the loop, nothing of ours fails at it, and a Gateway beside it stays as it is.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.damage import Damage, Subject, bystanders, damages, documents, is_sampled, subjects
from support.sink import Sink

from controller.delivery.reconcile import Reconciler
from controller.files.source import FileSource
from controller.files.validate import fault_of_spec
from controller.inspect.loaded_files import LoadedFiles
from controller.inspect.status_report import parts
from controller.kubernetes.watch import Follower, _event_of
from controller.objects.base import Ref
from controller.objects.kinds import KINDS
from controller.objects.policies import POLICIES
from controller.state.world import World

BYSTANDER = ("elsewhere", "bystander")
SUBJECTS = subjects()


class Cluster:
    """A controller that hears of objects as an API server tells of them."""

    def __init__(self) -> None:
        self.world = World()
        self.sink = Sink()
        self.reconciler = Reconciler(self.world, self.sink)
        self.unreadable: dict[Ref, str] = {}
        self.version = 0
        self.followers = {
            name: Follower(None, kind, lambda obj, _: self.world.put(obj), self.world.drop, odd=self._odd)  # type: ignore[arg-type]
            for name, kind in KINDS.items()
        }

    def _odd(self, ref: Ref, wrong: str, _: Any) -> None:
        self.unreadable.pop(ref, None)
        if wrong:
            self.unreadable[ref] = wrong

    def tell(self, value: dict[str, Any], what: str = "MODIFIED") -> Ref:
        self.version += 1
        meta = {**value["metadata"], "resourceVersion": str(self.version)}
        line = json.dumps({"type": what, "object": {**value, "metadata": meta}}).encode()
        self.followers[value["kind"]]._handle(_event_of(line))
        return Ref(value["kind"], meta.get("namespace", ""), meta["name"])

    def said(self, ref: Ref) -> str:
        """All that is said of an object, in one text."""
        status = self.reconciler.translator.statuses.get(ref)
        told = [c.message for _, several in parts(ref, status) for c in several] if status is not None else []
        return " ".join([*told, self.unreadable.get(ref, "")])


async def cluster_of(source: Path) -> Cluster:
    cluster = Cluster()
    for value in (*bystanders(), *documents(source)):
        cluster.tell(value, "ADDED")
    await cluster.reconciler.round()
    await cluster.reconciler.round()
    assert cluster.sink.parts[BYSTANDER]
    return cluster


async def check_on_a_cluster(subject: Subject, one_in: int) -> int:
    cluster = await cluster_of(subject.source)
    before = dict(cluster.sink.parts[BYSTANDER])
    count = 0
    for damage in damages(subject.value):
        if not is_sampled(subject, damage, one_in):
            continue
        count += 1
        ref = cluster.tell(damage.value)
        await cluster.reconciler.round()
        where = f"{subject!r}, {damage}"
        assert cluster.reconciler.problems.rounds_failed == 0, where
        failing = cluster.reconciler.translator.failing()
        assert not failing, f"{where}: {failing}"
        if subject.value["metadata"].get("namespace") or subject.value["kind"] != "GatewayClass":
            assert cluster.sink.parts[BYSTANDER] == before, where
        for gateway, sent in cluster.reconciler.translator.parts.items():
            assert cluster.sink.parts[gateway].keys() >= sent.keys(), where
        check_is_named(cluster, ref, damage, where)
        cluster.tell(subject.value)
        await cluster.reconciler.round()
        assert ref not in cluster.unreadable
    return count


def check_is_named(cluster: Cluster, ref: Ref, damage: Damage, where: str) -> None:
    """A policy whose config is not what its CRD wants says so, by the field."""
    if ref.kind not in POLICIES or damage.path[:1] != ("spec",) or "config" not in damage.path:
        return
    if fault_of_spec(ref.kind, damage.value.get("spec")) and damage.what == "a list of lists":
        said = cluster.said(ref)
        assert "spec" in said or "older" in said, f"{where}: {said!r}"


@pytest.mark.parametrize("subject", SUBJECTS, ids=repr)
async def test_watch_events(subject: Subject) -> None:
    await check_on_a_cluster(subject, 31)


@pytest.mark.slow
@pytest.mark.parametrize("subject", SUBJECTS, ids=repr)
async def test_watch_events_with_everything_that_can_be_wrong(subject: Subject) -> None:
    assert await check_on_a_cluster(subject, 1) > 20


async def check_in_a_file(subject: Subject, folder: Path, one_in: int) -> int:
    world, sink = World(), Sink()
    world.note(("setting", "addresses"), ("127.0.0.1",))
    source = FileSource(folder, world)
    reconciler = Reconciler(world, sink)
    others = [value for value in documents(subject.source) if value is not subject.value]
    for index, value in enumerate([*bystanders()[1:], *others]):
        (folder / f"other-{index:03}.json").write_text(json.dumps(value))
    file = folder / "subject.json"
    file.write_text(json.dumps(subject.value))
    source.load()
    await reconciler.round()
    before = dict(sink.parts[BYSTANDER])
    count = 0
    for damage in damages(subject.value):
        if not is_sampled(subject, damage, one_in):
            continue
        count += 1
        file.unlink()
        file.write_text(json.dumps(damage.value))
        source.load({file})
        await reconciler.round()
        where = f"{subject!r}, {damage}"
        assert reconciler.problems.rounds_failed == 0, where
        assert not (failing := reconciler.translator.failing()), f"{where}: {failing}"
        if subject.value["kind"] != "GatewayClass":
            assert sink.parts[BYSTANDER] == before, where
        if is_sampled(subject, damage, one_in * 37):  # as `fsm validate` looks at them, and at what it refuses
            assert not any("please report" in fault.message for fault in LoadedFiles(folder).faults()), where
        assert not any("please report" in fault.message for fault in source.faults), f"{where}: {source.faults}"
    return count


@pytest.mark.parametrize("subject", SUBJECTS, ids=repr)
async def test_files(subject: Subject, tmp_path: Path) -> None:
    await check_in_a_file(subject, tmp_path, 31)


@pytest.mark.slow
@pytest.mark.parametrize("subject", SUBJECTS, ids=repr)
async def test_files_with_everything_that_can_be_wrong(subject: Subject, tmp_path: Path) -> None:
    assert await check_in_a_file(subject, tmp_path, 1) > 20


def test_there_are_subjects_of_every_kind() -> None:
    missing = KINDS.keys() - {one.value["kind"] for one in SUBJECTS}
    assert missing <= {"ClusterTrustBundle"}, missing
