"""The admin page, as somebody sees it who has it open while the gateway serves."""

from __future__ import annotations

import asyncio
import re
from typing import ClassVar

from playwright.async_api import Page, expect
from support.admin import Plane
from support.admin_page import count, node, with_key
from support.shop import MARKS, ROUTES
from support.standalone import Running

from gateway.admin.server import Admin
from gateway.snapshot import Listener, Parts, Problem


async def test_a_route_is_a_graph_with_live_counts(page: Page, shop: Running) -> None:
    await page.goto(f"{shop.admin}/#routes/default%2Fshop")
    await expect(page.locator("main h2")).to_have_text("HTTPRoute default/shop")
    await expect(node(page, "listener default/simple-fsm-gateway/http")).to_contain_text(f"http://127.0.0.1:{shop.port}")
    await expect(node(page, "rule default/shop/0")).to_contain_text("GET /cart")
    await expect(node(page, "rule default/shop/0")).to_contain_text("header x-beta = 1")
    await expect(node(page, "rule default/shop/0")).to_contain_text("= /basket")
    await expect(node(page, "filter Request headers")).to_contain_text("set X-Shop: cart")
    await expect(node(page, "filter default/marks")).to_be_visible()
    await expect(node(page, "split default/shop/0")).to_have_text("70 : 30")
    await expect(node(page, "backend default/argo-rollouts-canary-service:80")).to_contain_text("30 %")
    await expect(node(page, "filter Redirect 301")).to_contain_text("new.example")
    await expect(node(page, "backend default/nowhere:80")).to_contain_text('Service "default/nowhere" does not exist')
    # listener → 3 matches; match → 2 filters → split → 2 backends; match → redirect; match → nowhere
    await expect(page.locator(".graph path")).to_have_count(3 + 5 + 1 + 1)
    drawn = [await path.get_attribute("d") for path in await page.locator(".graph path").all()]
    assert all(one and re.fullmatch("[MCV0-9., -]+", one) for one in drawn), drawn
    for _ in range(20):
        assert (await shop.get("/basket", host="shop.example"))[0] == 200
    await expect(count(page, "default/shop/0")).to_contain_text("20,")
    await expect(count(page, "default/shop/0 default/argo-rollouts-stable-service:80")).to_contain_text("14,")
    await expect(count(page, "default/shop/0 default/argo-rollouts-canary-service:80")).to_contain_text("6,")
    await expect(node(page, "filter default/marks")).to_contain_text("20 calls")
    await expect(page.locator(".graph path.busy").first).to_be_attached()


async def test_a_change_is_seen_without_a_reload(page: Page, shop: Running) -> None:
    await page.goto(f"{shop.admin}/#routes/default%2Fshop")
    await expect(node(page, "split default/shop/0")).to_have_text("70 : 30")
    shop.replace("shop.yaml", ROUTES.replace("weight: 70", "weight: 40").replace("weight: 30", "weight: 60"))
    await expect(node(page, "split default/shop/0")).to_have_text("40 : 60")
    await page.click("#tabs >> text=Changes")
    await expect(page.locator("main table")).to_contain_text("HTTPRoute default/shop rules[0]")


async def test_a_filter_is_read(page: Page, shop: Running) -> None:
    """Its source, its tests, and what went wrong."""
    await page.goto(f"{shop.admin}/#filters/default%2Fmarks")
    await expect(page.locator(".source")).to_contain_text('request.headers["X-Mark"] = "first"')
    await expect(page.locator('[data-test="test_it_marks"]')).to_have_text("✓ test_it_marks")
    await expect(page.locator('[data-fact="used by"] a')).to_have_text("HTTPRoute default/shop")
    await expect(page.locator("textarea")).to_have_count(0)
    await expect(page.locator("main")).to_contain_text("open the address with a key")
    assert (await shop.get("/basket?fail=1", host="shop.example"))[0] == 500
    await expect(page.locator('[data-fact="failed"]')).to_have_text("1")
    await expect(page.locator("main")).to_contain_text("last failure: line 8: ValueError: asked for")


