"""How the page looks and can be used: contrast, phones, keyboards, screen readers, less motion; what comes from files is text."""

from __future__ import annotations

from itertools import pairwise

import pytest
from playwright.async_api import Page, expect
from support.admin_page import BREAKS, OVERFLOWING, count, lines_meet_nodes, node, too_pale, until
from support.shop import MARKS, ROUTES
from support.standalone import Running

TABS = ("routes/HTTPRoute+default/shop", "filters/default/marks", "listeners", "backends", "statuses", "changes")
EVIL = "<img src=x onerror=document.title='taken'>"
LONG = "a-service-whose-name-says-everything-that-it-does.and-for-whom-it-does-it"
WIDE = ROUTES.replace("name: shop", f"name: {LONG}").replace(
    "name: nowhere", "name: a-service-whose-name-says-everything-that-it-does-for-us"
)


async def everything(page: Page, shop: Running, tab: str) -> None:
    """A tab with something of all that it can show: a fault, a change, counts."""
    await page.goto(f"{shop.admin}/#{tab}")
    shop.replace("broken.yaml", "kind: [\n")
    shop.replace("shop.yaml", ROUTES.replace("weight: 70", "weight: 40"))
    assert (await shop.get("/basket", host="shop.example"))[0] == 200
    await expect(page.locator("#problems li").first).to_contain_text("broken.yaml")
    await expect(page.locator("main")).not_to_be_empty()
    await expect(page.locator("#totals")).to_contain_text("worker")
    await expect(page.locator("#problems li").filter(has_text="default/shop")).to_have_count(1)
    await until(page, "document.getAnimations().length === 0")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1300, 375])
async def test_all_of_it_can_be_told_from_its_ground(page: Page, shop: Running, scheme, width: int) -> None:
    await page.emulate_media(color_scheme=scheme)
    await page.set_viewport_size({"width": width, "height": 900})
    for tab in TABS:
        await everything(page, shop, tab)
        assert await too_pale(page) == [], tab
        await page.locator("#tabs a").first.focus()
        await page.keyboard.press("Tab")
        assert await too_pale(page) == [], tab
    dark = await page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).every(part => part < 128)")
    assert dark == (scheme == "dark")


@pytest.mark.parametrize("width", [375, 700, 1000])
async def test_nothing_reaches_beyond_the_window(page: Page, shop: Running, width: int) -> None:
    await page.set_viewport_size({"width": width, "height": 800})
    (shop.folder / "long.yaml").write_text(WIDE)
    for tab in (*TABS, f"routes/HTTPRoute+default/{LONG}"):
        await everything(page, shop, tab)
        assert await page.evaluate(OVERFLOWING) == [0, []], tab


async def test_on_a_phone_the_columns_stand_one_below_the_other(page: Page, shop: Running) -> None:
    await page.set_viewport_size({"width": 375, "height": 800})
    await page.goto(f"{shop.admin}/#routes/HTTPRoute+default/shop")
    cells = page.locator(".graph .cell")
    await expect(cells.first).to_be_visible()
    boxes = [await cell.bounding_box() for cell in await cells.all()]
    assert len(boxes) == 1 + 3 * 4
    assert all(box and box["x"] == boxes[0]["x"] and box["width"] > 250 for box in boxes)
    assert all(above["y"] + above["height"] <= below["y"] for above, below in pairwise(boxes))
    assert await cells.evaluate_all("all => all.slice(0, 5).map(one => one.dataset.column)") == [
        "Listener", "Match", "Filters", "Split", "Backends",
    ]  # fmt: skip


async def test_lines_stay_with_their_nodes(page: Page, shop: Running) -> None:
    """Whatever happens above the graph, or within a node."""
    await page.set_viewport_size({"width": 820, "height": 600})
    await page.goto(f"{shop.admin}/#routes/HTTPRoute+default/shop")
    await expect(page.locator("#problems li")).to_have_count(1)
    await lines_meet_nodes(page)
    await page.locator("#problems summary").click()
    await lines_meet_nodes(page)
    await page.evaluate("document.querySelector('#totals').style.paddingBottom = '90px'")
    await lines_meet_nodes(page)
    for _ in range(3):
        await shop.get("/basket", host="shop.example")
    await expect(count(page, "default/shop/0")).to_contain_text("3,")
    await lines_meet_nodes(page)


async def test_long_names_break_at_their_parts(page: Page, shop: Running) -> None:
    (shop.folder / "long.yaml").write_text(WIDE)
    await page.set_viewport_size({"width": 1100, "height": 900})
    await page.goto(f"{shop.admin}/#routes/HTTPRoute+default/{LONG}")
    await expect(page.locator("main h2")).to_contain_text(LONG)
    for selector in (".node", ".list a", "#problems strong", "#problems .where"):
        breaks = await page.evaluate(BREAKS, selector)
        assert all(before in "-./:_, " for _, before in breaks), breaks
        if selector in (".node", ".list a"):
            assert breaks, "nothing was long enough to break"


