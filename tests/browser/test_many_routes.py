"""A thousand routes: found by whatever somebody remembers of them, drawn in part, and brought up to date without drawing them anew."""

from __future__ import annotations

import asyncio
import re

import pytest
from playwright.async_api import Page, expect
from support.admin_page import ASKED, busy_seconds, lines_meet_nodes, node
from support.standalone import Running

ROUTE = """\
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: team-NUMBER}
spec:
  parentRefs: [{name: simple-fsm-gateway}]
  hostnames: [app-NUMBER.teams.example]
  rules:
  - matches: [{path: {value: /orders/NUMBER}}]
    backendRefs: [{name: SERVICE, port: 80, weight: 70}]
"""
BROKEN = (17, 500, 999)
MANY = 1000
# A rule as high as several windows, and rules enough for that.
HIGH = """\
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: high}
spec:
  parentRefs: [{name: simple-fsm-gateway}]
  hostnames: [high.example]
  rules:
  - backendRefs: [{name: argo-rollouts-stable-service, port: 80}]
    matches:
MATCHES
RULES
"""


def route(number: int) -> str:
    service = "nowhere" if number in BROKEN else "argo-rollouts-stable-service"
    return ROUTE.replace("NUMBER", f"{number:03}").replace("SERVICE", service)


@pytest.fixture
async def many(running: Running) -> Running:
    for first in range(0, MANY, 100):
        (running.folder / f"teams-{first:03}.yaml").write_text("---\n".join(map(route, range(first, first + 100))))
    running.said = ""
    await running.start(ready=False)
    await running.until(running._is_ready, 60)
    return running


async def test_routes_are_found_by_what_somebody_remembers(page: Page, many: Running) -> None:
    await page.goto(f"{many.admin}/")
    entries, found, search = page.locator(".list a"), page.locator(".found"), page.get_by_label("find routes")
    await expect(found).to_have_text("1,001 routes, the first 200 shown")
    await expect(entries).to_have_count(200)
    for words, hits in (
        ("team-123", 1), ("APP-321.teams", 1), ("/orders/77", 10), ("nowhere", 3), ("BackendNotFound", 3), ("does not exist", 3),
        ("argo-rollouts-canary", 1), ("simple-fsm-gateway/http", 1001), ("orders canary", 0), ("team-01 /orders/017", 1),
    ):  # fmt: skip
        await search.fill(words)
        await expect(found).to_have_text(re.compile(f"^{hits:,} (of 1,001 )?routes"))
        await expect(entries).to_have_count(min(hits, 200))

    # Who has found something and looks at it has not to find it again.
    await search.fill("/orders/77")
    await entries.filter(has_text="team-775").click()
    await expect(page.locator("main h2")).to_have_text("HTTPRoute default/team-775")
    await expect(search).to_have_value("/orders/77")
    await expect(entries).to_have_count(10)
    await page.click("#tabs >> text=Backends")
    await page.click("#tabs >> text=Routes")
    await expect(search).to_have_value("/orders/77")

    await search.fill("")
    await page.get_by_label("Only what is broken (3)").check()
    await expect(entries).to_have_count(3)
    await expect(entries.first).to_contain_text('Service "default/nowhere" does not exist')
    await page.get_by_label("Only what is broken (3)").uncheck()

    # As many as asked for.
    for shown in range(400, 1001, 200):
        await page.click("text=/^Show 200 more of/")
        await expect(entries).to_have_count(shown)
    await page.click("text=Show 1 more of 1")
    await expect(entries).to_have_count(1001)
    await expect(page.locator(".more:visible")).to_have_count(0)


async def test_other_tables_are_searched_as_well(page: Page, many: Running) -> None:
    await page.goto(f"{many.admin}/#statuses")
    rows, found = page.locator("tbody tr"), page.locator(".found")
    await expect(rows).to_have_count(200)
    await page.get_by_label("find statuses").fill("nowhere")
    await expect(rows).to_have_count(3)
    await page.get_by_label("find statuses").fill("")
    await page.get_by_label("Only what is broken (3)").check()
    await expect(found).to_contain_text("3 of 1,00")
    await expect(rows.first).to_contain_text("BackendNotFound")


