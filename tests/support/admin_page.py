"""What tests of the admin page measure in a browser: contrast, where lines break, what overflows, what updates cost."""

from __future__ import annotations

import asyncio
import re
from typing import Any

from playwright.async_api import Locator, Page

from support.standalone import Running

# Every piece of text that can be seen, with its contrast to what stands behind it (WCAG 2.2, "contrast ratio").
CONTRASTS = """() => {
  const canvas = document.createElement('canvas').getContext('2d', { willReadFrequently: true })
  const rgba = colour => { canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1); const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data; return [r, g, b, a / 255] }
  const over = ([r, g, b, a], [R, G, B]) => [r * a + R * (1 - a), g * a + G * (1 - a), b * a + B * (1 - a)]
  const linear = c => (c /= 255) <= .04045 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4
  const light = ([r, g, b]) => .2126 * linear(r) + .7152 * linear(g) + .0722 * linear(b)
  const ratio = (a, b) => { const [x, y] = [light(a), light(b)].sort((p, q) => q - p); return (x + .05) / (y + .05) }
  const behind = element => element ? over(rgba(getComputedStyle(element).backgroundColor), behind(element.parentElement)) : rgba('Canvas').slice(0, 3)
  const found = []
  const note = (what, colour, element, wanted) => {
    const ink = rgba(colour), ground = behind(element)
    if (ink[3] > 0) found.push([what, ratio(over(ink, ground), ground), wanted])
  }
  for (const element of document.body.querySelectorAll('*')) {
    if (!element.checkVisibility() || element.closest('.unseen, svg, button:disabled, #skip:not(:focus)')) continue
    const style = getComputedStyle(element)
    const name = `${element.tagName.toLowerCase()}.${element.className}`
    const text = [...element.childNodes].filter(node => node.nodeType === 3 && node.data.trim()).map(node => node.data).join(' ').slice(0, 40)
    if (text) note(`${name} "${text}"`, style.color, element, 4.5)
    for (const pseudo of ['::before', '::after']) {
      const own = getComputedStyle(element, pseudo)
      if (!['none', 'normal', '""'].includes(own.content)) note(`${name}${pseudo}`, own.color, element, 4.5)
    }
    if (element.matches('input')) note(`${name} border`, style.borderTopColor, element.parentElement, 3)
    if (element.placeholder) note(`${name}::placeholder`, getComputedStyle(element, '::placeholder').color, element, 4.5)
  }
  for (const path of document.querySelectorAll('svg path')) note('edge', getComputedStyle(path).stroke, path.closest('.graph'), 3)
  return found
}"""

# Places where a line ends in the middle of a text: [the text, the character before, whether a break was allowed there].
BREAKS = """selector => {
  const found = []
  for (const element of document.querySelectorAll(selector)) {
    const walker = document.createTreeWalker(element, NodeFilter.SHOW_TEXT)
    const characters = []
    for (let node; (node = walker.nextNode());) for (let at = 0; at < node.length; at++) {
      const range = document.createRange(); range.setStart(node, at); range.setEnd(node, at + 1)
      const box = range.getClientRects()[0]
      if (box) characters.push([node.data[at], box.bottom, node.parentElement])
    }
    for (let at = 1; at < characters.length; at++) {
      const [one, bottom, parent] = characters[at - 1], [, below, other] = characters[at]
      if (parent === other && below - bottom > 4) found.push([element.textContent, one])
    }
  }
  return found
}"""

# What reaches beyond the window and cannot be scrolled to within something else.
OVERFLOWING = """() => {
  const wide = document.documentElement.clientWidth
  const scrolls = element => element && element !== document.body && (/auto|scroll|hidden/.test(getComputedStyle(element).overflowX) || scrolls(element.parentElement))
  const found = [...document.body.querySelectorAll('*')].filter(one => one.checkVisibility() && !one.closest('svg') && one.getBoundingClientRect().right > wide + 1 && !scrolls(one.parentElement))
  return [document.documentElement.scrollWidth - wide, found.map(one => `${one.tagName}.${one.className}`)]
}"""

# Lines of the graph that do not begin and end at the edge of a node: how far from one, in pixels.
ASTRAY = """() => {
  const boxes = [...document.querySelectorAll('.graph .node')].map(node => node.getBoundingClientRect())
  const away = ({ x, y }) => Math.min(...boxes.map(box => Math.min(
    Math.hypot(x - box.right, y - box.top - box.height / 2), Math.hypot(x - box.left, y - box.top - box.height / 2),
    Math.hypot(x - box.left - box.width / 2, y - box.bottom), Math.hypot(x - box.left - box.width / 2, y - box.top))))
  return [...document.querySelectorAll('.graph path')].flatMap(path => [0, path.getTotalLength()].map(at => away(path.getPointAtLength(at).matrixTransform(path.getScreenCTM())))).filter(far => far > 2)
}"""

# Counts what is asked of the server by path, before the page's own scripts run.
ASKED = """
window.asked = {}
const fetched = window.fetch
window.fetch = async (path, ...rest) => {
  const answer = await fetched(path, ...rest)
  asked[path] = (asked[path] ?? 0) + 1
  return answer
}
"""


def node(page: Page, name: str) -> Locator:
    """A node of a graph, such as "rule default/shop/0"."""
    return page.locator(f"[data-node={_quoted(name)}]")


def count(page: Page, name: str) -> Locator:
    """Where a rule's or a target's counts stand."""
    return page.locator(f"[data-count={_quoted(name)}]")


def with_key(running: Running) -> str:
    """The address with which filters can be edited."""
    found = re.search(r"http\S+#key=\S+", running.said)
    assert found
    return found[0]


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


async def until(page: Page, expression: str, seconds: float = 10.0) -> None:
    """Wait until it is so. (The page's policy lets nobody compile text, so the browser cannot wait by itself.)"""
    async with asyncio.timeout(seconds):
        while not await page.evaluate(expression):
            await asyncio.sleep(0.02)


async def lines_meet_nodes(page: Page) -> None:
    """Wait until all lines of a graph begin and end at nodes."""
    assert await page.locator(".graph path").count()
    await until(page, f"({ASTRAY})().length === 0")


async def too_pale(page: Page) -> list[str]:
    """Text, borders and lines with less contrast than WCAG's level AA wants."""
    found: list[Any] = await page.evaluate(CONTRASTS)
    assert len(found) > 10, found
    return [f"{what}: {ratio:.2f}" for what, ratio, wanted in found if ratio < wanted]


async def busy_seconds(page: Page, path: str, times: int, *, act: Any = None) -> float:
    """Seconds of the main thread that one update costs, on average over so many answers of `path`. `act` is awaited before
    each of them. The page must have been opened with `ASKED`."""
    session = await page.context.new_cdp_session(page)
    await session.send("Performance.enable", {"timeDomain": "threadTicks"})

    async def busy() -> float:
        return next(
            one["value"] for one in (await session.send("Performance.getMetrics"))["metrics"] if one["name"] == "TaskDuration"
        )

    began, first = await busy(), await page.evaluate(f"asked.{path}")
    for _ in range(times):
        before = await page.evaluate(f"asked.{path}")
        if act is not None:
            await act()
        await until(page, f"asked.{path} > {before}")
    spent, asked = await busy() - began, await page.evaluate(f"asked.{path}") - first
    await session.detach()
    return spent / asked