async def test_the_keyboard_is_enough(page: Page, shop: Running) -> None:
    (shop.folder / "broken.yaml").write_text("kind: [\n")
    await page.goto(f"{shop.admin}/")
    await expect(page.locator("#problems li").first).to_be_visible()
    await expect(page.locator("main .list a")).to_have_count(2)
    reached = []
    for _ in range(14):
        await page.keyboard.press("Tab")
        one = await page.evaluate("""() => {
          const { activeElement } = document, style = getComputedStyle(activeElement), box = activeElement.getBoundingClientRect()
          return [activeElement.getAttribute('aria-label') || activeElement.innerText || activeElement.parentElement.innerText,
            style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 2, box.top >= 0 && box.width > 0]
        }""")
        reached.append(one[0].split("\n")[0])
        assert one[1:] == [True, True], one
    assert reached[:8] == [
        "Skip to what is shown",
        "Routes",
        "Filters",
        "Listeners",
        "Backends",
        "Statuses",
        "Changes",
        reached[7],
    ]
    assert "not as written" in reached[7]
    assert {"find routes", "Only what is broken (1)"} <= set(reached)
    # From the search into the list and back, and one of it chosen.
    await page.get_by_label("find routes").focus()
    await page.keyboard.press("ArrowDown")
    await page.keyboard.press("ArrowDown")
    await page.keyboard.press("Enter")
    await expect(page.locator("main h2")).to_have_text("HTTPRoute default/shop")
    assert "shop" in await page.evaluate("document.activeElement.innerText"), "what was chosen keeps the focus"
    shop.replace("shop.yaml", ROUTES.replace("weight: 70", "weight: 40"))
    await expect(node(page, "split default/shop/0")).to_have_text("40 : 30")
    assert "shop" in await page.evaluate("document.activeElement.innerText"), "and through a change"
    await page.keyboard.press("ArrowUp")
    await page.keyboard.press("ArrowUp")
    assert await page.evaluate("document.activeElement.type") == "search"
    await page.evaluate("scrollTo(0, 0)")
    await page.locator("#skip").focus()
    await page.keyboard.press("Enter")
    assert await page.evaluate("document.activeElement.id") == "view"


async def test_everything_has_a_role_and_a_name(page: Page, shop: Running) -> None:
    (shop.folder / "broken.yaml").write_text("kind: [\n")
    await page.goto(f"{shop.admin}/#routes/HTTPRoute+default/shop")
    await expect(page.get_by_role("navigation", name="Views")).to_be_visible()
    await expect(page.get_by_role("navigation", name="routes")).to_be_visible()
    await expect(page.get_by_role("searchbox", name="find routes")).to_be_visible()
    await expect(page.get_by_role("checkbox", name="Only what is broken (1)")).to_be_visible()
    await expect(page.get_by_role("region", name="things are not as written")).to_be_visible()
    await expect(page.get_by_role("link", name="Routes", exact=True)).to_have_attribute("aria-current", "page")
    for column in ("Listener", "Match of rules[0]", "Filters of rules[0]", "Split of rules[0]", "Backends of rules[2]"):
        await expect(page.get_by_role("group", name=column, exact=True)).to_be_attached()
    await page.goto(f"{shop.admin}/#backends")
    await expect(page.get_by_role("table", name="backends").get_by_role("columnheader")).to_have_count(4)
    nameless = "all => all.filter(one => !(one.innerText || one.ariaLabel || one.labels?.length)).map(one => one.outerHTML)"
    for tab in TABS:
        await page.goto(f"{shop.admin}/#{tab}")
        assert await page.locator("a, button, input, textarea, [tabindex='0']").evaluate_all(nameless) == []


async def test_who_wants_no_motion_has_none(page: Page, shop: Running) -> None:
    moving = """() => [...document.querySelectorAll('*')].filter(one => {
      const style = getComputedStyle(one)
      return style.animationName !== 'none' || style.transitionDuration.split(',').some(time => parseFloat(time) > 0)
    }).length"""
    (shop.folder / "broken.yaml").write_text("kind: [\n")
    await page.goto(f"{shop.admin}/")
    await expect(page.locator("#problems li").first).to_be_visible()
    assert await page.evaluate(moving) > 0
    await page.emulate_media(reduced_motion="reduce")
    assert await page.evaluate(moving) == 0


async def test_what_comes_from_files_is_text(page: Page, shop: Running) -> None:
    name = EVIL.replace("/", "")
    shop.replace("marks.py", f"# {EVIL}\n{MARKS}".replace('ValueError("asked for")', f'ValueError("{EVIL}")'))
    shop.replace(
        "shop.yaml",
        ROUTES.replace("value: cart", f'value: "{EVIL}"'),
    )
    (shop.folder / f"{name}.yaml").write_text(
        f'kind: HTTPRoute\napiVersion: gateway.networking.k8s.io/v1\nmetadata: {{name: "{EVIL}"}}\nspec: {{"{EVIL}": 1}}\n'
    )
    await page.goto(f"{shop.admin}/#routes/HTTPRoute+default/shop")
    await expect(node(page, "filter Request headers")).to_contain_text(EVIL)
    await expect(page.locator("#problems")).to_contain_text(f"{name}.yaml:")
    await expect(page.locator("#problems")).to_contain_text(EVIL)
    await shop.get("/basket?fail=1", host="shop.example")
    await page.goto(f"{shop.admin}/#filters/default%2Fmarks")
    await expect(page.locator(".source")).to_contain_text(EVIL)
    await expect(page.locator("main")).to_contain_text(f"ValueError: {EVIL}")
    for tab in (*TABS, f"routes/{EVIL}"):
        await page.goto(f"{shop.admin}/#{tab}")
        await expect(page.locator("main")).not_to_be_empty()
    await expect(page.locator("main")).to_contain_text(EVIL)
    assert await page.locator("img, main script, #problems script").count() == 0
    assert "FSM Gateway" in await page.title()


async def test_nothing_stands_in_the_way_of_a_strict_policy(page: Page, shop: Running) -> None:
    answer = await page.goto(f"{shop.admin}/")
    assert answer is not None
    policy = (await answer.all_headers())["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "unsafe" not in policy
    origins = await page.evaluate("performance.getEntriesByType('resource').map(one => new URL(one.name).origin)")
    assert set(origins) == {shop.admin}
    assert await page.locator("[style]:not(.cell), style, script:not([src])").count() == 0
