"""What a hostile filter can do in a process of its own: fail its own route, and nothing else."""

from __future__ import annotations

import asyncio
import os
import platform
import sys
import textwrap
import time
from pathlib import Path

import pytest
from support.http2_peers import until
from support.proxy import Proxy, Server, make_rule

from gateway.scripting.sandbox import host
from gateway.scripting.sandbox.forkserver import NICE
from gateway.scripting.sandbox.host import SandboxedFilter
from gateway.scripting.watchdog import watch
from gateway.snapshot import Backend, Change, Endpoint, Listener, Match, PathMatch, Script, Scripted, Target

caged = pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() not in ("x86_64", "aarch64"), reason="there are only limits here"
)


async def beside(proxy: Proxy, server: Server, source: str, **options: object) -> None:
    """A route with a filter at /bad, and one without at /."""
    script = Script("bad", "from gateway.filters.api import Response, config\n" + textwrap.dedent(source), **options)
    backend = Backend("b", (Endpoint("127.0.0.1", server.port),))
    target = (Target(1, "b"),)
    await proxy.apply(
        Listener("l", 80), backend, script, make_rule("good", targets=target),
        make_rule("bad", targets=target, matches=(Match(PathMatch("PathPrefix", "/bad")),), filters=(Scripted("bad"),)),
    )  # fmt: skip


def process(proxy: Proxy) -> SandboxedFilter:
    hooks = proxy.runtime.programs.get("bad").hooks
    assert isinstance(hooks, SandboxedFilter)
    return hooks


@pytest.mark.parametrize(
    ("deed", "said"),
    [
        ("while True: pass", "no answer within 0.2 s"),
        ("__import__('time').sleep(60)", "no answer within 0.2 s"),
        ("x = bytearray(1 << 40)", "MemoryError"),
        ("x = [bytearray(1 << 20) for _ in range(10_000)]", "MemoryError"),
        ("__import__('os')._exit(7)", "its process ended"),
        ("__import__('ctypes').string_at(0)", "its process ended"),
        ("raise SystemExit", ""),
        ("raise ZeroDivisionError", "line 5: ZeroDivisionError"),
        ("import sys; sys.setrecursionlimit(10**9); f = lambda: f(); f()", ""),
    ],
    ids=["loop", "sleep", "memory", "memory in pieces", "exit", "segmentation fault", "SystemExit", "exception", "recursion"],
)
async def test_it_hurts_its_own_route_only(proxy: Proxy, server: Server, deed: str, said: str) -> None:
    source = f"""
        def request(request):
            if request.path == '/bad/now':
                {deed}
    """
    await beside(proxy, server, source, seconds=0.2 if "0.2" in said else 10.0, memory=64 << 20)
    assert (await proxy.get("/bad"))[0] == 200
    bad = asyncio.create_task(proxy.get("/bad/now"))
    for _ in range(20):
        assert (await proxy.get("/good"))[0] == 200
    status, _, body = await bad
    assert (status, body) == (500, b"the filter bad failed\n")
    assert said in proxy.runtime.programs.get("bad").last_failure

    async def is_back() -> bool:
        return (await proxy.get("/bad"))[0] == 200

    async with asyncio.timeout(5):
        while not await is_back():
            await asyncio.sleep(0.01)


@caged
@pytest.mark.parametrize(
    ("deed", "error"),
    [
        ("__import__('os').fork()", "PermissionError"),
        ("__import__('os').execv('/bin/true', ['true'])", "PermissionError"),
        ("__import__('subprocess').run(['true'])", "PermissionError"),
        ("__import__('threading').Thread(target=print).start()", "RuntimeError"),
        ("__import__('socket').create_connection(('127.0.0.1', config['port']))", "PermissionError"),
        ("__import__('socket').socket(__import__('socket').AF_UNIX)", "PermissionError"),
        ("open(config['secret']).read()", "PermissionError"),
        ("open(config['secret'], 'w')", "PermissionError"),
        ("__import__('os').listdir('/')", "PermissionError"),
        ("open('/proc/self/environ').read()", "PermissionError"),
        ("__import__('os').kill(config['parent'], 9)", "PermissionError"),
        ("__import__('resource').setrlimit(__import__('resource').RLIMIT_AS, (1 << 40, 1 << 40))", "ValueError"),
    ],
    ids=lambda value: value if len(value) < 20 else value.partition("(")[2].replace("__import__(", "")[:24],
)
async def test_what_it_may_not(proxy: Proxy, server: Server, tmp_path: Path, deed: str, error: str) -> None:
    secret = tmp_path / "secret"
    secret.write_text("s")
    source = f"""
        def request(request):
            try:
                {deed}
            except BaseException as error:
                return Response(200, type(error).__name__)
            return Response(200, "it could")
    """
    config = f'{{"port": {server.port}, "secret": "{secret}", "parent": {os.getpid()}}}'
    await beside(proxy, server, source, config=config)
    assert (await proxy.get("/bad"))[2].decode() == error
    assert process(proxy).runs == "process (limits, landlock, seccomp)"
    assert secret.read_text() == "s"


