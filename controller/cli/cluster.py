"""The commands that need a cluster: `fsm install`, `uninstall`, `version`, `gateway enable|disable|status`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import yaml
from rich.table import Table

from controller.cli import console
from controller.cli.console import escape
from controller.deploy import install
from controller.deploy.install import Values
from controller.deploy.manifests import Json
from controller.files.validate import bundle, extensions
from controller.kubernetes.api import Api, ApiError, connect, path
from controller.objects.base import CONTROLLER, GATEWAY_CLASS, GATEWAY_GROUP
from gateway import __version__

PLURALS = {
    "Namespace": "namespaces", "ServiceAccount": "serviceaccounts", "ClusterRole": "clusterroles",
    "ClusterRoleBinding": "clusterrolebindings", "Role": "roles", "RoleBinding": "rolebindings", "Service": "services",
    "Deployment": "deployments", "PodDisruptionBudget": "poddisruptionbudgets", "GatewayClass": "gatewayclasses",
    "CustomResourceDefinition": "customresourcedefinitions",
}  # fmt: skip
VERSION = f"{GATEWAY_GROUP}/bundle-version"
CHANNEL = f"{GATEWAY_GROUP}/channel"
KEYS = (
    "fsm.image",
    "fsm.replicas",
    "fsm.meshName",
    "fsm.fsmGateway.enabled",
    "fsm.filters.allowInline",
    "fsm.secretNamespaces",
)


def _where(obj: Json) -> str:
    meta = obj["metadata"]
    return path(obj["apiVersion"], PLURALS[obj["kind"]], meta.get("namespace", ""), meta["name"])


def _run(kubeconfig: str, work: Callable[[Api], Awaitable[None]]) -> None:
    async def inner() -> None:
        async with connect(kubeconfig) as api:
            try:
                await work(api)
            except ApiError as error:
                raise SystemExit(f"the cluster says no: {error}") from None

    asyncio.run(inner())


def _values(namespace: str, mesh_name: str, settings: list[str]) -> Values:
    chosen: dict[str, str] = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals or key not in KEYS:
            raise SystemExit(f"--set {setting}: not known; {', '.join(f'{key}=…' for key in KEYS)} are")
        chosen[key] = value
    enabled = _flag(chosen, "fsm.fsmGateway.enabled", "true")
    replicas = chosen.get("fsm.replicas", "1")
    if not replicas.isdigit():
        raise SystemExit(f"--set fsm.replicas={replicas}: a number is needed")
    return Values(
        namespace=namespace,
        mesh_name=chosen.get("fsm.meshName", mesh_name),
        image=chosen.get("fsm.image", Values().image),
        inline_filters=_flag(chosen, "fsm.filters.allowInline", "false"),
        secret_namespaces=install.namespaces(chosen.get("fsm.secretNamespaces", "")),
        replicas=int(replicas) if enabled == "true" else 0,
    )


def _flag(chosen: dict[str, str], key: str, default: str) -> str:
    value = chosen.get(key, default).lower()
    if value not in ("true", "false"):
        raise SystemExit(f"--set {key}={value}: true or false is needed")
    return value


# --- install ----------------------------------------------------------------------------------------------


def install_cluster(
    *,
    namespace: str,
    kubeconfig: str,
    settings: list[str],
    mesh_name: str,
    channel: str,
    skip_crds: bool,
    dry_run: bool,
    timeout: str,
) -> None:
    """CRDs, controller, class; wait until the controller works. `skip_crds` leaves the Gateway API's, never our own."""
    values = _values(namespace, mesh_name, settings)
    if channel not in ("standard", "experimental"):
        raise SystemExit(f'--channel {channel}: "standard" or "experimental" is needed')
    given = extensions() if skip_crds else (*bundle()[channel], *extensions())
    crds = [obj for obj in given if obj["kind"] == "CustomResourceDefinition"]
    if dry_run:
        every = [*crds, install.namespace(values), *install.objects(values)]
        console.out.print(yaml.dump_all(every, Dumper=yaml.CSafeDumper, sort_keys=False), markup=False, soft_wrap=True, end="")
        return
    seconds = console.duration(timeout)

    async def work(api: Api) -> None:
        with console.err.status("Gateway API CRDs") as progress:
            for crd in crds:
                console.err.print(f"  {crd['metadata']['name']} … {await _install_crd(api, crd)}")
            await _install_namespace(api, values)
            for obj in install.objects(values):
                progress.update(f"{obj['kind']} {obj['metadata']['name']}")
                await _apply_when_served(api, obj)
                console.err.print(f"  {obj['kind'].lower()}/{obj['metadata']['name']} … Done")
            await _remove_roles(api, values.mesh_name, values.secret_namespaces)
            if values.replicas:
                progress.update("fsm-controller is being deployed")
                await _wait(lambda: _controller_state(api, values), seconds, "the controller")
                console.err.print("  fsm-controller … Done")
                progress.update("the GatewayClass is being accepted")
                await _wait(lambda: _class_state(api), seconds, f"GatewayClass {GATEWAY_CLASS}")
        console.out.print(
            escape(f"FSM installed successfully in namespace [{values.namespace}] with mesh name [{values.mesh_name}]"),
            soft_wrap=True,
        )

    _run(kubeconfig, work)


