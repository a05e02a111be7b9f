"""Secrets stay where they are used: canaries in every field that can hold one, and a look at everything that is said or shown.

Also what the system would show of our processes: cores, memory, environments, command lines.
"""

from __future__ import annotations

import asyncio
import base64
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import trustme
import yaml
from support.stage import PLURALS, Stage
from support.standalone import Running

EXTENSION = "extension.gateway.flomesh.io/v1alpha1"
GATEWAY = "gateway.networking.k8s.io/v1"
POLICY = "gateway.flomesh.io/v1alpha1"
SCRIPT = """
from gateway.filters.api import Response, config, secrets, shared
def request(request):
    if request.path == "/fail":
        raise ValueError("on purpose")
    assert config["password"] and secrets["key"]
async def log(exchange):
    await shared.add("seen")
def test_it_loads():
    assert True
"""


def canary(number: int) -> str:
    return f"canary{number:03}sings"


CANARIES = [canary(number) for number in range(40)]


def b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def named(api: str, kind: str, name: str, **rest: object) -> dict:
    return {"apiVersion": api, "kind": kind, "metadata": {"name": name, "namespace": "default"}, **rest}


def secret(name: str, type_: str = "Opaque", **data: str) -> dict:
    return named("v1", "Secret", name, type=type_, data={k.replace("_", "."): b64(v) for k, v in data.items()})


def filter_(name: str, type_: str, **rest: object) -> list[dict]:
    return [named(EXTENSION, "Filter", name, spec={"type": type_, "configRef": {"kind": type_, "name": name}, **rest})]


def reference(name: str) -> dict:
    return {"type": "ExtensionRef", "extensionRef": {"group": EXTENSION.partition("/")[0], "kind": "Filter", "name": name}}


def good(certificate: str, key: str) -> list[dict]:
    """Objects that are in force, each with a canary wherever a secret can stand."""
    at = {"parentRefs": [{"name": "gw"}]}
    listeners = [
        {"name": "http", "port": 80, "protocol": "HTTP"},
        {"name": "https", "port": 443, "protocol": "HTTPS", "hostname": "a.example",
         "tls": {"certificateRefs": [{"name": "certificate"}]}},
    ]  # fmt: skip
    rules = [{"matches": [{"path": {"type": "PathPrefix", "value": "/"}}],
              "filters": [reference(name) for name in ("own", "logged", "hooked", "limited")],
              "backendRefs": [{"name": "back", "port": 80}]}]  # fmt: skip
    return [
        named(GATEWAY, "Gateway", "gw", spec={"gatewayClassName": "fsm-gateway-cls", "listeners": listeners}),
        secret("certificate", "kubernetes.io/tls", tls_crt=certificate, tls_key=key),
        named(GATEWAY, "HTTPRoute", "r", spec={**at, "rules": rules}),
        named("v1", "Service", "back", spec={"ports": [{"port": 80}]}),
        named("discovery.k8s.io/v1", "EndpointSlice", "back-1", addressType="IPv4", endpoints=[{"addresses": ["127.0.0.1"]}],
              ports=[{"port": 9}]) | {"metadata": {"name": "back-1", "namespace": "default",
                                                   "labels": {"kubernetes.io/service-name": "back"}}},
        secret("own", key=canary(1)),
        secret("store", password=canary(2)),
        named(EXTENSION, "NamespacedFilterDefinition", "own", spec={"type": "Own", "script": SCRIPT}),
        named(EXTENSION, "FilterConfig", "own", spec={"config": f"password: {canary(3)}"}),
        named(EXTENSION, "Filter", "own", spec={
            "type": "Own", "definitionRef": {"kind": "NamespacedFilterDefinition", "name": "own"},
            "configRef": {"kind": "FilterConfig", "name": "own"},
            "secrets": [{"name": "key", "secretRef": {"name": "own", "key": "key"}}],
            "store": {"host": "127.0.0.1", "port": 9, "username": "u", "passwordRef": {"name": "store", "key": "password"}},
        }),
        named(EXTENSION, "HTTPLog", "logged", spec={
            "target": f"http://user:{canary(4)}@127.0.0.1:9/", "headers": {"Authorization": f"Bearer {canary(5)}"},
            "batch": {"interval": "100ms"},
        }),
        *filter_("logged", "HTTPLog"),
        named(EXTENSION, "HTTPLog", "hooked", spec={
            "target": f"http://127.0.0.1:9/hooks/{canary(7)}?key={canary(8)}", "batch": {"interval": "100ms"},
        }),
        *filter_("hooked", "HTTPLog"),
        named(EXTENSION, "RateLimit", "limited", spec={"requests": 100, "interval": "1s"}),
        *filter_("limited", "RateLimit",
                 store={"host": "127.0.0.1", "port": 9, "passwordRef": {"name": "store", "key": "password"}}),
        named(EXTENSION, "Zipkin", "traced", spec={"samplePercentage": 100, "target": f"http://u:{canary(6)}@127.0.0.1:9/api/v2/spans"}),
        named(EXTENSION, "ListenerFilter", "traced", spec={
            "type": "Zipkin", "aspect": "Route", "configRef": {"kind": "Zipkin", "name": "traced"},
            "targetRefs": [{"group": GATEWAY.partition("/")[0], "kind": "Gateway", "name": "gw", "port": 80}],
        }),
    ]  # fmt: skip


