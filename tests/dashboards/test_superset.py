"""Every dashboard in a real browser on a real Superset: each chart asks, gets rows, and is drawn.

Run by `make superset-check`, on a stack that has data; skipped without it, since Superset is heavy.
"""

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, Response, expect, sync_playwright

from tests.dashboards.test_assets import CHARTS, DASHBOARDS, charts_of

pytestmark = pytest.mark.skipif("SUPERSET_CHECK" not in os.environ, reason="run by make superset-check")
SECONDS = 120


@pytest.fixture(scope="module")
def url() -> str:
    return os.environ["SUPERSET_CHECK"]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    program = os.environ.get("TALLYHOUSE_CHROMIUM") or shutil.which("chromium")
    assert program, "no browser: install chromium, or name one in TALLYHOUSE_CHROMIUM"
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(
            executable_path=program, args=["--no-sandbox", "--disable-background-networking"]
        )
        yield found
        found.close()


@pytest.fixture(scope="module")
def page(browser: Browser, url: str) -> Iterator[Page]:
    """Logged in; nobody but Superset itself answers anything."""
    context = browser.new_context(
        viewport={"width": 1440, "height": 1000}, locale="en-GB", timezone_id="UTC", base_url=url
    )
    context.set_default_timeout(SECONDS * 1000)
    elsewhere: list[str] = []
    # What the page's own rules stop, as its counting pixel, never finishes.
    context.on(
        "requestfinished",
        lambda request: (
            None if request.url.startswith((url, "data:", "blob:")) else elsewhere.append(request.url)
        ),
    )
    page = context.new_page()
    page.goto("/login/")
    page.get_by_test_id("username-input").or_(page.locator("#username")).first.fill(
        os.environ["SUPERSET_ADMIN_USER"]
    )
    page.get_by_test_id("password-input").or_(page.locator("#password")).first.fill(
        os.environ["SUPERSET_ADMIN_PASSWORD"]
    )
    page.keyboard.press("Enter")
    page.wait_for_url(lambda address: "/login" not in address)
    yield page
    context.close()
    assert elsewhere == []


@pytest.mark.parametrize("slug", DASHBOARDS)
def test_every_chart_gets_rows_and_is_drawn(page: Page, slug: str):
    answers: list[Response] = []

    def note(response: Response) -> None:
        if "/api/v1/chart/data" in response.url:
            answers.append(response)

    page.on("response", note)
    page.set_viewport_size({"width": 1440, "height": 1000})
    page.goto(f"/superset/dashboard/{slug}/?standalone=1&show_filters=1")
    wanted = {CHARTS[meta["uuid"]]["slice_name"] for meta in charts_of(DASHBOARDS[slug])}
    holders = page.locator(".dashboard-component-chart-holder")
    expect(holders).to_have_count(len(wanted), timeout=SECONDS * 1000)
    # Charts beyond the window are asked for when they come into it: let all of it be in.
    height = page.evaluate("document.querySelector('.grid-content, .dashboard-content').scrollHeight")
    page.set_viewport_size({"width": 1440, "height": int(height) + 160})
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline and (
        len(answers) < len(wanted)
        or page.locator(".dashboard .loading, .dashboard [data-test=loading-indicator]").count()
    ):
        page.wait_for_timeout(500)
    page.remove_listener("response", note)
    rows: dict[str, int] = {}
    for response in answers:
        form = response.request.post_data_json
        name = form["form_data"].get("slice_id") if form else None
        assert response.status == 200, response.text()[:1000]
        for result in response.json()["result"]:
            assert not result.get("error"), result["error"]
        if name is not None:
            rows[str(name)] = max(rows.get(str(name), 0), response.json()["result"][0]["rowcount"])
    assert len(rows) == len(wanted)
    assert all(rows.values()), rows
    expect(page.locator(".dashboard .ant-alert-error, .dashboard [data-test=error-message]")).to_have_count(0)
    for name in wanted:
        expect(page.locator(".dashboard").get_by_text(name, exact=True).first).to_be_visible()
    assert page.get_by_text("No results were returned").count() == 0
    page.wait_for_timeout(1500)  # charts that move into their place
    if folder := os.environ.get("SUPERSET_SCREENSHOTS"):
        page.screenshot(path=Path(folder) / f"{slug}.png")
