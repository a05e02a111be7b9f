"""Filters in Python on a real cluster: attached by users, edited while they serve, refused with a line and a reason."""

from __future__ import annotations

from pathlib import Path

import aiohttp
import yaml
from clusters import eventually, gateway_address, get, kubectl

NAMESPACE = "filters"
SOURCE = """
from gateway.filters.api import Response, config
def request(request):
    if request.path == "/loop":
        while True: pass
    return Response(200, config["greeting"] + " VERSION " + request.headers.get("x-name", "?"))
def test_it_answers():
    assert VERSION > 0
"""


def kind(name: str, spec: dict, kind_: str, *, namespaced: bool = True) -> dict:
    group = "gateway.networking.k8s.io/v1" if kind_ in ("Gateway", "HTTPRoute") else "extension.gateway.flomesh.io/v1alpha1"
    meta = {"name": name, **({"namespace": NAMESPACE} if namespaced else {})}
    return {"apiVersion": group, "kind": kind_, "metadata": meta, "spec": spec}


def definition(source: str) -> dict:
    parameters = {"type": "object", "required": ["greeting"], "properties": {"greeting": {"type": "string"}}}
    spec = {"type": "Greeting", "script": source, "parameters": parameters, "timeout": "300ms", "memory": "64Mi"}
    return kind("greeting", spec, "FilterDefinition", namespaced=False)


def source(version: int) -> str:
    return SOURCE.replace("VERSION", str(version))


OBJECTS = [
    kind("filters", {"gatewayClassName": "fsm-gateway-cls", "listeners": [{"name": "http", "port": 80, "protocol": "HTTP"}]}, "Gateway"),
    definition(source(1)),
    kind("greeting", {"config": "greeting: Hello"}, "FilterConfig"),
    kind("greeting", {"type": "Greeting", "definitionRef": {"name": "greeting"}, "configRef": {"name": "greeting"}}, "Filter"),
    kind("greeting", {"parentRefs": [{"name": "filters"}], "rules": [{"filters": [{
        "type": "ExtensionRef", "extensionRef": {"group": "extension.gateway.flomesh.io", "kind": "Filter", "name": "greeting"},
    }]}]}, "HTTPRoute"),
]  # fmt: skip


def apply(*objects: dict) -> None:
    kubectl("apply", "-f", "-", text=yaml.safe_dump_all(objects))


def accepted() -> tuple[str, str, str]:
    (condition,) = get("filter.extension.gateway.flomesh.io", "greeting", "-n", NAMESPACE)["status"]["conditions"]
    return condition["status"], condition["reason"], condition["message"]


async def test_a_filter_from_installation_to_refusal(installed: None) -> None:
    kubectl("create", "namespace", NAMESPACE)
    try:
        apply(*OBJECTS)
        address = await gateway_address(NAMESPACE)
        async with aiohttp.ClientSession() as session:

            async def says(text: str, path: str = "/", status: int = 200) -> bool:
                async with session.get(f"http://{address}{path}", headers={"X-Name": "Ada"}) as answer:
                    got = await answer.text()
                    assert (answer.status, got) == (status, text), (answer.status, got)
                    return True

            async def eventually_says(text: str) -> None:
                async def check() -> bool:
                    return await says(text)

                await eventually(check)

            await eventually_says("Hello 1 Ada")
            await eventually(lambda: accepted()[:2] == ("True", "Accepted"))

            # An edit, and a loop that hurts nobody else.
            apply(definition(source(2)))
            await eventually_says("Hello 2 Ada")
            assert await says("the filter filters/greeting failed\n", "/loop", 500)
            await eventually_says("Hello 2 Ada")

            # In the pod as well there is no way out of its process.
            pod = kubectl("get", "pods", "-n", NAMESPACE, "-l", "app=fsm-gateway", "-o", "jsonpath={.items[0].status.podIP}")
            async with session.get(f"http://{pod}:9091/statistics") as answer:
                (found,) = {one[0]: one[5] for worker in await answer.json() for one in worker["filters"]}.items()
            assert found == ("filters/greeting", "process (limits, landlock, seccomp)")

            # An edit that does not pass its own test keeps the old code and says why.
            apply(definition(source(0)))
            await eventually(lambda: accepted()[:2] == ("False", "ScriptInvalid"))
            assert "line 8: test_it_answers: AssertionError: assert 0 > 0" in accepted()[2]
            assert await says("Hello 2 Ada")

            # What the API server refuses, and what the controller does.
            refused = {**definition("x = 1"), "spec": {"type": "Greeting", "language": "javascript", "script": "x"}}
            try:
                apply(refused)
            except AssertionError as error:
                assert 'Unsupported value: "javascript"' in str(error)
            else:
                raise AssertionError("a language that nobody here speaks was accepted")
            apply(kind("greeting", {"config": "greeting: 1"}, "FilterConfig"))
            await eventually(lambda: accepted()[:2] == ("False", "Invalid"))
            assert accepted()[2] == 'spec.configRef: greeting: 1 is not of type "string".'
    finally:
        kubectl("delete", "namespace", NAMESPACE, "--wait=false")
        kubectl("delete", "filterdefinition", "greeting", "--ignore-not-found")


OWN = """
from gateway.filters.api import Response, config, secrets
def request(request):
    return Response(200, config["greeting"] + " " + secrets["name"])
"""


