"""The admin server of `fsm run`: who may read, and who may write a filter's source."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable

import aiohttp
import pytest
from support.admin import GREETING, ROUTE, Plane, Writable, save
from support.standalone import Running

from gateway.admin.server import Admin


@pytest.fixture
async def greeting(running: Running) -> Running:
    (running.folder / "greeting.py").write_text(GREETING)
    (running.folder / "greeting.yaml").write_text(ROUTE)
    await running.start()
    await running.until(lambda: "#key=" in running.said)
    return running


async def test_an_edit_is_in_force_when_it_is_answered(greeting: Running) -> None:
    assert await greeting.get(host="greeting.example") == (200, "hello\n")
    for word in ("servus", "moin", "grüß Gott"):
        status, said = await save(greeting, GREETING.replace("hello", word))
        assert (status, said["in_force"]) == (200, True), said
        assert await greeting.get(host="greeting.example") == (200, f"{word}\n")
    assert "grüß Gott" in (greeting.folder / "greeting.py").read_text()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (GREETING.replace("200,", "200"), "line 5: SyntaxError"),
        (GREETING.replace('Response(200, "hello', 'Response(200, "hi'), "test_greeting"),
    ],
)
async def test_a_bad_edit_is_written_and_not_in_force(greeting: Running, text: str, words: str) -> None:
    status, said = await save(greeting, text)
    assert (status, said["in_force"]) == (200, False)
    assert words in said["message"]
    assert await greeting.get(host="greeting.example") == (200, "hello\n")
    assert (greeting.folder / "greeting.py").read_text() == text
    status, said = await save(greeting, GREETING.replace("hello", "again"))
    assert said["in_force"], said
    assert await greeting.get(host="greeting.example") == (200, "again\n")


async def test_who_may_not_write(greeting: Running) -> None:
    assert (await save(greeting, "", shown=""))[0] == 401
    assert (await save(greeting, "", shown="guessed"))[0] == 401
    assert (await save(greeting, "", digest=""))[0] == 428
    status, said = await save(greeting, "", digest="0123")
    assert (status, "has changed since" in said) == (412, True)
    status, said = await save(greeting, "", name="default/other")
    assert (status, 'no file defines the source of a filter "default/other"' in said) == (404, True)
    assert (await save(greeting, "#" * (1 << 20) + "\n"))[0] == 413
    assert (greeting.folder / "greeting.py").read_text() == GREETING


async def test_on_loopback_no_other_name_leads_here(greeting: Running) -> None:
    """A site that points its name to 127.0.0.1 (DNS rebinding) reads nothing."""
    for host, expected in (("evil.example", 421), ("localhost", 200), ("127.0.0.1:9091", 200), ("[::1]", 200)):
        async with greeting.session.get(f"{greeting.admin}/snapshot", headers={"Host": host}) as answer:
            assert answer.status == expected, host


async def test_where_others_can_reach_it_nobody_edits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Listening on an address that is not of loopback, which tests do not do: it is only said that this one is none."""
    monkeypatch.setattr("gateway.admin.server.is_of_this_machine", lambda _: False)
    admin = Admin(Plane(), editor=Writable())
    await admin.start("127.0.0.1", 0)
    try:
        assert not admin.key
        async with aiohttp.ClientSession() as session:
            headers = {"Authorization": "Bearer ", "If-Match": '"0123"'}
            async with session.put(f"{admin.address}/filters/default%2Fgreeting", data=b"", headers=headers) as answer:
                assert answer.status == 403
                assert "only where the admin server listens on loopback" in await answer.text()
            async with session.get(f"{admin.address}/filters") as answer:
                assert answer.status == 200
    finally:
        await admin.stop()


async def test_edits_at_once_all_count_or_are_refused(greeting: Running) -> None:
    """Of several that begin with the same text, one is written; the others are told."""
    async with greeting.session.get(f"{greeting.admin}/filters") as answer:
        digest = (await answer.json())[0]["digest"]
    texts = [GREETING.replace("hello", f"hello {number}") for number in range(5)]
    answers = await asyncio.gather(*(save(greeting, text, digest=digest) for text in texts))
    assert sorted(status for status, _ in answers) == [200, 412, 412, 412, 412]
    won = next(text for text, (status, _) in zip(texts, answers, strict=True) if status == 200)
    assert (greeting.folder / "greeting.py").read_text() == won


