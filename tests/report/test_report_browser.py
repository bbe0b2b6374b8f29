"""Opens pages in headless Chromium and complains of what a reader would stumble over."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import made_up
import pytest

from detdistill.report.build import build

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")

CHROMIUM = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)
DRIVER = shutil.which("chromedriver")

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(
        not (CHROMIUM and DRIVER),
        reason="Chromium and its driver are not installed (Debian: chromium, chromium-driver)",
    ),
]

WIDTHS = (1100, 400)
FIXED = "return [...document.images].filter(i => !(i.complete && i.naturalWidth)).map(i => i.alt)"
NAMELESS = "return [...document.images].filter(i => !i.alt.trim()).length"
WIDE = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
REQUESTS = (
    "return performance.getEntriesByType('resource').map(e => e.name)"
    ".filter(name => !name.startsWith('data:'))"
)

Driver = Any


@pytest.fixture(scope="module")
def browser() -> Iterator[Driver]:
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def demo_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = made_up.demo(tmp_path_factory.mktemp("browser") / "demo")
    return build([root], root / "report.html")


def show(browser: Driver, page: Path, *, width: int = 1100, scheme: str = "light") -> None:
    """Opens a page as a screen of that width shows it."""
    screen = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    browser.get_log("browser")
    browser.get(page.as_uri())


def complaints(browser: Driver, page: Path, *, width: int = 1100) -> list[str]:
    """What is wrong with a page at that width; nothing if all is well."""
    show(browser, page, width=width)
    found = [f"broken picture: {alt}" for alt in browser.execute_script(FIXED)]
    found += [f"request: {name}" for name in browser.execute_script(REQUESTS)]
    if browser.execute_script(NAMELESS):
        found.append("a picture without alt text")
    if browser.execute_script(WIDE) > 0:
        found.append("the page is wider than the screen")
    return found + [f"console: {entry['message']}" for entry in browser.get_log("browser")]


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        ("<script>throw new Error('x')</script>", "console"),
        ("<img src='data:image/png;base64,AAAA' alt='a square'>", "broken picture"),
        ("<img src='data:image/gif;base64,R0lGODlhAQABAAAAACwAAAAAAQABAAA=' alt=''>", "alt text"),
        ("<div style='width:3000px'>wide</div>", "wider than the screen"),
    ],
)
def test_the_check_itself_can_fail(
    browser: Driver, tmp_path: Path, body: str, complaint: str
) -> None:
    made_up.write(tmp_path / "bad.html", f"<!doctype html><title>bad</title>{body}")

    found = complaints(browser, tmp_path / "bad.html")

    assert any(complaint in text for text in found), found


@pytest.mark.parametrize("width", WIDTHS)
def test_the_demos_page_has_nothing_to_stumble_over(
    browser: Driver, demo_page: Path, width: int
) -> None:
    assert complaints(browser, demo_page, width=width) == []


@pytest.mark.parametrize("width", WIDTHS)
def test_a_page_of_several_seeds_has_nothing_to_stumble_over(
    browser: Driver, tmp_path: Path, width: int
) -> None:
    root = made_up.several_seeds(tmp_path / "seeds")

    assert complaints(browser, build([root], root), width=width) == []


def test_a_page_of_an_unfinished_run_has_nothing_to_stumble_over(
    browser: Driver, tmp_path: Path
) -> None:
    run = made_up.run(tmp_path / "half", ap=None, methods={"pkd": {}})

    assert complaints(browser, build([run], run)) == []


def test_dark_screens_get_a_dark_page(browser: Driver, demo_page: Path) -> None:
    color = "return getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)"
    show(browser, demo_page, scheme="light")
    light = sum(browser.execute_script(color)) / 3
    show(browser, demo_page, scheme="dark")

    dark = sum(browser.execute_script(color)) / 3

    assert dark < 50
    assert light > 200


def test_pictures_are_enlarged_and_turned_by_keyboard(browser: Driver, demo_page: Path) -> None:
    keys = webdriver.Keys
    show(browser, demo_page)
    heading = "return document.querySelector('#enlarged-heading').textContent"
    is_open = "return document.querySelector('#enlarged').open"

    browser.find_element("css selector", ".panel button").send_keys(keys.ENTER)
    assert browser.execute_script(is_open)
    assert browser.execute_script(heading).endswith("(1 of 8)")

    browser.switch_to.active_element.send_keys(keys.ARROW_RIGHT)
    assert browser.execute_script(heading).endswith("(2 of 8)")

    browser.switch_to.active_element.send_keys(keys.ESCAPE)
    assert not browser.execute_script(is_open)


def test_a_wide_table_scrolls_in_its_own_place(browser: Driver, demo_page: Path) -> None:
    show(browser, demo_page, width=400)
    inner = "const s = document.querySelector('.scroll'); return s.scrollWidth - s.clientWidth"

    assert browser.execute_script(inner) > 0
