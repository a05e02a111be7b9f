"""`fsm filter`: begin a filter, run its tests, send a request through it, measure what it costs."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from pathlib import Path

import msgspec
import uvloop
import yaml
from rich.table import Table

from controller.cli import console
from controller.cli.console import escape
from controller.inspect.filter_benchmark import Cost, cost
from controller.ports import free_ports
from gateway.runtime.runtime import Runtime
from gateway.scripting import loader
from gateway.scripting.loader import ScriptError
from gateway.snapshot import Attachment, Backend, Change, Endpoint, Listener, Order, Part, Rule, Script, Scripted, Target

SCAFFOLD = '''"""{name}: say here what it does, and for whom."""

from gateway.filters.api import Request, Response


def request(request: Request) -> Response | None:
    """Return a Response to answer here, or nothing to send the request on."""
    if request.path == "/{name}":
        return Response(200, "{name} answers\\n")
    request.headers["X-{title}"] = "seen"
    return None


def response(request: Request, response: Response) -> None:
    """Change what the client gets."""
    response.headers["X-{title}"] = "seen"


def test_it_answers() -> None:
    """Tests are run before an edit takes effect; one that fails keeps the old code."""
    answer = request(Request.of(target="/{name}"))
    assert answer is not None and answer.content == b"{name} answers\\n"


def test_it_marks_requests() -> None:
    asked = Request.of(target="/else")
    assert request(asked) is None
    assert asked.headers["x-{title}"] == "seen"
'''
ATTACH = """filters:
- type: ExtensionRef
  extensionRef: {{group: extension.gateway.flomesh.io, kind: Filter, name: {name}}}"""


def new_filter(name: str, folder: Path) -> None:
    """Write a filter to begin with."""
    if not re.fullmatch("[a-z]([-a-z0-9]{0,61}[a-z0-9])?", name):
        raise SystemExit(f'"{name}": a name of small letters, digits and hyphens is needed, as api-key')
    path = folder / f"{name}.py"
    if path.exists():
        raise SystemExit(f"{path} is there already")
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(SCAFFOLD.format(name=name, title="-".join(word.capitalize() for word in name.split("-"))))
    console.out.print(f"[green]{path}[/] written. Beside your YAML, a rule uses it by")
    console.out.print(ATTACH.format(name=name), markup=False)
    console.out.print(f"[dim]fsm filter test {path}; fsm filter run {path} http://example.com/; fsm run {folder}[/]")


class _Overheard(logging.Handler):
    """Keeps what filters print and log."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        heard = logging.getLogger("fsm.filter")
        heard.addHandler(self)
        heard.setLevel(logging.INFO)

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(f"{record.levelname} {record.name.removeprefix('fsm.filter.')}: {record.getMessage()}")


def _loaded(path: Path, config: str) -> loader.Code:
    try:
        return loader.load(path.stem, path.read_text(), config)
    except ScriptError as error:
        raise SystemExit(f"{path}:{error.line}: {error.reason}" if error.line else f"{path}: {error.reason}") from None


def configuration(path: Path | None) -> str:
    """What a FilterConfig says, from a file of YAML: as JSON."""
    if path is None:
        return "{}"
    try:
        value = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise SystemExit(f"{path}: not YAML: {error}") from None
    if isinstance(value, dict) and value.get("kind") == "FilterConfig":
        value = yaml.safe_load(value["spec"]["config"])
    if not isinstance(value, dict):
        raise SystemExit(f"{path}: a mapping of names to values is needed")
    return msgspec.json.encode(value).decode()


# --- test ---


def test_filters(paths: list[Path], config: Path | None, *, as_json: bool) -> None:
    """Run the tests in filters' own files."""
    said = _Overheard()
    results = [result for path in _sources(paths) for result in _tested(path, configuration(config))]
    failed = sum(1 for outcome in results if outcome["fault"])
    if not results:
        raise console.wrong(f"{', '.join(map(str, paths))}: no .py file was found")
    if as_json:
        console.json(results)
    else:
        for outcome in results:
            mark = "[red]✗[/]" if outcome["fault"] else "[green]✓[/]"
            console.out.print(f"{mark} {escape(outcome['file'])} {outcome['test']} {escape(outcome['fault'])}")
        for line in said.lines:
            console.out.print(f"[dim]{escape(line)}[/]")
        console.out.print(f"{len(results) - failed} passed, {failed} failed")
    raise SystemExit(1 if failed else 0)


def _sources(paths: list[Path]) -> list[Path]:
    return [file for path in paths for file in (sorted(path.rglob("*.py")) if path.is_dir() else [path])]


def _tested(path: Path, config: str) -> list[dict[str, str]]:
    try:
        code = loader.load(path.stem, path.read_text(), config)
    except ScriptError as error:
        return [{"file": f"{path}:{error.line}", "test": "loading", "fault": error.reason}]
    results = []
    for word, test in code.tests.items():
        code.tests = {word: test}
        try:
            asyncio.run(loader.run_tests(code))
            results.append({"file": str(path), "test": word, "fault": ""})
        except ScriptError as error:
            results.append({"file": f"{path}:{error.line}", "test": word, "fault": error.reason.removeprefix(f"{word}: ")})
    return results or [{"file": str(path), "test": "loading (it has no test_… functions)", "fault": ""}]


