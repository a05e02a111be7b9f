"""The edges at which objects come in and words about them go out: one odd object, one refusal, one fault of ours is that one's."""

from __future__ import annotations

import asyncio
import json
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st
from support.objects import gateway, gateway_class, obj, route, slice_
from support.objects import service as a_service
from support.sink import Sink
from support.statuses import NOW, route_status
from support.watching import Stage, event, service, stage

from controller.delivery.reconcile import Publication, Reconciler
from controller.files.written import WrittenError, load
from controller.kubernetes.api import Api, ApiError
from controller.kubernetes.events import Events
from controller.kubernetes.events import event as event_of
from controller.kubernetes.pieces import elements, members
from controller.kubernetes.status_writer import StatusWriter, merged
from controller.kubernetes.watch import OnlyMeta, Stored
from controller.objects.base import Ref
from controller.objects.decoding import Reader, Unreadable
from controller.objects.documents import Document, DocumentFault, read
from controller.objects.kinds import KINDS
from controller.state.problems import FAILING, UNREADABLE, ObjectProblem, Problems
from controller.state.view import View, guarded
from controller.state.world import World
from controller.translate import Translator
from gateway.snapshot import Backend, Endpoint, Rule

__all__ = ["stage"]

DEEP = 20_000  # an API server takes 10,000 levels; Python's decoders take fewer


def nested(name: str, version: int) -> str:
    """An object of which a field that is not read is nested deeply, as text."""
    meta = json.dumps({"name": name, "namespace": "default", "resourceVersion": str(version), "uid": "u-1"})
    return f'{{"metadata":{meta},"spec":{"[" * DEEP}{"]" * DEEP}}}'


# --- coming in ---


def page(*items: str, version: int = 5) -> web.Response:
    meta = f'{{"resourceVersion":"{version}","continue":""}}'
    return web.Response(
        text=f'{{"kind":"List","metadata":{meta},"items":[{",".join(items)}]}}', content_type="application/json"
    )