async def _remove_roles(api: Api, mesh_name: str, but: tuple[str, ...]) -> None:
    """Take back the right to read Secrets in each namespace but these; the Role at home is another matter."""
    name = f"{install.NAME}-{mesh_name}"
    marked = f"app={install.NAME},app.kubernetes.io/managed-by=fsm,app.kubernetes.io/instance={mesh_name}"
    for plural in ("rolebindings", "roles"):
        for obj in (await api.get(path("rbac.authorization.k8s.io/v1", plural), labelSelector=marked))["items"]:
            meta = obj["metadata"]
            if meta["name"] == name and meta["namespace"] not in but:
                await api.delete(path("rbac.authorization.k8s.io/v1", plural, meta["namespace"], name))
                console.err.print(f"  {plural[:-1]}/{name} in {meta['namespace']} … removed")


async def _install_crd(api: Api, crd: Json) -> str:
    """Leave the same or a newer version alone; a channel only ever gets wider, as fields that go take their values along."""
    installed = await api.find(_where(crd))
    wanted = crd["metadata"].get("annotations", {})
    if installed is not None and VERSION in crd["metadata"].get("annotations", {}):
        standing = installed["metadata"].get("annotations", {})
        stands, ours = _number(standing.get(VERSION, "")), _number(wanted[VERSION])
        widens = stands == ours and wanted[CHANNEL] == "experimental" and standing.get(CHANNEL) == "standard"
        if stands >= ours and not widens:
            return f"left alone ({standing.get(VERSION, '')} {standing.get(CHANNEL, '')} stands)"
    await api.apply(_where(crd), crd)
    return "Done"


def _number(version: str) -> tuple[int, ...]:
    digits = version.lstrip("v").partition("-")[0].split(".")
    return tuple(int(part) if part.isdigit() else 0 for part in digits)


async def _install_namespace(api: Api, values: Values) -> None:
    """One that is there already is somebody else's: it gets none of our labels."""
    if await api.find(path("v1", "namespaces", "", values.namespace)) is None:
        await api.apply(path("v1", "namespaces", "", values.namespace), install.namespace(values))


async def _apply_when_served(api: Api, obj: Json) -> None:
    """A kind whose CRD was made a moment ago is served a moment later."""
    for attempt in range(50):
        try:
            await api.apply(_where(obj), obj)
        except ApiError as error:
            if error.status != 404 or obj["kind"] != "GatewayClass" or attempt == 49:
                raise
            await asyncio.sleep(0.2)
        else:
            return


async def _wait(state: Callable[[], Awaitable[str]], seconds: float, what: str) -> None:
    """Until `state` is empty."""
    last = ""
    try:
        async with asyncio.timeout(seconds):
            while last := await state():
                await asyncio.sleep(0.25)
    except TimeoutError:
        raise SystemExit(f"{what} is not ready after {seconds:g} s: {last}") from None


async def _controller_state(api: Api, values: Values) -> str:
    deployment = await api.get(path("apps/v1", "deployments", values.namespace, install.NAME))
    status = deployment.get("status", {})
    if status.get("observedGeneration", 0) < deployment["metadata"]["generation"]:
        return "the Deployment has not been looked at yet"
    ready, wanted = status.get("readyReplicas", 0), deployment["spec"]["replicas"]
    if ready >= wanted and status.get("updatedReplicas", 0) >= wanted:
        return ""
    return f"{ready} of {wanted} pods are ready (kubectl -n {values.namespace} describe pods -l app={install.NAME})"


async def _class_state(api: Api) -> str:
    gateway_class = await api.find(path(f"{GATEWAY_GROUP}/v1", "gatewayclasses", "", GATEWAY_CLASS))
    conditions = (gateway_class or {}).get("status", {}).get("conditions", [])
    accepted: Json = next((c for c in conditions if c["type"] == "Accepted"), {})
    return "" if accepted.get("status") == "True" else str(accepted.get("message", "no condition yet"))


# --- uninstall --------------------------------------------------------------------------------------------


def uninstall_cluster(*, namespace: str, kubeconfig: str, mesh_name: str, force: bool) -> None:
    """Remove what carries our labels; CRDs, the namespace and everything of other people's stay."""
    values = Values(namespace=namespace, mesh_name=mesh_name)
    if not force:
        answer = console.out.input(escape(f"Uninstall FSM [mesh name: {mesh_name}] in namespace [{namespace}]? [y/n] "))
        if answer.strip().lower() not in ("y", "yes"):
            raise SystemExit("nothing was removed")

    async def work(api: Api) -> None:
        for obj in reversed(install.objects(values)):
            existing = await api.find(_where(obj))
            if existing is None:
                continue
            marks = existing["metadata"].get("labels", {})
            ours = marks.get("app.kubernetes.io/managed-by") == "fsm"
            if not ours or marks.get("app.kubernetes.io/instance", mesh_name) != mesh_name:
                console.err.print(
                    f"  {obj['kind'].lower()}/{obj['metadata']['name']} … left alone: not made by this installation"
                )
                continue
            await api.delete(_where(obj), propagationPolicy="Background")
            console.err.print(f"  {obj['kind'].lower()}/{obj['metadata']['name']} … removed")
        await _remove_roles(api, mesh_name, ())
        await api.delete(path("v1", "secrets", namespace, "fsm-feed-ca"))
        console.out.print(escape(f"FSM [mesh name: {mesh_name}] in namespace [{namespace}] uninstalled"))
        console.err.print(f"[dim]Gateways, routes, CRDs and namespace {namespace} are left as they are.[/]")

    _run(kubeconfig, work)