async def test_what_is_not_touched_is_not_drawn_anew(page: Page, many: Running) -> None:
    await page.add_init_script(ASKED)
    await page.goto(f"{many.admin}/#routes/HTTPRoute+default/team-005")
    await expect(page.locator(".list a")).to_have_count(200)
    await page.evaluate("""() => {
      window.added = 0
      const count = node => 1 + node.querySelectorAll?.('*').length
      new MutationObserver(seen => { for (const { addedNodes } of seen) for (const node of addedNodes) if (node.nodeType === 1) added += count(node) })
        .observe(document.body, { childList: true, subtree: true })
    }""")
    stop = asyncio.Event()

    async def ask() -> None:
        number = 0
        while not stop.is_set():
            number = (number + 1) % 200
            await many.get(f"/orders/{number:03}", host=f"app-{number:03}.teams.example")

    asking = asyncio.create_task(ask())
    weight = 100

    async def edit() -> None:
        nonlocal weight
        weight += 1
        text = "---\n".join(map(route, range(100))).replace("/orders/006", f"/orders/006/{weight}")
        many.replace("teams-000.yaml", text)

    try:
        counting = await busy_seconds(page, "statistics", 5)
        assert await page.evaluate("added") == 0, "counts make no elements"
        editing = await busy_seconds(page, "snapshot", 5, act=edit)
        # Each edit changes one route that is in the list and not chosen: of that one nothing is shown in the list but its name.
        assert await page.evaluate("added") < 50
        # Of the chosen one the graph is drawn anew, and nothing else.
        many.replace("teams-000.yaml", "---\n".join(map(route, range(100))).replace("/orders/005", "/orders/five"))
        await expect(node(page, "rule default/team-005/0")).to_contain_text("/orders/five")
        assert await page.evaluate("added") < 150
    finally:
        stop.set()
        await asking
    print(f"main thread: {counting * 1000:.1f} ms for counts, {editing * 1000:.1f} ms for a change")
    assert counting < 0.1, f"{counting:.3f} s of the main thread each second"
    assert editing < 0.4, f"{editing:.3f} s of the main thread for a change of one route"


@pytest.mark.parametrize("kind", ["matches", "rules"])
async def test_of_a_high_graph_both_ends_stay_in_sight(page: Page, running: Running, kind: str) -> None:
    matches = "\n".join(f"    - path: {{value: /part/{number}}}" for number in range(60 if kind == "matches" else 1))
    backend = "  - {matches: [{path: {value: /NUMBER}}], backendRefs: [{name: argo-rollouts-canary-service, port: 80}]}"
    rules = "\n".join(backend.replace("NUMBER", f"rule/{number}") for number in range(15 if kind == "rules" else 0))
    (running.folder / "high.yaml").write_text(HIGH.replace("MATCHES", matches).replace("RULES", rules))
    await running.start()
    await page.set_viewport_size({"width": 1300, "height": 600})
    await page.goto(f"{running.admin}/#routes/HTTPRoute+default/high")
    await expect(page.locator("main h2")).to_have_text("HTTPRoute default/high")
    height = await page.evaluate("document.documentElement.scrollHeight")
    assert height > 1200
    listener = node(page, "listener default/simple-fsm-gateway/http")
    for share in (0.0, 0.4, 0.8):
        await page.evaluate(f"scrollTo(0, {height * share})")
        ends = page.locator('[data-node^="backend "]')
        await expect(listener).to_be_in_viewport(ratio=1)
        seen = [
            box for box in [await one.bounding_box() for one in await ends.all()] if box and 0 <= box["y"] < 600 - box["height"]
        ]
        assert seen
        await expect(page.locator(".column").first).to_be_in_viewport()
        # And the lines go where the nodes are.
        await lines_meet_nodes(page)


async def test_what_nobody_wrote_is_no_route(page: Page, running: Running) -> None:
    """A listener with filters has a rule of its own in the data plane, for requests that no route takes."""
    (running.folder / "unwanted.yaml").write_text("""\
apiVersion: extension.gateway.flomesh.io/v1alpha1
kind: IPRestriction
metadata: {name: unwanted}
spec: {forbidden: [203.0.113.0/24]}
---
apiVersion: extension.gateway.flomesh.io/v1alpha1
kind: ListenerFilter
metadata: {name: unwanted}
spec:
  type: IPRestriction
  aspect: Route
  targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: simple-fsm-gateway, port: 80}]
  configRef: {kind: IPRestriction, name: unwanted}
""")
    await running.start()
    async with running.session.get(f"{running.admin}/snapshot") as answer:
        names = [part["name"] for part in (await answer.json())["parts"] if part["type"] == "rule"]
    assert "listener/default/simple-fsm-gateway/http" in names
    await page.goto(f"{running.admin}/")
    await expect(page.locator(".list a")).to_have_count(1)
    await expect(page.locator(".list a")).to_contain_text("default/argo-rollouts-http-route")