async def test_the_page_is_whole_and_runs_only_its_own_scripts(greeting: Running) -> None:
    async with greeting.session.get(f"{greeting.admin}/") as answer:
        page = await answer.text()
        assert "default-src 'self'" in answer.headers["Content-Security-Policy"]
    names = set(re.findall('(?:href|src)="([a-z]+[.][a-z]+)"', page))
    assert names
    while names:
        name = names.pop()
        async with greeting.session.get(f"{greeting.admin}/{name}") as answer:
            assert answer.status == 200, name
            names |= set(re.findall("from '[.]/([a-z]+[.]js)'", await answer.text()))
    async with greeting.session.get(f"{greeting.admin}/other.js") as answer:
        assert answer.status == 404


async def test_a_source_in_yaml_is_edited_in_place(running: Running) -> None:
    (running.folder / "greeting.yaml").write_text(
        ROUTE
        + """\
---
apiVersion: extension.gateway.flomesh.io/v1alpha1
kind: FilterDefinition
metadata: {name: greeting}
spec:
  type: Greeting
  script: |
    from gateway.filters.api import Response

    def request(request):
        return Response(200, "hello\\n")
  timeout: 2s # enough
---
apiVersion: extension.gateway.flomesh.io/v1alpha1
kind: Filter
metadata: {name: greeting}
spec: {type: Greeting, definitionRef: {name: greeting}}
"""
    )
    await running.start()
    await running.until(lambda: "#key=" in running.said)
    status, said = await save(running, GREETING.replace("hello", "servus"))
    assert (status, said["in_force"]) == (200, True), said
    assert await running.get(host="greeting.example") == (200, "servus\n")
    assert (running.folder / "greeting.yaml").read_text().count("timeout: 2s # enough") == 1


async def test_faults_are_told_with_their_places_while_they_last(running: Running) -> None:
    """`/faults`, and an event of `/events` each time that it says something else."""
    await running.start()

    async def faults() -> list[dict]:
        async with running.session.get(f"{running.admin}/faults") as answer:
            return await answer.json()

    assert await faults() == []
    async with running.session.get(f"{running.admin}/events") as events:

        async def told(where: Callable[[list[dict]], bool]) -> None:
            async with asyncio.timeout(10):
                while True:
                    if await events.content.readline() == b"event: told\n" and where(await faults()):
                        return

        assert await events.content.readline() == b": hello\n"
        running.replace("lost.yaml", ROUTE.replace("kind: HTTPRoute", "kind: HTTPRoute\nspam: 1"))
        await told(lambda now: len(now) == 1)
        (fault,) = await faults()
        assert fault["file"].endswith("/lost.yaml")
        assert (fault["line"], fault["object"], fault["field"]) == (3, "HTTPRoute default/greeting", "spam")
        running.replace("lost.yaml", ROUTE.replace("name: simple-fsm-gateway", "name: simple-fsm-gateway, sectionName: https"))
        await told(lambda now: "spec.parentRefs[0].sectionName" in [fault["field"] for fault in now])
        (running.folder / "lost.yaml").unlink()
        await told(lambda now: now == [])


async def test_what_a_worker_says_is_told_once_with_the_object_and_its_file(running: Running) -> None:
    """The status of the Filter repeats what the worker says of its script."""
    (running.folder / "greeting.yaml").write_text(ROUTE)
    (running.folder / "greeting.py").write_text("def request(request:\n")
    await running.start()
    async with running.session.get(f"{running.admin}/faults") as answer:
        faults = await answer.json()
    assert len(faults) == 1, faults
    assert "ScriptInvalid" in faults[0]["message"]
    assert (faults[0]["object"], faults[0]["file"]) == ("Filter default/greeting", str(running.folder / "greeting.py"))


async def test_no_answer_is_kept_by_browsers(greeting: Running) -> None:
    async with greeting.session.get(f"{greeting.admin}/filters") as answer:
        assert answer.headers["Cache-Control"] == "no-store"


async def test_where_to_edit_is_said_once_there_is_something_to_edit(running: Running) -> None:
    await running.start()
    assert "#key=" not in running.said
    (running.folder / "greeting.py").write_text(GREETING)
    (running.folder / "greeting.yaml").write_text(ROUTE)
    await running.until(lambda: "#key=" in running.said)
    running.replace("greeting.py", GREETING.replace("hello", "again"))
    await running.until(lambda: running.said.count("in force after") >= 3)
    assert running.said.count("#key=") == 1