def attached(namespace: str) -> list[dict]:
    """What the examples have not: definitions for one namespace and for all, what they are given, and where they are used."""
    group = "extension.gateway.flomesh.io"

    def made(kind_: str, name: str, **rest: object) -> dict:
        spaced = {"namespace": namespace} if kind_ != "FilterDefinition" else {}
        api = {"Secret": "v1", "HTTPRoute": "gateway.networking.k8s.io/v1"}.get(kind_, f"{group}/v1alpha1")
        return {"apiVersion": api, "kind": kind_, "metadata": {"name": name, **spaced}, **rest}

    rules = []
    filters = []
    for definition_kind, name in (("NamespacedFilterDefinition", "own"), ("FilterDefinition", "everybodys")):
        spec = {"type": "Greeting", "script": OWN.lstrip()}
        uses = {"definitionRef": {"kind": definition_kind, "name": name}, "configRef": {"name": "greeting"}}
        secret = {"name": "name", "secretRef": {"name": "name", "key": "name"}}
        ref = {"group": group, "kind": "Filter", "name": name}
        rules.append({
            "matches": [{"path": {"value": f"/{name}"}}], "filters": [{"type": "ExtensionRef", "extensionRef": ref}],
        })  # fmt: skip
        filters += [
            made(definition_kind, name, spec=spec),
            made("Filter", name, spec={"type": "Greeting", **uses, "secrets": [secret]}),
        ]
    return [
        made("Secret", "name", type="Opaque", stringData={"name": "Ada"}),
        made("FilterConfig", "greeting", spec={"config": "greeting: Hello"}),
        *filters,
        made("HTTPRoute", "greeting", spec={"parentRefs": [{"name": "filters"}], "rules": rules}),
    ]


REPOSITORY = Path(__file__).parent.parent.parent
EXTENSIONS = REPOSITORY / "examples" / "extensions" / "gateway.yaml"
POLICIES = EXTENSIONS.parent.parent / "policies" / "gateway.yaml"


def all_kinds() -> set[str]:
    """The kinds of the CRDs that `fsm install` brings, each of which the cluster must have."""
    crds = [yaml.safe_load(path.read_text()) for path in sorted((REPOSITORY / "controller/data/extensions").glob("*.yaml"))]
    there = {one["metadata"]["name"] for one in get("crd")["items"]}
    assert {crd["metadata"]["name"] for crd in crds} <= there
    return {crd["spec"]["names"]["kind"] for crd in crds}


async def test_one_of_each_kind(installed: None) -> None:
    """All CRDs are there, and one of each kind is attached, accepted and at work."""
    namespace = "extensions"
    kubectl("create", "namespace", namespace)
    try:
        objects = list(yaml.safe_load_all(EXTENSIONS.read_text()))
        policies = list(yaml.safe_load_all(POLICIES.read_text()))
        for one in (*objects, *policies):
            one["metadata"]["namespace"] = namespace
            if "targetRef" in one.get("spec", {}):
                one["spec"]["targetRef"].pop("namespace", None)
        objects += attached(namespace)
        assert {one["kind"] for one in (*objects, *policies) if "flomesh.io" in one["apiVersion"]} == all_kinds()
        apply(*objects)
        ours = [one for one in objects if "flomesh.io" in one["apiVersion"]]

        def unaccepted() -> list[tuple[str, object]]:
            found = []
            for plural in ("filters", "listenerfilters"):
                found += get(f"{plural}.extension.gateway.flomesh.io", "-n", namespace)["items"]
            found += get("routerulefilterpolicies.gateway.flomesh.io", "-n", namespace)["items"]
            assert len(found) == sum(one["kind"] in ("Filter", "ListenerFilter", "RouteRuleFilterPolicy") for one in ours)
            said = [(one["metadata"]["name"], one.get("status", {}).get("conditions")) for one in found]
            return [(name, words) for name, words in said if not words or words[0]["status"] != "True"]

        await eventually(lambda: not unaccepted())
        address = await gateway_address(namespace)
        async with aiohttp.ClientSession() as session:

            async def status(path: str, **headers: str) -> int:
                async with session.get(f"http://{address}{path}", headers=headers) as answer:
                    await answer.read()
                    return answer.status

            async def serves() -> bool:
                return await status("/guarded") == 200

            await eventually(serves)
            for path in ("/own", "/everybodys"):  # with a secret that is no certificate
                async with session.get(f"http://{address}{path}") as answer:
                    assert (answer.status, await answer.text()) == (200, "Hello Ada"), path
            # However many workers: three in a minute.
            assert [await status("/limited") for _ in range(5)] == [200, 200, 200, 429, 429]
            assert [await status(path) for path in ("/asked", "/logged", "/nowhere")] == [200, 200, 404]
            assert {await status("/faulty") for _ in range(40)} == {200, 503}
            assert await status("/nowhere", **{"Proxy-Tag": "tagged.example"}) == 200

            # FSM's policies beside them.
            apply(*(one for one in policies if one["metadata"]["name"] != "hello"))

            def refused() -> list[object]:
                found = []
                for one in policies:
                    if one["apiVersion"].startswith("gateway.flomesh.io"):
                        said = get(f"{one['kind'].lower()}.gateway.flomesh.io", one["metadata"]["name"], "-n", namespace)
                        status = said.get("status", {})
                        words = [*status.get("conditions", ()), *(a["conditions"][0] for a in status.get("ancestors", ()))]
                        if len(words) != 2 or any(word["status"] != "True" for word in words):
                            found += [(one["kind"], status)]
                return found

            # In short, and to the Gateway that it has a say at.
            await eventually(lambda: not refused())
            pod = kubectl("get", "pods", "-n", namespace, "-l", "app=fsm-gateway", "-o", "jsonpath={.items[0].status.podIP}")
            async with session.get(f"http://{pod}:9091/metrics") as answer:
                assert "fgw_http_request_total{" in await answer.text()
    finally:
        kubectl("delete", "namespace", namespace, "--wait=false")
