"""A real browser without a window: the system's Chromium, driven by Playwright. Skipped where there is none."""

from __future__ import annotations

import os
import shutil

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@pytest.fixture(scope="session")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="no Playwright here: pip install playwright")
    path = os.environ.get("BROWSER_PATH") or next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        pytest.skip("no Chromium here: apt-get install chromium, or set BROWSER_PATH")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-dev-shm-usage"])
        yield browser
        browser.close()


@pytest.fixture
def visit(browser):
    """visit(address, options of the browser's context...) -> a page. What it loads from elsewhere, and errors that it
    tells of, fail the test."""
    contexts, faults = [], []

    def visit(address, **options):
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
        context.set_default_timeout(60_000)  # other tests may run beside them
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: faults.append(f"{error}"))

        def look(request):
            if not request.url.startswith((address, "data:", "blob:")):
                faults.append(f"loads {request.url}")

        page.on("request", look)
        page.goto(address)
        return page

    yield visit
    for context in contexts:
        context.close()
    assert faults == []


PHONE = {"viewport": {"width": 390, "height": 844}, "device_scale_factor": 2, "is_mobile": True, "has_touch": True}


@pytest.fixture
def phone():
    return dict(PHONE)