def broken(key: str) -> list[dict]:
    """Objects that are refused, with a canary in what is wrong, or near it."""
    config = {"targetRefs": [{"group": "", "kind": "Service", "name": "back", "port": 80}]}
    return [
        secret("not-a-key", "kubernetes.io/tls", tls_crt="nothing", tls_key=canary(10)),
        secret("half-a-key", "kubernetes.io/tls", tls_crt=canary(11), tls_key="\n".join(key.splitlines()[:4])),
        named("v1", "Secret", "not-base64", data={"k": f"!{canary(12)}"}),
        named("v1", "Secret", "not-text", data={"k": [canary(13)]}),
        named("v1", "Secret", "no-map", data=canary(14)),
        named("v1", "Secret", "plain-wrong", stringData={"k": {"x": canary(15)}}),
        named("v1", "Secret", "typed-wrong", type={"x": canary(16)}, data={"k": b64("v")}),
        named("v1", "Secret", "unknown-field", datas={"k": canary(17)}),
        named(EXTENSION, "HTTPLog", "wrong", spec={"target": f"ftp://user:{canary(18)}@x/", "headers": [canary(19)]}),
        named(EXTENSION, "HTTPLog", "wronger", spec={"target": "http://x/", "headers": {"Authorization": [canary(20)]}}),
        named(EXTENSION, "Zipkin", "wrong", spec={"samplePercentage": 1000, "target": f"http://u:{canary(21)}@[::1/"}),
        *filter_("wrong", "HTTPLog"),
        named(EXTENSION, "FilterConfig", "wrong", spec={"config": f"password: [{canary(22)}"}),
        named(EXTENSION, "FilterConfig", "no-text", spec={"config": {"password": canary(23)}}),
        named(EXTENSION, "Filter", "wrong-config", spec={
            "type": "Own", "definitionRef": {"kind": "NamespacedFilterDefinition", "name": "own"},
            "configRef": {"kind": "FilterConfig", "name": "wrong"},
            "secrets": [{"name": "key", "secretRef": {"name": "not-base64", "key": "k"}}],
        }),
        named(EXTENSION, "Filter", "wrong-store", spec={
            "type": "RateLimit", "configRef": {"kind": "RateLimit", "name": "limited"},
            "store": {"host": "x", "passwordRef": {"name": "not-base64", "key": "k"}},
        }),
        named(EXTENSION, "Filter", "password-itself", spec={
            "type": "RateLimit", "configRef": {"kind": "RateLimit", "name": "limited"}, "store": {"host": "x", "password": canary(24)},
        }),
        named(EXTENSION, "Filter", "password-for-its-name", spec={
            "type": "RateLimit", "configRef": {"kind": "RateLimit", "name": "limited"},
            "store": {"host": "x", "passwordRef": canary(25)},
        }),
        named(EXTENSION, "Filter", "secret-for-its-name", spec={
            "type": "Own", "definitionRef": {"kind": "NamespacedFilterDefinition", "name": "own"},
            "secrets": [{"name": "key", "secretRef": canary(26)}],
        }),
        named(GATEWAY, "Gateway", "bad", spec={"gatewayClassName": "fsm-gateway-cls", "listeners": [
            {"name": f"l{index}", "port": 8443, "protocol": "HTTPS", "hostname": f"h{index}.example",
             "tls": {"certificateRefs": [{"name": name}]}}
            for index, name in enumerate(("not-a-key", "half-a-key", "not-base64", "not-text", "plain-wrong"))
        ]}),
        named(GATEWAY, "HTTPRoute", "bad", spec={"parentRefs": [{"name": "gw"}], "hostnames": ["bad.example"], "rules": [
            {"filters": [reference(name)]} for name in ("wrong-config", "wrong-store", "password-itself", "wrong")
        ]}),
        named(POLICY, "UpstreamTLSPolicy", "bad", spec={**config, "config": {"certificateRef": {"name": "not-a-key"}}}),
    ]  # fmt: skip