async def test_its_environment_is_empty(proxy: Proxy, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_TOKEN", "s")
    await beside(proxy, server, "import os\ndef request(request):\n    return Response(200, str(len(os.environ)))")
    assert (await proxy.get("/bad"))[2] == b"0"


async def test_what_is_printed_is_logged_but_not_a_flood(
    proxy: Proxy, server: Server, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level("INFO", "fsm.filter")
    await beside(proxy, server, """
        import os, sys
        def request(request):
            print("hello", request.path)
            print("from stderr", file=sys.stderr)
            os.write(2, b"unseen")
            for number in range(5000):
                print(number)
    """)  # fmt: skip
    assert (await proxy.get("/bad"))[0] == 200
    await until(lambda: "from stderr" in caplog.messages)
    assert caplog.messages[0] == "hello /bad"
    assert len(caplog.messages) <= 200
    assert "unseen" not in capfd.readouterr().err


async def test_monkey_patching_stays_inside(proxy: Proxy, server: Server) -> None:
    await beside(proxy, server, """
        import gateway.http.http1, gateway.filters.api as api
        gateway.http.http1.parse_request = api.Response.raw = None
        def request(request):
            return Response(200, "patched")
    """)  # fmt: skip
    assert (await proxy.get("/bad"))[2] == b"patched"
    assert (await proxy.get("/good"))[0] == 200


async def test_what_its_process_says_is_not_believed(proxy: Proxy, server: Server) -> None:
    """A filter that forges messages: what comes of it is checked here as well."""
    await beside(proxy, server, """
        from gateway.filters import api
        from gateway.http.http1 import Field
        api.Headers.pairs = lambda self: [(b"x-smuggled", b"1\\r\\nContent-Length: 99"), (b"transfer-encoding", b"chunked")]
        def request(request):
            request.path = "/forged"
    """)  # fmt: skip
    assert (await proxy.get("/bad"))[0] == 500
    assert "characters that a field value may not" in proxy.runtime.programs.get("bad").last_failure
    assert not server.seen


async def test_a_flood_of_its_own_messages_ends_it(proxy: Proxy, server: Server) -> None:
    await beside(proxy, server, """
        import gc
        def request(request):
            from gateway.scripting.sandbox.runner import FilterRunner
            cell = next(one for one in gc.get_objects() if isinstance(one, FilterRunner))
            cell._writer.write((1 << 31).to_bytes(4, "big"))
    """)  # fmt: skip
    assert (await proxy.get("/bad"))[0] == 500
    assert "sent what nobody understands" in proxy.runtime.programs.get("bad").last_failure
    assert (await proxy.get("/good"))[0] == 200


async def test_a_source_that_cannot_be_loaded_changes_nothing(proxy: Proxy, server: Server) -> None:
    await beside(proxy, server, "def request(request):\n    return Response(200, 'old')")
    before = process(proxy)
    for source, reason in (
        ("while True: pass", "bad: loading it and its tests took longer than 2 s"),
        ("import os\nos._exit(1)", "bad: its process ended while it was loaded"),
        ("def request(r): pass\ndef test_it():\n    assert 1 == 2", "bad, line 3: test_it: AssertionError: assert 1 == 2"),
        ("def request(r): pass\nasync def test_it():\n    1 / 0", "bad, line 3: test_it: ZeroDivisionError: division by zero"),
        ("def request(r):\n  pass\n\n}", "bad, line 4: SyntaxError: unmatched '}'"),
    ):
        (problem,) = await proxy.runtime.apply(Change(put=(Script("bad", source),)))
        assert problem.message == reason
        assert process(proxy) is before
        assert (await proxy.get("/bad"))[2] == b"old"


async def test_old_processes_end_with_their_last_exchange(proxy: Proxy, server: Server) -> None:
    source = "async def request(request):\n    await request.body()\ndef response(request, response):\n    response.headers['x-v'] = 'V'"
    await beside(proxy, server, source.replace("V", "1"))
    old = process(proxy)
    reader, writer = await proxy.connect()
    writer.write(b"POST /bad HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nConnection: close\r\n\r\nh")
    await until(lambda: proxy.runtime.programs.get("bad").calls)
    await beside(proxy, server, source.replace("V", "2"))
    assert (await proxy.get("/bad"))[1]["x-v"] == "2"
    assert not old.is_dead
    writer.write(b"i")
    assert b"x-v: 1\r\n" in await reader.read()
    await until(lambda: old.is_dead)
    writer.close()


@pytest.mark.skipif(not hasattr(os, "SCHED_IDLE"), reason="nobody stands back here")
async def test_others_go_first_most_of_all_before_one_that_has_been_replaced(proxy: Proxy, server: Server) -> None:
    spinning = """
    import asyncio
    async def spin():
        await asyncio.sleep(0.05)
        while True:
            pass
    task = asyncio.get_event_loop().create_task(spin())
    def request(request): pass
    """
    await beside(proxy, server, spinning)
    old = process(proxy)
    assert os.getpriority(os.PRIO_PROCESS, old.pid) == min(os.getpriority(os.PRIO_PROCESS, 0) + NICE, 19)
    assert os.sched_getscheduler(old.pid) == os.SCHED_OTHER
    await beside(proxy, server, "def request(request): pass")
    await until(lambda: os.sched_getscheduler(old.pid) == os.SCHED_IDLE)
    await until(lambda: not Path(f"/proc/{old.pid}").exists())  # it does not end by itself


async def test_a_process_that_dies_again_and_again_waits_longer(proxy: Proxy, server: Server) -> None:
    await beside(proxy, server, "def request(request):\n    __import__('os')._exit(1)")
    assert (await proxy.get("/bad"))[0] == 500
    first = process(proxy)
    await until(lambda: process(proxy) is not first)
    assert (await proxy.get("/bad"))[0] == 500  # from now on there is a pause
    assert (await proxy.get("/bad"))[0] == 500
    assert (await proxy.get("/good"))[0] == 200
    await proxy.apply(
        Script("bad", "from gateway.filters.api import Response\ndef request(request):\n    return Response(200, 'good')")
    )
    assert (await proxy.get("/bad"))[2] == b"good"


async def test_a_first_source_that_has_bad_luck_is_tried_again(
    proxy: Proxy, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    await proxy.route(server, name="bad", filters=(Scripted("bad"),))
    monkeypatch.setattr(host, "LOADING", 0.0)
    source = "from gateway.filters.api import Response\ndef request(request):\n    return Response(200, 'here')"
    (problem,) = await proxy.runtime.apply(Change(put=(Script("bad", source),)))
    assert "took longer than" in problem.message
    assert (await proxy.get())[0] == 500
    monkeypatch.setattr(host, "LOADING", 2.0)
    await until(lambda: proxy.runtime.programs.get("bad").hooks is not None)
    assert (await proxy.get())[2] == b"here"


async def test_an_inline_filter_is_tried_elsewhere_first(proxy: Proxy, server: Server) -> None:
    await beside(proxy, server, "def request(request):\n    return Response(200, 'old')", execution="inline")
    (problem,) = await proxy.runtime.apply(Change(put=(Script("bad", "import os\nos._exit(1)", execution="inline"),)))
    assert problem.message == "bad: its process ended while it was loaded"
    assert (await proxy.get("/bad"))[2] == b"old"


@pytest.mark.parametrize("deed", ["while True: pass", "__import__('time').sleep(60)"], ids=["loop", "sleep"])
@pytest.mark.parametrize("word", ["def", "async def"])
async def test_an_inline_filter_that_does_not_come_back_is_interrupted_and_moved_out(
    proxy: Proxy, server: Server, deed: str, word: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "patience", 0.1)
    source = f"""
        {word} request(request):
            if request.path == '/bad/now':
                try:
                    {deed}
                except Exception:
                    pass
    """
    await beside(proxy, server, source, execution="inline", is_tried=False, seconds=0.2)
    for _ in range(4):  # so often that it takes the fast path
        assert (await proxy.get("/bad"))[0] == 200
    assert (await proxy.get("/bad/now"))[0] == 500
    program = proxy.runtime.programs.get("bad")
    assert "StuckError: it did not come back, and was interrupted here" in program.last_failure
    assert program.last_failure.startswith("line 6: ")
    assert (await proxy.get("/good"))[0] == 200
    await until(lambda: isinstance(program.hooks, SandboxedFilter))
    assert (await proxy.get("/bad"))[0] == 200


async def test_what_handles_an_interruption_is_not_interrupted(
    proxy: Proxy, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "patience", 0.1)
    await beside(proxy, server, "def request(request):\n    while True: pass", execution="inline", is_tried=False)
    program = proxy.runtime.programs.get("bad")
    program.overdue = lambda: time.sleep(0.3)
    assert (await proxy.get("/bad"))[0] == 500
    assert "StuckError" in program.last_failure


async def test_an_inline_filter_that_is_slow_again_and_again_is_moved_out(proxy: Proxy, server: Server) -> None:
    await beside(proxy, server, "import time\ndef request(request):\n    time.sleep(0.06)", execution="inline", is_tried=False)
    program = proxy.runtime.programs.get("bad")
    for _ in range(8):
        assert (await proxy.get("/bad"))[0] == 200
    await until(lambda: isinstance(program.hooks, SandboxedFilter))
