"""The page in a real browser: what it shows, what it sends, what it says when it cannot."""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psycopg
import pytest
from fastapi.testclient import TestClient
from playwright.sync_api import Browser, Page, expect, sync_playwright

from services.pancake.settings import Settings
from tests.services.pancake.conftest import Postgres
from tests.services.pipeline_info.conftest import free_port

PHONE = {"width": 390, "height": 844}
SOME = (
    ("Fluffy buttermilk", 9, "maple", True, 42.5, "Like eating a warm cloud."),
    ("Thin crêpe", 2, "chocolate", False, 0, None),
    ("Сирники", 7, "strawberry", True, 12, "Як у бабусі.\nЩе дві, будь ласка."),
    ("Oat and banana", 5, "honey", False, -3.25, "Sensible. A little sad."),
    ("Dutch baby", 10, "lemon", True, 9999.99, "It left the pan on its own."),
)


def test_the_page_loads_nothing_from_elsewhere(client: TestClient):
    answer = client.get("/")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/html")
    assert "script-src 'self'" in answer.headers["content-security-policy"]
    for address in re.findall(r'(?:src|href)="([^"]+)"', answer.text):
        assert address.startswith(("/static/", "#"))
        if address.startswith("/static/"):
            assert client.get(address).status_code == 200
    # Both sides know the same limits.
    schema = client.get("/openapi.json").json()["components"]["schemas"]["PancakeCreate"]["properties"]
    for field in ("name", "syrup_type"):
        assert re.search(rf'id="{field}"[^>]* maxlength="{schema[field]["maxLength"]}"', answer.text)
    assert f'max="{schema["magical_factor"]["maximum"]}"' in answer.text