def leaked(text: str, key: str) -> list[str]:
    """Canaries that it holds, as they are or in base64; and lines of the key."""
    found = [one for one in CANARIES if one in text or b64(one)[2:-4] in text]
    return found + [line for line in key.splitlines()[1:-1] if len(line) > 20 and (line in text or b64(line)[2:-4] in text)]


@pytest.fixture
def material() -> tuple[str, str]:
    made = trustme.CA().issue_cert("a.example")
    return made.cert_chain_pems[0].bytes().decode(), made.private_key_pem.bytes().decode()


@pytest.fixture
def folder(tmp_path: Path, material: tuple[str, str]) -> Path:
    folder = tmp_path / "objects"
    folder.mkdir()
    (folder / "good.yaml").write_text(yaml.safe_dump_all(good(*material)))
    for index, one in enumerate(broken(material[1])):  # a file each: one does not hide another
        (folder / f"broken-{index}.yaml").write_text(yaml.safe_dump(one))
    return folder


async def test_a_gateway_that_runs_tells_no_secret(folder: Path, material: tuple[str, str]) -> None:
    running = await Running(folder).start()
    try:
        assert (await running.get("/"))[0] in (502, 503, 504), "its backend is not there; all else was gone through"
        await running.get("/fail")
        await asyncio.sleep(0.5)  # batches of logs and spans that cannot be sent are given up
        shown = {}
        for path in ("/", "/snapshot", "/metrics", "/status", "/faults", "/healthz", "/readyz", "/missing"):
            async with running.session.get(running.admin + path) as answer:
                shown[path] = await answer.text()
        for path in ("/filters", "/events"):
            with pytest.raises(TimeoutError) if path == "/events" else no_matter():
                async with asyncio.timeout(0.5), running.session.get(running.admin + path) as answer:
                    shown[path] = ""
                    async for line in answer.content:
                        shown[path] += line.decode()
        assert "default/own" in shown["/snapshot"]
        assert "(withheld)" in shown["/snapshot"]
        assert "half-a-key" in shown["/status"]
        shown["log"] = running.said
        shown["processes"] = "\n".join(seen(pid) for pid in family(running.process.pid))
        for where, text in shown.items():
            assert not leaked(text, material[1]), (where, text)
    finally:
        await running.stop()
    assert not leaked(running.said, material[1]), "log"


class no_matter:  # noqa: N801
    def __enter__(self) -> None: ...
    def __exit__(self, *_: object) -> bool:
        return False


@pytest.mark.parametrize("command", [["validate"], ["translate"], ["status"], ["explain", "GET", "http://a.example/"]])
def test_what_the_command_says_of_files_holds_no_secret(folder: Path, material: tuple[str, str], command: list[str]) -> None:
    arguments = [command[0], str(folder), *command[1:]]
    done = subprocess.run(
        [sys.executable, "-m", "controller", *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "400"},
        timeout=60,
    )
    said = done.stdout + done.stderr
    assert "Traceback" not in said
    assert len(said) > 100
    assert not leaked(said, material[1])