async def test_a_filter_is_edited(page: Page, shop: Running) -> None:
    await page.goto(with_key(shop))
    await page.click("#tabs >> text=Filters")
    assert "key" not in page.url, "it is not left where it can be copied by mistake"
    editor = page.locator("textarea")
    await editor.fill(MARKS.replace('"first"', '"second"'))
    await page.keyboard.press("Control+s")
    await expect(page.locator('.bar [role="status"]')).to_contain_text("in force after")
    assert (shop.folder / "marks.py").read_text() == MARKS.replace('"first"', '"second"')

    # One that fails its own test: said with the line, and the one before serves on.
    await editor.fill(MARKS.replace('== "first"', '== "third"'))
    await page.click("text=Save")
    await expect(page.locator('.bar [role="status"]')).to_contain_text("the last good one stays")
    await expect(page.locator('[data-test="test_it_marks"]')).to_have_text("✗ test_it_marks")
    await expect(page.locator(".source .here")).to_have_text("15")
    await expect(page.locator("#problems")).to_contain_text("default/marks")
    assert (await shop.get("/basket", host="shop.example"))[0] == 200

    await editor.fill(MARKS)
    await page.click("text=Save")
    await expect(page.locator('.bar [role="status"]')).to_contain_text("in force after")
    await expect(page.locator("#problems li").filter(has_text="marks")).to_have_count(0)


async def test_what_is_typed_survives_what_happens_meanwhile(page: Page, shop: Running) -> None:
    await page.goto(with_key(shop))
    await page.goto(f"{shop.admin}/#filters/default%2Fmarks")
    await page.locator("textarea").fill("# mine\n" + MARKS)
    shop.replace("shop.yaml", ROUTES.replace("weight: 70", "weight: 1"))
    shop.replace("marks.py", "# theirs\n" + MARKS)
    await expect(page.locator('.bar [role="status"]')).to_contain_text("has changed since you began")
    await expect(page.locator("textarea")).to_have_value("# mine\n" + MARKS)
    await page.click("text=Save")
    await expect(page.locator('.bar [role="status"]')).to_contain_text("is not written")
    assert (shop.folder / "marks.py").read_text() == "# theirs\n" + MARKS
    await page.click("text=Discard")
    await expect(page.locator("textarea")).to_have_value("# theirs\n" + MARKS)


async def test_a_gateway_that_is_gone_is_said(page: Page, shop: Running) -> None:
    await page.goto(f"{shop.admin}/")
    await expect(page.locator("main h2")).to_be_visible()
    shop.process.terminate()
    await shop.process.wait()
    await expect(page.get_by_role("alert")).to_contain_text("does not answer")


async def test_a_data_plane_of_a_cluster_is_shown_as_well(page: Page) -> None:
    """It knows no files and no statuses, and is not asked for them again; what its workers cannot do stands at the head."""

    class Pod(Plane):
        parts: ClassVar[Parts] = {("listener", "ns/gw/http"): Listener("ns/gw/http", 80)}
        problems = (Problem("ns/gw/http", "port 80 is in use"),)

    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url.rpartition("/")[2]))
    admin = Admin(Pod())
    await admin.start("127.0.0.1", 0)
    try:
        await page.goto(f"{admin.address}/#listeners")
        await expect(page.locator("#problems li")).to_have_text("ns/gw/http port 80 is in use")
        row = page.locator('[data-row="ns/gw/http"]')
        await expect(row.locator("code")).to_have_text(":80")
        await page.get_by_label("Only what is broken (1)").check()
        await expect(row).to_contain_text("port 80 is in use")
        admin.told()
        async with asyncio.timeout(20):
            while asked.count("snapshot") < 2:
                await asyncio.sleep(0.01)
        assert asked.count("status") == asked.count("faults") == asked.count("filters") == 1
    finally:
        await page.goto("about:blank")
        await admin.stop()
