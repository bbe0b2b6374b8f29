"""Opens pages in headless Chromium and complains of what a reader would stumble over."""

from __future__ import annotations

import base64
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import made_up
import pytest

from detdistill.report.build import build

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
ui = pytest.importorskip("selenium.webdriver.support.ui", reason="selenium is not installed")

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

WIDTHS = (1280, 768, 360)
FIXED = "return [...document.images].filter(i => !(i.complete && i.naturalWidth)).map(i => i.alt)"
NAMELESS = "return [...document.images].filter(i => !i.alt.trim()).length"
REPEATED = """
const ids = [...document.querySelectorAll('[id]')].map(e => e.id);
return ids.filter((id, i) => ids.indexOf(id) !== i)"""
SKIPPED = """
const levels = [...document.querySelectorAll('main h2, main h3, main h4')]
  .filter(h => h.checkVisibility()).map(h => Number(h.tagName[1]));
return levels.filter((level, i) => level > (i ? levels[i - 1] : 1) + 1).length"""
FAINT = """
const linear = c => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
const light = rgb => 0.2126 * linear(rgb[0]) + 0.7152 * linear(rgb[1]) + 0.0722 * linear(rgb[2]);
const color = text => text.match(/[\\d.]+/g).map(Number);
function ground(element) {
  for (let e = element; e; e = e.parentElement) {
    const found = color(getComputedStyle(e).backgroundColor);
    if (found.length < 4 || found[3] > 0) return found;
  }
  return [255, 255, 255];
}
return [...document.querySelectorAll('body *:not(script):not(style):not(svg *)')]
  .filter(e => e.checkVisibility())
  .filter(e => [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim()))
  .map(e => {
    const [a, b] = [color(getComputedStyle(e).color), ground(e)].map(light).sort((x, y) => y - x);
    return [(a + 0.05) / (b + 0.05), e.tagName + ' ' + e.textContent.slice(0, 30)];
  })
  .filter(([contrast]) => contrast < 4.5)
  .map(([contrast, text]) => contrast.toFixed(1) + ' ' + text)"""
"""Text that stands out from what is behind it by less than WCAG's 4.5 to 1."""
SHOWN = """
return [...document.querySelectorAll('.variant')].filter(v => v.checkVisibility()).map(v => v.id)"""
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
    root = made_up.everything(tmp_path_factory.mktemp("browser") / "demo")
    return build([root], root / "report.html")


def show(browser: Driver, page: Path, *, width: int = 1100, scheme: str = "light") -> None:
    """Opens a page as a screen of that width shows it."""
    screen = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    browser.get_log("browser")
    browser.get(page.as_uri())


def complaints(
    browser: Driver, page: Path, *, width: int = 1100, scheme: str = "light"
) -> list[str]:
    """What is wrong with a page at that width; nothing if all is well."""
    show(browser, page, width=width, scheme=scheme)
    found = [f"broken picture: {alt}" for alt in browser.execute_script(FIXED)]
    found += [f"request: {name}" for name in browser.execute_script(REQUESTS)]
    if browser.execute_script(NAMELESS):
        found.append("a picture without alt text")
    found += [f"repeated id: {name}" for name in browser.execute_script(REPEATED)]
    found += [f"faint: {text}" for text in browser.execute_script(FAINT)]
    if browser.execute_script(SKIPPED):
        found.append("a heading skips a level")
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
        ("<p id='a'>x</p><p id='a'>y</p>", "repeated id: a"),
        ("<p style='color:#999'>grey</p>", "faint: 2.8 P grey"),
        ("<main><h2>x</h2><h4>y</h4></main>", "skips a level"),
    ],
)
def test_the_check_itself_can_fail(
    browser: Driver, tmp_path: Path, body: str, complaint: str
) -> None:
    made_up.write(tmp_path / "bad.html", f"<!doctype html><title>bad</title>{body}")

    found = complaints(browser, tmp_path / "bad.html")

    assert any(complaint in text for text in found), found


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_a_page_with_everything_has_nothing_to_stumble_over(
    browser: Driver, demo_page: Path, width: int, scheme: str
) -> None:
    assert complaints(browser, demo_page, width=width, scheme=scheme) == []


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


def test_tabs_are_turned_by_keyboard(browser: Driver, demo_page: Path) -> None:
    keys = webdriver.Keys
    show(browser, demo_page)
    first, second = browser.find_elements(
        "css selector", "#figures-0-1-heading ~ .chooser [role=tab]"
    )
    panels = [tab.get_attribute("aria-controls") for tab in (first, second)]
    assert panels[0] in browser.execute_script(SHOWN)

    first.send_keys(keys.ARROW_RIGHT)
    assert browser.switch_to.active_element == second
    assert (first.get_attribute("aria-selected"), first.get_attribute("tabindex")) == (
        "false",
        "-1",
    )
    assert second.get_attribute("aria-selected") == "true"
    assert set(panels).intersection(browser.execute_script(SHOWN)) == {panels[1]}

    second.send_keys(keys.ARROW_RIGHT)
    assert set(panels).intersection(browser.execute_script(SHOWN)) == {panels[0]}
    first.send_keys(keys.END)
    second.send_keys(keys.TAB)
    assert browser.switch_to.active_element.get_attribute("id") == panels[1]


def test_bibtex_is_copied_by_a_button(browser: Driver, demo_page: Path) -> None:
    permissions = {"permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"]}
    browser.execute_cdp_cmd("Browser.grantPermissions", permissions)
    show(browser, demo_page)
    (box,) = browser.find_elements("css selector", "#cite .copyable")

    box.find_element("css selector", "button").send_keys(webdriver.Keys.ENTER)

    wait = ui.WebDriverWait(browser, 10)
    said = wait.until(lambda _: box.find_element("css selector", "[role=status]").text)
    assert said in {"Copied.", "Selected: copy it with the keyboard."}


def test_without_script_and_in_print_all_variants_are_there(
    browser: Driver, demo_page: Path
) -> None:
    show(browser, demo_page)
    some = browser.execute_script(SHOWN)
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    printed = browser.execute_script(SHOWN)
    pdf = browser.execute_cdp_cmd("Page.printToPDF", {"printBackground": True})["data"]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    browser.get(demo_page.as_uri())
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})

    assert (len(some), len(printed)) == (3, 6)
    assert browser.execute_script(SHOWN) == printed
    assert base64.b64decode(pdf).startswith(b"%PDF")
    assert browser.find_elements("css selector", "[role=tab], .copyable button") == []