# --- what the system shows ---


def family(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(one for child in children for one in family(int(child)))]


def seen(pid: int) -> str:
    """Its command line and its environment, where one may look at it."""
    parts = []
    for name in ("cmdline", "environ"):
        try:
            parts.append(Path(f"/proc/{pid}/{name}").read_bytes().decode(errors="replace"))
        except PermissionError:
            pass
    return "\n".join(parts)


# Capabilities let root look anywhere, and nobody without them look at root.
PLAIN = ("setpriv", "--bounding-set", "-all", "--inh-caps", "-all") if os.geteuid() == 0 else ()


def may_read(path: str) -> bool:
    """Whether another process of the same user, without capabilities, may."""
    return subprocess.run([*PLAIN, "head", "-c", "1", path], capture_output=True).returncode == 0


async def test_no_process_of_ours_shows_its_memory_or_leaves_a_core(folder: Path) -> None:
    running = await Running(folder).start(prefix=PLAIN)
    try:
        await running.get("/")
        pids = family(running.process.pid)
        assert len(pids) > 3, "parent, worker, forkserver, cells"
        with subprocess.Popen([*PLAIN, sys.executable, "-c", "print(flush=True); input()"], stdin=-1, stdout=-1) as plain:
            assert plain.stdout is not None
            plain.stdout.readline()
            assert may_read(f"/proc/{plain.pid}/environ"), "the check can tell"
            plain.kill()
        for pid in pids:
            assert resource.prlimit(pid, resource.RLIMIT_CORE) == (0, 0)
            assert not may_read(f"/proc/{pid}/environ")
            assert not may_read(f"/proc/{pid}/maps")
    finally:
        await running.stop()


def test_what_keeps_to_itself_still_loads_certificates_without_being_root(material: tuple[str, str]) -> None:
    """The kernel gives such a process's files in /proc to root; those of its own it may read all the same."""
    code = (
        "import os, sys\n"
        "from gateway.tls import contexts as tls\n"
        "from gateway.base.privacy import keep_to_yourself\n"
        "from gateway.snapshot import Certificate\n"
        "from controller.kubernetes.feed_tls import Authority\n"
        "if os.geteuid() == 0: os.setgroups([]); os.setgid(65532); os.setuid(65532)\n"
        "keep_to_yourself()\n"
        "chain, key = sys.stdin.read().split('----cut----')\n"
        "tls.context(Certificate('c', chain, key))\n"
        "Authority.new().server_context('localhost')\n"
        "print(os.stat('/proc/self/environ').st_uid, os.geteuid(), len(os.listdir('/proc/self/fd')) > 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], input="----cut----".join(material), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    owner, user, lists = done.stdout.split()
    assert (owner, lists) == ("0", "True")
    assert user != "0"


# --- on a cluster ---


@pytest.mark.parametrize("only", ["good", "broken"])
async def test_a_controller_tells_no_secret(only: str, material: tuple[str, str], tmp_path: Path, caplog: Any) -> None:
    caplog.set_level("DEBUG", "fsm")
    stage = Stage(None)
    for one in (*good(*material), *(broken(material[1]) if only == "broken" else ())):
        stage.server.put(PLURALS[one["kind"]], one)
    async with stage.running(), stage.data_plane(tmp_path, "default/gw") as told:
        await stage.until(lambda: told)
        await stage.until(lambda: "status" in (stage.server.find("gateways", "default", "gw") or ()))
        await asyncio.sleep(0.5)
        assert material[1].splitlines()[1] in str(told[0].put[0].key), "the data plane has what it needs"  # type: ignore[union-attr]
        said = [obj.get("status") for obj in stage.server.objects.values()]
        made = [obj for at, obj in stage.server.objects.items() if at[1] in ("deployments", "serviceaccounts", "services")]
    for where, text in (("statuses", str(said)), ("what runs", str(made)), ("log", caplog.text)):
        assert not leaked(text, material[1]), (where, text)