async def test_one_odd_item_hides_no_other_of_its_page(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    odd: dict[Ref, str] = {}
    good = json.dumps(service("b", 3))
    unreadable = json.dumps({**service("c", 3), "spec": {"ports": "x"}})
    stage.server.lists = [page(nested("a", 2), good, unreadable)]
    deep_event = b'{"type":"MODIFIED","object":%b}\n' % nested("d", 6).encode()
    stage.server.watches = [[deep_event, event("ADDED", service("e", 7)), event("MODIFIED", service("c", 8))], None]
    follower = stage.follow()
    monkeypatch.setattr(
        follower, "_odd", lambda ref, wrong, stored: odd.__setitem__(ref, wrong) if wrong else odd.pop(ref, None)
    )
    await stage.until({"b": 80, "e": 80, "c": 80})
    assert odd.keys() == {Ref("Service", "default", "a"), Ref("Service", "default", "d")}
    assert all("nested too deeply" in words for words in odd.values())
    assert follower.synced.is_set()


@pytest.mark.parametrize(
    "answer", [b"<html>a proxy's page</html>", b"[]", b'{"items":5,"metadata":{}}', b"", b'{"items":[{]}', b"\xff\xfe"]
)
async def test_what_no_api_server_says_ends_no_watch(stage: Stage, answer: bytes) -> None:
    stage.server.lists = [web.Response(body=answer), ([service("a", 1)], 5, "")]
    stage.server.watches = [[b"neither\n"], None]
    stage.server.lists.append(([service("a", 1), service("b", 1)], 6, ""))
    stage.follow()
    await stage.until({"a": 80, "b": 80})


async def test_what_cannot_be_put_is_named_and_others_are(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    stage.server.lists = [([service("a", 1), service("b", 1)], 5, "")]
    follower = stage.follow()
    odd: dict[Ref, str] = {}
    put = follower._put

    def fails(found: Any, stored: Stored) -> None:
        if found.metadata.name == "a":
            raise KeyError("percent")
        put(found, stored)

    follower._put = fails
    follower._odd = lambda ref, wrong, _: odd.__setitem__(ref, wrong)
    await stage.until({"b": 80})
    assert "KeyError" in odd[Ref("Service", "default", "a")]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@settings(max_examples=40, deadline=None)
@given(st.dictionaries(st.text(), JSON), st.lists(JSON))
def test_pieces_are_what_json_has(value: dict[str, Any], items: list[Any]) -> None:
    for ascii_ in (True, False):
        found = members(json.dumps(value, ensure_ascii=ascii_, indent=1).encode("utf-8", "surrogatepass"))
        assert {name: json.loads(piece) for name, piece in found.items()} == {
            key if ascii_ is False else json.dumps(key)[1:-1]: inner for key, inner in value.items()
        } or any("\\" in json.dumps(key) for key in value)
        assert [json.loads(piece) for piece in elements(json.dumps(items).encode())] == items


@pytest.mark.parametrize(
    ("kind", "spec", "words"),
    [
        ("Service", {"ports": [{"port": "x"}]}, 'spec.ports[0].port: found "x"; int is needed'),
        ("Service", {"ports": [{"port": 99999}]}, "spec.ports[0].port: found 99999; int <= 65535 is needed"),
        ("Service", {"ports": [{}]}, "spec.ports[0].port: is missing; it is needed"),
        ("HTTPRoute", None, "spec: found null; object is needed"),
        ("Gateway", {"listeners": [{"name": "x", "port": 1e400, "protocol": "HTTP"}]}, "out of range"),
        ("Filter", {"secrets": {"a": 1}}, "spec.secrets: found a mapping; array is needed"),
    ],
)
def test_what_cannot_be_read_is_named_by_its_field(kind: str, spec: Any, words: str) -> None:
    text = json.dumps({"metadata": {"name": "x"}, "spec": spec}).replace("Infinity", "1e400")
    found = Reader(KINDS[kind]).read(text.encode(), Ref(kind, "", "x"))
    assert isinstance(found, Unreadable)
    assert words in str(found)


ODD_YAML = {
    "a: &a [*a]": "nested too deeply",
    "kind: Service\nmetadata: {? [a, b] : 1}": "the name of a field is text",
    "kind: Service\nmetadata: {name: !!binary aGFsbG8=}": "JSON has no such value",
    **{
        f"kind: Service\nspec: {odd}": "JSON has no such value"
        for odd in ("9" * 5000, "!!int x", "!!float x", "!!bool x", "!!timestamp x")
    },
    "kind: Service\nspec: .nan": "JSON has no such value",
    "kind: List\nitems: [5, {kind: 6}, text]": "not a Kubernetes object",
    "kind: Service\nmetadata: {name: a, name: b}": '"name" is given twice',
    "kind: Service\nspec: " + "[" * 3000 + "]" * 3000: "nested too deeply",
    # As deep as the parser's own stack does not reach.
    **{f"kind: Service\nspec: {level * 100_000}": "nested too deeply" for level in ("[", "{? ", "{a: ")},
    **{level * 100_000: "nested too deeply" for level in ("- ", "? ")},
    "\n".join(" " * level + "a:" for level in range(1000)): "nested too deeply",
    "kind: Service\nmetadata: {name: a}\n---\nkind: Service\nspec: {? 5 : 6}": None,
}


@pytest.mark.parametrize("text", ODD_YAML)
def test_odd_yaml_is_a_fault_or_an_object(text: str) -> None:
    found = list(read(text, "f.yaml"))
    words = ODD_YAML[text]
    if words is None:
        assert all(isinstance(one, Document) for one in found)
    else:
        assert any(isinstance(one, DocumentFault) and words in one.message for one in found), found


def test_aliases_do_not_fill_the_memory() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]", *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12))]
    text = "\n".join(lines)
    with pytest.raises(WrittenError, match="aliases"):
        load(text)
    (fault,) = read("kind: ConfigMap\n" + text, "f.yaml")
    assert isinstance(fault, DocumentFault)
    assert "more than" in fault.message


READS_MANY = """
import resource, sys
from controller.objects.documents import read
resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))  # all of them came to several times that
print(*read("kind: ConfigMap\\ndata: [" + "a," * 3_000_000 + "]", "f.yaml"))
"""


def test_values_are_counted_before_they_fill_the_memory() -> None:
    done = subprocess.run([sys.executable, "-c", READS_MANY], capture_output=True, text=True, timeout=60, check=False)
    assert "has more than 200000 values" in done.stdout, done.stderr
    with pytest.raises(WrittenError, match="more than"):
        load("[" + "a," * 500_000 + "]")


@pytest.mark.parametrize("text", ["[" * 5000, "{a: " * 2000 + "}" * 2000, "a: b: c", "\x00", "!!python/object:os.system x"])
def test_what_is_written_inside_of_objects_is_read_or_refused(text: str) -> None:
    with pytest.raises(WrittenError):
        load(text)


# --- our own faults ---


def test_a_guarded_value_that_raises_has_another_and_comes_back() -> None:
    world = World()
    view = View(world)
    computed = []

    def risky(view: View, name: str) -> str:
        computed.append(name)
        found = view.noted("value", name)
        if found == "bad":
            raise ValueError(name)
        return str(found)

    @guarded(lambda view, error, name: f"instead of {name}: {error}")
    def outer(view: View, name: str) -> str:
        return view.call(risky, name)

    def change(name: str, value: str) -> None:
        world.note(("value", name), value)
        changed, world.changed = world.changed, set()
        view.update(changed)

    change("a", "good")
    assert view.call(outer, "a") == "good"
    change("a", "bad")
    assert view.call(outer, "a") == "instead of a: a"
    assert [key[1] for key in view.failures] == ["a"]
    assert view.call(outer, "a") == "instead of a: a"
    change("b", "good")
    assert view.call(outer, "b") == "good"
    change("a", "better")
    assert view.call(outer, "a") == "better"
    assert not view.failures
    change("c", "bad")
    with pytest.raises(ValueError, match="c"):
        view.call(risky, "c")
    with pytest.raises(ValueError, match="c"):
        view.call(risky, "c")  # a value that was not worked out is not remembered as one
    change("c", "well")
    assert view.call(risky, "c") == "well"


def scene() -> World:
    world = World()
    for one in (gateway_class(), gateway(), a_service("a"), slice_("a", "10.0.0.1"), route("good", "a"), route("poison", "a")):
        world.put(one)
    return world


@pytest.mark.parametrize("late", [True, False])
async def test_what_breaks_a_round_is_set_aside(monkeypatch: pytest.MonkeyPatch, late: bool, caplog: Any) -> None:
    """Nothing of ours should: here the machinery itself is broken, for one object."""
    caplog.set_level(logging.CRITICAL)
    original = Translator._translate_routes

    def broken(self: Translator, todo: Any) -> None:
        if any(ref.name == "poison" for ref in self.world.refs("HTTPRoute")):
            raise RuntimeError("boom")
        original(self, todo)

    monkeypatch.setattr(Translator, "_translate_routes", broken)
    world, sink = scene(), Sink()
    poison = world.read(("object", Ref("HTTPRoute", "default", "poison")))
    if late:
        world.drop(poison.ref)
    reconciler = Reconciler(world, sink)
    await reconciler.round()
    if late:
        world.put(poison)
        world.put(route("another", "a"))
        await reconciler.round()
        assert ("rule", "default/another/0") in sink.parts["default", "gw"]
    assert ("rule", "default/good/0") in sink.parts["default", "gw"]
    assert ("rule", "default/poison/0") not in sink.parts["default", "gw"]
    assert [problem.about for problem in reconciler.problems] == [poison.ref]
    assert reconciler.problems.rounds_failed == 1
    assert Ref("HTTPRoute", "default", "good") in reconciler.translator.statuses
    # Everything else goes on, incrementally, and what was set aside comes back with its next change.
    world.put(route("later", "a"))
    await reconciler.round()
    assert ("rule", "default/later/0") in sink.parts["default", "gw"]
    monkeypatch.setattr(Translator, "_translate_routes", original)
    world.put(route("poison", "a", hostnames=("mended.example",)))
    await reconciler.round()
    assert ("rule", "default/poison/0") in sink.parts["default", "gw"]
    assert not list(reconciler.problems)


async def test_a_step_that_fails_keeps_no_other_from_being_taken(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)

    class Broken(Sink):
        async def follow(self, gateways: Any) -> None:
            raise RuntimeError("boom")

        async def write(self, statuses: Any) -> None:
            raise RuntimeError("boom")

    sink = Broken()
    reconciler = Reconciler(scene(), sink)
    await reconciler.round()
    assert ("rule", "default/good/0") in sink.parts["default", "gw"]
    assert reconciler.problems.rounds_failed == 2


def test_a_part_that_cannot_be_sent_keeps_no_other_from_it(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)
    publication = Publication()
    odd = Backend("odd", (Endpoint("10.0.0.1", 10**30),))
    good = Backend("good", (Endpoint("10.0.0.1", 80),))
    change = publication.advance({("backend", "odd"): odd, ("backend", "good"): good})
    assert change.put == (good,)


async def test_one_route_that_our_code_fails_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault in translating one object takes down that object's contribution, and says so in its status."""
    from controller.translate.routes import http_rules

    original = http_rules._timeouts

    def broken(rule: Any) -> Any:
        if rule.timeouts.request == "7s":
            raise ZeroDivisionError("7")
        return original(rule)

    monkeypatch.setattr(http_rules, "_timeouts", broken)
    world, sink = scene(), Sink()
    world.put(route("poison", "a", timeouts={"request": "7s"}))
    reconciler = Reconciler(world, sink)
    await reconciler.round()
    assert ("rule", "default/good/0") in sink.parts["default", "gw"]
    assert ("rule", "default/poison/0") not in sink.parts["default", "gw"]
    status: Any = reconciler.translator.statuses[Ref("HTTPRoute", "default", "poison")]
    assert status.parents[0].conditions[0].status == "False"
    assert "ZeroDivisionError" in status.parents[0].conditions[0].message
    assert [(one.reason, one.about.name) for one in reconciler.problems] == [(FAILING, "poison")]
    world.put(route("poison", "a"))
    await reconciler.round()
    assert isinstance(sink.parts["default", "gw"]["rule", "default/poison/0"], Rule)
    assert not list(reconciler.problems)


# --- going out ---


@pytest.mark.parametrize(
    "before",
    [
        {"parents": "text"}, {"parents": [5, None, {"controllerName": 7}]}, {"conditions": "x"},
        {"parents": [{"controllerName": "flomesh.io/gateway-controller", "conditions": [5, {"type": []}, {}]}]},
        {"parents": None},
    ],
)  # fmt: skip
def test_a_status_of_any_shape_is_added_to(before: dict[str, Any]) -> None:
    said = merged(before, route_status(), NOW)
    assert said["parents"][-1]["conditions"][0]["type"] == "Accepted"


class Refusing:
    """An API server whose webhook refuses every status but one."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def merge(self, where: str, body: Any) -> Any:
        self.asked.append(where)
        if "/good/" in where:
            return {"metadata": {"name": "good", "namespace": "default", "generation": 2}, "status": body["status"]}
        raise ApiError(422, "denied by a webhook")


async def test_a_status_that_is_refused_is_tried_later_and_later(monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    caplog.set_level(logging.CRITICAL)
    api = Refusing()
    writer = StatusWriter(api)  # type: ignore[arg-type]
    pauses: list[float] = []
    loop = asyncio.get_running_loop()
    monkeypatch.setattr(loop, "call_later", lambda delay, *_: pauses.append(delay), raising=False)
    for name in ("refused", "good"):
        ref = Ref("HTTPRoute", "default", name)
        writer.seen(ref, Stored(OnlyMeta(name, "default", "1", 2)))
        writer.want(ref, route_status())
    for _ in range(12):
        writer._later(Ref("HTTPRoute", "default", "refused"), ApiError(422, "no"))
    assert pauses[:3] == [0.2, 0.4, 0.8]
    assert pauses[-1] == 60.0


def test_an_event_says_it_once_and_beside_the_object() -> None:
    problem = ObjectProblem(UNREADABLE, Ref("HTTPRoute", "team", "x" * 253), "", "spec: found null; object is needed")
    made = event_of(problem, "u-1", NOW)
    assert made["involvedObject"] == {
        "kind": "HTTPRoute", "name": "x" * 253, "apiVersion": "gateway.networking.k8s.io/v1", "namespace": "team", "uid": "u-1",
    }  # fmt: skip
    assert len(made["metadata"]["name"]) <= 253
    assert made["metadata"]["namespace"] == "team"
    assert made == event_of(problem, "u-1", NOW)
    assert made["metadata"]["name"] != event_of(problem, "u-2", NOW)["metadata"]["name"]
    assert event_of(problem._replace(about=Ref("GatewayClass", "", "c")), "", NOW)["metadata"]["namespace"] == "default"


async def test_events_are_written_by_who_leads() -> None:
    written: list[str] = []

    class Server(Api):
        def __init__(self) -> None:
            pass

        async def create(self, where: str, body: Any) -> Any:
            written.append(where)
            if len(written) == 1:
                raise ApiError(500, "not now")

    events = Events(Server())
    problems = Problems()
    problems.told = events.tell
    problems.note(UNREADABLE, Ref("Service", "a", "x"), [("", "odd")])
    running = asyncio.create_task(events.run())
    events.lead(True, problems)
    problems.note(UNREADABLE, Ref("Service", "b", "x"), [("", "odd")])
    problems.note(UNREADABLE, Ref("Service", "b", "x"), [("", "odd")])  # told already
    async with asyncio.timeout(5):
        while len(written) < 2:
            await asyncio.sleep(0)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert written == ["/api/v1/namespaces/a/events", "/api/v1/namespaces/b/events"]
    assert 'fsm_controller_objects_set_aside{reason="Unreadable",kind="Service"} 2' in problems.metrics()
    problems.forget(Ref("Service", "a", "x"))
    problems.note(UNREADABLE, Ref("Service", "b", "x"), ())
    assert "Service" not in problems.metrics()


# --- files ---


def test_a_guard_that_was_never_good_keeps_shut_what_it_guards(tmp_path: Path) -> None:
    from controller.inspect.loaded_files import LoadedFiles

    policy = {
        "apiVersion": "gateway.flomesh.io/v1alpha1", "kind": "AccessControlPolicy", "metadata": {"name": "p", "namespace": "default"},
        "spec": {"targetRef": {"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "name": "r"}, "config": {"whitelst": ["10.0.0.0/8"], "blacklist": []}},
    }  # fmt: skip
    others = """
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: gw, namespace: default}
spec: {gatewayClassName: fsm-gateway-cls, listeners: [{name: http, port: 80, protocol: HTTP}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: r, namespace: default}
spec: {parentRefs: [{name: gw}], rules: [{backendRefs: []}]}
"""
    (tmp_path / "all.yaml").write_text(others + "---\n" + yaml.safe_dump(policy))
    loaded = LoadedFiles(tmp_path)
    assert any('did you mean "whitelist"' in fault.message for fault in loaded.source.faults)
    rule = loaded.translation.parts["default", "gw"]["rule", "default/r/0"]
    assert isinstance(rule, Rule)
    assert "AccessControlPolicy" in getattr(rule.filters[0], "reason", "")


def test_names_are_as_long_as_they_may_be() -> None:
    long = ".".join(["a" * 63] * 4)[:253]
    world = World()
    for one in (
        gateway_class(), gateway(long), a_service(long[:63]), obj("HTTPRoute", long, "default", {
            "parentRefs": [{"name": long}], "rules": [{"backendRefs": [{"name": long[:63], "port": 80}]}],
        }),
    ):  # fmt: skip
        world.put(one)
    translator = Translator(world)
    translator.update()
    assert ("rule", f"default/{long}/0") in translator.parts["default", long]
    assert not translator.failing()


def test_true_is_not_one() -> None:
    """To Python they are equal: what is stored is not what was."""
    world = World()
    policies = [
        obj(
            "RetryPolicy",
            "p",
            spec={"targetRef": {"kind": "Service", "name": "a"}, "config": {"retryOn": ["503"], "numRetries": n}},
        )
        for n in (1, True)
    ]
    for one in (*policies[:1], gateway_class(), gateway(), a_service("a"), slice_("a", "10.0.0.1"), route("r", "a")):
        world.put(one)
    translator = Translator(world)
    translator.update()
    assert getattr(translator.parts["default", "gw"]["rule", "default/r/0"], "retry", None) is not None
    assert world.put(policies[1])
    translator.update()
    status: Any = translator.statuses[policies[1].ref]
    assert status.conditions[0].message == "spec.config.numRetries: found true; int is needed."
    assert getattr(translator.parts["default", "gw"]["rule", "default/r/0"], "retry", None) is None