@pytest.fixture(scope="module")
def site(database: Settings) -> Iterator[str]:
    """The service in a process of its own."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "uvicorn", "services.pancake.app:app"),
            *("--host", "127.0.0.1", "--port", str(port), "--log-level", "warning"),
        ],
        cwd=Path(__file__).parents[3],
        env={
            "PATH": "/usr/bin:/bin",
            "DB_HOST": database.db_host,
            "DB_PORT": str(database.db_port),
            "DB_USER": database.db_user,
            "DB_NAME": database.db_name,
            "PANCAKE_LOG_LEVEL": "ERROR",
            "PANCAKE_BREAKER_SECONDS": "1",
        },
    )
    for _ in range(200):
        assert process.poll() is None
        try:
            httpx.get(f"{url}/health", timeout=2)
            break
        except httpx.HTTPError:
            time.sleep(0.1)
    yield url
    process.terminate()
    process.wait(20)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    program = os.environ.get("TALLYHOUSE_CHROMIUM") or shutil.which("chromium")
    if not program:
        pytest.fail("no browser: install chromium, or name one in TALLYHOUSE_CHROMIUM")
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(
            executable_path=program, args=["--no-sandbox", "--disable-background-networking"]
        )
        yield found
        found.close()


@pytest.fixture
def page(browser: Browser, site: str, table: psycopg.Connection) -> Iterator[Page]:
    """A page over the empty table, that may meet no error and ask for nothing from elsewhere."""
    page = browser.new_page(
        viewport={"width": 1200, "height": 860}, color_scheme="light", locale="en-GB", timezone_id="UTC"
    )
    page.set_default_timeout(10_000)
    wrong: list[str] = []
    # A refused request is the browser's to mention, and the page's to handle.
    page.on(
        "console",
        lambda m: wrong.append(m.text) if m.type == "error" and "Failed to load" not in m.text else None,
    )
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", lambda r: None if r.url.startswith((site, "data:")) else wrong.append(r.url))
    yield page
    page.close()
    assert wrong == []


def fill(table: psycopg.Connection, rows: tuple[tuple, ...] = SOME) -> None:
    with table.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO pancakes"
            " (name, fluffiness_level, syrup_type, is_buttery, magical_factor, taste_notes)"
            " VALUES (%s, %s, %s, %s, %s, %s)",
            rows,
        )


def shot(page: Page, name: str) -> None:
    """Keep a picture, where PANCAKE_SCREENSHOTS says."""
    if folder := os.environ.get("PANCAKE_SCREENSHOTS"):
        page.screenshot(path=Path(folder) / f"{name}.png")


def fits(page: Page) -> bool:
    return bool(page.evaluate("document.documentElement.scrollWidth <= innerWidth"))


def test_an_empty_shop_and_its_first_pancake(page: Page, site: str, table: psycopg.Connection):
    page.goto(site)
    expect(page.get_by_text("No pancakes yet.")).to_be_visible()
    shot(page, "empty")
    page.get_by_label("Name").fill("  <b>Bold</b> & fluffy ")
    page.get_by_label("Fluffiness").fill("9")
    expect(page.locator("#fluffiness-shown")).to_have_text("9 of 10")
    page.get_by_label("Syrup").fill("maple")
    page.get_by_label("Magical factor").fill("1.25")
    page.get_by_label("Taste notes").fill("One.\nTwo.")
    page.get_by_label("Buttery").check()
    page.get_by_role("button", name="Add it").click()
    expect(page.locator("#said")).to_have_text("<b>Bold</b> & fluffy is stored.")
    expect(page.get_by_text("No pancakes yet.")).to_be_hidden()
    card = page.locator("#pancakes .card")
    expect(card).to_have_count(1)
    expect(card.get_by_role("heading")).to_have_text("<b>Bold</b> & fluffy")
    expect(card.get_by_role("img", name="Fluffiness 9 of 10")).to_be_visible()
    expect(card.locator(".chips li")).to_have_text(["maple", "buttery", "magic 1.25"])
    expect(page.get_by_label("Name")).to_be_focused()
    expect(page.get_by_label("Name")).to_have_value("")
    assert table.execute(
        "SELECT name, fluffiness_level, syrup_type, is_buttery, magical_factor::text, taste_notes"
        " FROM pancakes"
    ).fetchall() == [("<b>Bold</b> & fluffy", 9, "maple", True, "1.25", "One.\nTwo.")]


def test_mistakes_are_shown_where_they_are(page: Page, site: str, table: psycopg.Connection):
    fill(table)
    page.goto(site)
    expect(page.locator(".card")).to_have_count(5)
    page.get_by_label("Magical factor").fill("0.005")
    page.get_by_role("button", name="Add it").click()
    for field, said in (
        *(("name", "Fill this in."), ("syrup_type", "Fill this in.")),
        ("magical_factor", "At most two decimals."),
    ):
        expect(page.locator(f"#{field}-error")).to_have_text(said)
        expect(page.locator(f"#{field}")).to_have_attribute("aria-invalid", "true")
    expect(page.get_by_label("Name")).to_be_focused()
    shot(page, "error")
    # Each goes away when it is fixed; what only the service refuses is shown in the same place.
    page.get_by_label("Name").fill("   ")
    expect(page.locator("#name-error")).to_be_hidden()
    page.get_by_label("Syrup").fill("maple")
    page.get_by_label("Magical factor").fill("1")
    page.get_by_role("button", name="Add it").click()
    expect(page.locator("#name-error")).to_have_text("String should have at least 1 character.")
    expect(page.get_by_label("Syrup")).to_have_value("maple")
    assert table.execute("SELECT count(*) FROM pancakes").fetchone() == (5,)


def test_older_pancakes_follow_in_place(page: Page, site: str, table: psycopg.Connection):
    fill(table, tuple((f"number {i}", 5, "maple", False, 0, None) for i in range(60)))
    page.goto(site)
    expect(page.locator(".card")).to_have_count(24)
    fill(table, SOME[:1])  # somebody else's, meanwhile
    older = page.get_by_role("button", name="Older pancakes")
    older.click()
    expect(page.locator(".card")).to_have_count(48)
    older.click()
    expect(page.locator(".card")).to_have_count(60)
    expect(older).to_be_hidden()
    names = page.locator(".card h3").all_inner_texts()
    assert names == [f"number {i}" for i in range(59, -1, -1)]


def test_by_keyboard_alone(page: Page, site: str):
    page.goto(site)
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the pancakes")).to_be_focused()
    page.keyboard.press("Tab")
    page.keyboard.type("Keyed")
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Tab")
    page.keyboard.type("honey")
    for _ in range(2):
        page.keyboard.press("Tab")
    page.keyboard.type("line one")
    page.keyboard.press("Enter")
    page.keyboard.type("line two")
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Control+Enter")
    expect(page.locator(".card")).to_have_count(1)
    expect(page.locator(".card .notes")).to_have_text("line one\nline two")
    expect(page.locator(".card .of")).to_have_text("8/10")
    expect(page.locator(".card .chips li").nth(1)).to_have_text("buttery")


def test_on_a_phone(page: Page, site: str, table: psycopg.Connection):
    long = "Supercalifragilisticexpialidocious" * 2
    fill(table, (*SOME, (long, 3, "w" * 50, True, 1, "x" * 400)))
    page.set_viewport_size({"width": 320, "height": 640})
    page.goto(site)
    expect(page.locator(".card")).to_have_count(6)
    assert fits(page)
    page.set_viewport_size(PHONE)
    assert fits(page)
    for control in page.locator("main button:visible, #form input, #form textarea").all():
        box = control.bounding_box()
        assert box and (box["height"] >= 20), control
    table.execute("DELETE FROM pancakes WHERE name = %s", [long])
    page.reload()
    expect(page.locator(".card")).to_have_count(5)
    shot(page, "phone")
    page.locator("#list").scroll_into_view_if_needed()
    page.evaluate("document.getElementById('list').scrollIntoView()")
    shot(page, "phone-list")


def test_light_and_dark(page: Page, site: str, table: psycopg.Connection):
    fill(table)
    page.goto(site)
    expect(page.locator(".card")).to_have_count(5)
    shot(page, "desktop")
    light = contrasts(page)
    page.emulate_media(color_scheme="dark")
    dark = contrasts(page)
    shot(page, "dark")
    assert light.keys() == dark.keys()
    for found in (light, dark):
        assert min(found.values()) >= 4.5, found


def contrasts(page: Page) -> dict[str, float]:
    """WCAG's contrast of texts with their ground."""
    return page.evaluate(
        """() => {
        const light = (c) => { const [r, g, b] = c.map((v) => v / 255)
          .map((v) => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
          return .2126 * r + .7152 * g + .0722 * b; };
        const parts = (c) => c.match(/[\\d.]+/g).map(Number);
        const ground = (e) => { for (; e; e = e.parentElement) {
          const c = parts(getComputedStyle(e).backgroundColor); if (c[3] !== 0) return c.slice(0, 3); }
          return [255, 255, 255]; };
        const found = {};
        const texts = ["h1", "h3", "label", ".ends span", ".chips li", ".of", "time", ".notes", "#send"];
        for (const what of texts) {
          const e = document.querySelector(what);
          const ink = light(parts(getComputedStyle(e).color).slice(0, 3)), paper = light(ground(e));
          found[what] = (Math.max(ink, paper) + .05) / (Math.min(ink, paper) + .05);
        }
        return found; }"""
    )


def test_a_shop_whose_database_is_away(page: Page, site: str, table: psycopg.Connection, postgres: Postgres):
    fill(table)
    page.goto(site)
    expect(page.locator(".card")).to_have_count(5)
    postgres.kill()
    try:
        page.get_by_label("Name").fill("Patience")
        page.get_by_label("Syrup").fill("maple")
        page.get_by_role("button", name="Add it").click()
        expect(page.locator("#form-alert")).to_have_text("The database does not answer. Try again in 1 s.")
        expect(page.get_by_label("Name")).to_have_value("Patience")
        shot(page, "away")
        page.reload()
        expect(page.locator("#list-alert")).to_contain_text("The database")
    finally:
        postgres.start()
    time.sleep(1.1)
    page.get_by_role("button", name="Try again").click()
    expect(page.locator(".card")).to_have_count(5)
    expect(page.locator("#list-alert")).to_be_hidden()


def test_without_scripts_it_says_so(browser: Browser, site: str):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(site)
    assert "needs JavaScript" in page.content()
    context.close()