# --- run ---


class Sent(msgspec.Struct):
    """A request through a filter: what a backend got of it, and what the client got."""

    status: int
    headers: list[tuple[str, str]]
    body: str
    to_backend: str  # empty where the filter answered
    log: list[str]


def run_filter(path: Path, url: str, *, method: str, headers: list[str], body: str, config: Path | None, as_json: bool) -> None:
    """Send one request through a filter, to a backend that answers 200."""
    _loaded(path, configuration(config))
    part = Script(path.stem, path.read_text(), configuration(config), execution="inline", is_tried=False, seconds=30.0)
    said = _Overheard()
    sent = uvloop.run(_send(part, url, method, headers, body))
    sent.log = [*said.lines, *sent.log]
    if as_json:
        console.json(sent)
    else:
        _show(sent)
    raise SystemExit(1 if sent.status >= 500 else 0)


def _show(sent: Sent) -> None:
    if sent.to_backend:
        console.out.print("[bold]the backend gets[/]")
        console.out.print(sent.to_backend, markup=False)
    else:
        console.out.print("[bold]the backend gets[/] nothing: the filter answers")
    console.out.print(f"[bold]the client gets[/] {sent.status}")
    for name, value in sent.headers:
        console.out.print(f"{name}: {value}", markup=False)
    console.out.print(f"\n{sent.body}", markup=False)
    for line in sent.log:
        console.out.print(f"[dim]{escape(line)}[/]" if line.startswith(("INFO ", "DEBUG ")) else f"[red]{escape(line)}[/]")


async def _send(part: Script, url: str, method: str, headers: list[str], body: str) -> Sent:
    import aiohttp

    seen: list[str] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"(?i)content-length: *([0-9]+)", head)
        content = await reader.readexactly(int(length.group(1))) if length else b""
        if b"chunked" in head.lower():
            content = await reader.readuntil(b"0\r\n\r\n")
        seen.append((head + content).decode("utf-8", "replace").replace("\r\n", "\n"))
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 17\r\nConnection: close\r\n\r\nfrom the backend\n"
        )
        writer.close()

    backend = await asyncio.start_server(answer, "127.0.0.1", 0)
    (port,) = free_ports(1)
    runtime = Runtime(bind="127.0.0.1", port_offset=port - 80)
    await runtime.apply(Change(put=parts(part, backend.sockets[0].getsockname()[1])))
    given = dict(header.partition(":")[::2] for header in headers)
    target = re.sub("^https?://[^/?]*", "", url) or "/"
    host = re.match("https?://([^/?]*)", url)
    fields = {
        "Host": host.group(1) if host else "example.com",
        **{name.strip(): value.strip() for name, value in given.items()},
    }
    async with aiohttp.ClientSession() as session:
        from yarl import URL

        local_url = URL(f"http://127.0.0.1:{port}{target if target.startswith('/') else '/' + target}", encoded=True)
        async with session.request(method, local_url, headers=fields, data=body or None, allow_redirects=False) as got:
            text = (await got.read()).decode("utf-8", "replace")
            headers_got = [(name, value) for name, value in got.headers.items()]
            status = got.status
    runtime.close()
    backend.close()
    program = runtime.programs.get(part.name)
    return Sent(status, headers_got, text, seen[0] if seen else "", [program.last_failure] if program.last_failure else [])


def parts(part: Script, port: int) -> tuple[Part, ...]:
    """A gateway with one rule, whose requests pass a filter on their way to a backend on this machine."""
    at = (Attachment("l", ""),)
    rule = Rule("r", Order(), at, filters=(Scripted(part.name),), targets=(Target(1, "default/app:80"),))
    return Listener("l", 80), Backend("default/app:80", (Endpoint("127.0.0.1", port),)), part, rule


# --- bench ---


def bench_filter(path: Path, config: Path | None, *, as_json: bool) -> None:
    """Measure what a filter adds to a request, inline and in a process of its own."""
    _loaded(path, configuration(config))
    part = Script(path.stem, path.read_text(), configuration(config), is_tried=False)
    started = time.perf_counter()
    with console.err.status("measuring"):
        costs: Cost = uvloop.run(cost(part))
    if as_json:
        console.json(costs)
        return
    table = Table("execution", "a request without it", "with it", "it costs", title=str(path))
    for name, without, with_it in (("inline", costs.without, costs.inline), ("process", costs.without_turn, costs.process)):
        table.add_row(name, f"{without:.1f} µs", f"{with_it:.1f} µs", f"[bold]{max(with_it - without, 0):.1f} µs[/]")
    console.out.print(table)
    console.out.print(
        "[dim]inline: CPU of the worker, network not counted. process: time of one request after another through "
        f"real sockets, both processes on this machine. {time.perf_counter() - started:.0f} s[/]"
    )
