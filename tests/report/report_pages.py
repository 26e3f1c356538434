"""What a hand does on an open report, and waiting for what follows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Page

SLIDE = """([id, value]) => {
    const before = Number(document.body.dataset.settled ?? 0);
    const control = document.getElementById(id);
    control.value = value;
    control.dispatchEvent(new Event('input'));
    return before;
}"""


def slide(page: Page, control: str, value: float) -> None:
    """Move a slider as a hand does, and wait until all that follows has settled."""
    before = page.evaluate(SLIDE, [control, value])
    until(page, f"Number(document.body.dataset.settled ?? 0) > {before}")


def counted_again(page: Page) -> str:
    """Load a page again, and return what it counts of the marks that the browser has kept."""
    for _ in range(2):  # on a busy machine Chromium may show a page empty storage once, and all of it the next time
        page.reload()
        page.wait_for_selector("body[data-ready]")
        counted = page.locator("#mark-count").inner_text()
        if counted != "Nothing is marked yet.":
            break
    return counted


def until(page: Page, condition: str) -> None:
    """Wait until something is so; playwright's own way needs eval, which the page's policy forbids."""
    for _ in range(500):
        if page.evaluate(condition):
            return
        page.wait_for_timeout(20)
    pytest.fail(f"it did not come true: {condition}")