# --- looking ----------------------------------------------------------------------------------------------


def show_version(*, client_only: bool, as_json: bool) -> None:
    """This command's version, and the controllers' on the cluster."""
    control_planes: list[dict[str, str]] = []

    async def work(api: Api) -> None:
        answer = await api.get("/apis/apps/v1/deployments", labelSelector=f"app={install.NAME}")
        for item in answer["items"]:
            meta = item["metadata"]
            control_planes.append(
                {
                    "mesh": meta.get("labels", {}).get("app.kubernetes.io/instance", ""),
                    "namespace": meta["namespace"],
                    "version": meta.get("labels", {}).get("app.kubernetes.io/version", ""),
                    "image": item["spec"]["template"]["spec"]["containers"][0]["image"],
                }
            )

    if not client_only:
        try:
            _run("", work)
        except SystemExit as error:
            if not as_json:
                console.err.print(f"[dim]{escape(str(error))}[/]")
    if as_json:
        console.json({"client": __version__, "gatewayApi": bundle()["version"], "controlPlanes": control_planes})
        return
    console.out.print(f"CLI Version: {__version__} (Gateway API {bundle()['version']})")
    if control_planes:
        table = Table("MESH NAME", "MESH NAMESPACE", "VERSION", "IMAGE", box=None, pad_edge=False)
        for row in control_planes:
            table.add_row(*row.values())
        console.out.print(table)
    elif not client_only:
        console.out.print("Unable to find FSM control plane in the cluster")


def switch_gateway(*, namespace: str, kubeconfig: str, on: bool) -> None:
    """Scale the controller up or down. Gateways and classes are never touched."""
    word = "enabled" if on else "disabled"

    async def work(api: Api) -> None:
        deployment_path = path("apps/v1", "deployments", namespace, install.NAME)
        deployment = await api.find(deployment_path)
        if deployment is None:
            raise SystemExit(f"no controller in namespace {namespace}: run fsm install first")
        running = bool(deployment["spec"].get("replicas", 0))
        if running == on:
            console.out.print(f"Gateway is {word} already, no action needed")
            return
        await api.merge(deployment_path, {"spec": {"replicas": 1 if on else 0}})
        if on:
            with console.err.status("waiting for the controller"):
                await _wait(lambda: _controller_state(api, Values(namespace=namespace)), 300, "the controller")
        console.out.print(f"Gateway is {word} successfully")

    _run(kubeconfig, work)


def show_gateways(*, namespace: str, kubeconfig: str, as_json: bool) -> None:
    """Controller, classes and Gateways in one look."""
    result: dict[str, Any] = {}

    async def work(api: Api) -> None:
        deployment = await api.find(path("apps/v1", "deployments", namespace, install.NAME))
        result["controller"] = {
            "installed": deployment is not None,
            "ready": (deployment or {}).get("status", {}).get("readyReplicas", 0),
        }
        classes = (await api.get(path(f"{GATEWAY_GROUP}/v1", "gatewayclasses")))["items"]
        ours = {c["metadata"]["name"] for c in classes if c["spec"]["controllerName"] == CONTROLLER}
        result["classes"] = sorted(ours)
        gateways = (await api.get(path(f"{GATEWAY_GROUP}/v1", "gateways")))["items"]
        result["gateways"] = [_gateway_row(g) for g in gateways if g["spec"]["gatewayClassName"] in ours]

    _run(kubeconfig, work)
    if as_json:
        console.json(result)
        return
    state = result["controller"]
    console.out.print(f"controller: {state['ready']} ready" if state["installed"] else "controller: not installed")
    console.out.print(f"classes: {', '.join(result['classes']) or 'none'}")
    table = Table("NAMESPACE", "NAME", "ADDRESS", "PROGRAMMED", "ROUTES", "MESSAGE", box=None, pad_edge=False)
    for row in result["gateways"]:
        table.add_row(*(escape(str(value)) for value in row.values()))
    console.out.print(table)


def _gateway_row(gateway: Json) -> dict[str, Any]:
    status = gateway.get("status", {})
    programmed: Json = next((c for c in status.get("conditions", []) if c["type"] == "Programmed"), {})
    return {
        "namespace": gateway["metadata"]["namespace"],
        "name": gateway["metadata"]["name"],
        "address": ", ".join(a["value"] for a in status.get("addresses", [])),
        "programmed": programmed.get("status", "Unknown"),
        "routes": sum(listener.get("attachedRoutes", 0) for listener in status.get("listeners", [])),
        "message": programmed.get("message", ""),
    }
