"""A browser, and gateways to look at."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator

import pytest
from playwright.async_api import Page, async_playwright, expect
from support.shop import MARKS, ROUTES
from support.standalone import App, Running, apps, running

__all__ = ["apps", "running"]

expect.set_options(timeout=20_000)  # a machine that does other things as well is slow, not wrong

# Chromium asks for nothing but what the tests open.
QUIET = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip


@pytest.fixture
async def page() -> AsyncIterator[Page]:
    """A new page; whatever it throws or complains of fails the test."""
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    complaints: list[str] = []
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=program, args=QUIET)
        try:
            opened = await browser.new_page(viewport={"width": 1300, "height": 900})
            opened.set_default_timeout(30_000)
            opened.on("pageerror", lambda error: complaints.append(str(error)))
            opened.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
            yield opened
        finally:
            await browser.close()
    # A save that is refused is no error of the page, nor is a gateway that is gone.
    expected = ("the server responded with a status of 4", "net::ERR_CONNECTION", "net::ERR_INCOMPLETE", "Failed to fetch")
    assert not [words for words in complaints if not any(one in words for one in expected)]


@pytest.fixture
async def shop(running: Running, apps: tuple[App, App]) -> Running:
    """The shop, served; its filter can be edited."""
    (running.folder / "shop.yaml").write_text(ROUTES)
    (running.folder / "marks.py").write_text(MARKS)
    await running.start()
    await running.until(lambda: "#key=" in running.said)
    return running
