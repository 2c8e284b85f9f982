"""The report in a real browser: it loads whole, fits any screen, and nothing in it runs."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from suture.views.page import report
from suture.views.runs import export, read_runs
from tests.views.results import (
    diagnosed,
    diagnosed_without_classes,
    hostile_run,
    localized,
    localized_without_errors,
    routed,
    scanned,
    searched,
    treated,
    untreated,
    verified,
    verified_unchanged,
    verified_without_classes,
    write_run,
)
from tests.views.test_explorer import crowd, with_examples

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip

pytestmark = pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="needs chromium and chromedriver")


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(str(DRIVER)))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("runs")
    healthy = (localized_without_errors(), diagnosed_without_classes(0), untreated(), verified_unchanged())
    runs = {
        "complete": write_run(root / "a", scanned(), localized(), diagnosed(), treated(), with_examples(verified())),
        "hostile": hostile_run(root / "b"),
        "search": write_run(root / "e", searched()),
        "route": write_run(root / "f", routed()),
        "healthy": write_run(root / "c", *healthy),
        "many": write_run(root / "g", with_examples(crowd(300))),
        "own task": write_run(root / "d", localized(), treated(), verified_without_classes()),
    }
    made = {name: report(run) for name, run in runs.items()}
    export(read_runs([runs["complete"], runs["hostile"], runs["search"]]), "html", root / "runs.html")
    return made | {"several": root / "runs.html"}


def load(browser: Any, page: Path, width: int, *, dark: bool = False) -> None:
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
    browser.get(page.as_uri())


def requested(browser: Any) -> set[str]:
    """Schemes of everything that was asked for since the last look."""
    sent = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    urls = [each["params"]["request"]["url"] for each in sent if each["method"] == "Network.requestWillBeSent"]
    assert urls
    return {url.partition(":")[0] for url in urls}


@pytest.mark.parametrize("width", [375, 1200])
@pytest.mark.parametrize("name", ["complete", "hostile", "search", "route", "healthy", "own task", "many", "several"])
def test_it_loads_whole_and_fits(browser: Any, pages: dict[str, Path], name: str, width: int) -> None:
    browser.get_log("performance")  # what the browser asked for before
    load(browser, pages[name], width)
    assert browser.get_log("browser") == []
    assert requested(browser) <= {"file", "data"}
    broken = "return [...document.images].filter(i => !i.complete || !i.naturalWidth).map(i => i.alt)"
    assert browser.execute_script(broken) == []
    page, shown, screen = browser.execute_script(
        "const d = document.documentElement; return [d.scrollWidth, d.clientWidth, innerWidth]"
    )
    assert screen == width
    assert page == shown


def test_no_name_runs(browser: Any, pages: dict[str, Path]) -> None:
    load(browser, pages["hostile"], 1200)
    assert browser.title.endswith("suture report")
    assert browser.execute_script("return document.scripts.length") == 0
    assert "<script>document.title='ran'</script>" in browser.execute_script("return document.body.innerText")
    attributes = "return [...document.querySelectorAll('*')].flatMap(e => e.getAttributeNames())"
    assert not [name for name in browser.execute_script(attributes) if name.startswith("on")]


@pytest.mark.parametrize("dark", [False, True])
def test_text_stands_out_from_its_background(browser: Any, pages: dict[str, Path], dark: bool) -> None:
    load(browser, pages["complete"], 1200, dark=dark)
    found = browser.execute_script(CONTRASTS)
    assert len(found) > 100
    assert {text: ratio for text, ratio in found if ratio < 4.5} == {}


# Contrast of every piece of text with the nearest background that is opaque (WCAG 2: at least 4.5).
CONTRASTS = """
const rgb = c => c.match(/[\\d.]+/g).map(Number);
const light = c => rgb(c).slice(0, 3).map(v => v / 255)
  .map(v => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
  .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
const behind = e => { for (; e; e = e.parentElement) {
  const c = getComputedStyle(e).backgroundColor; if ((rgb(c)[3] ?? 1) === 1) return c; } return 'rgb(255, 255, 255)'; };
const texts = [];
const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walk.nextNode()) {
  const text = walk.currentNode.textContent.trim(), e = walk.currentNode.parentElement;
  if (!text || !e.checkVisibility()) continue;
  const [a, b] = [light(getComputedStyle(e).color), light(behind(e))].sort((x, y) => y - x);
  texts.push([text, (a + .05) / (b + .05)]);
}
return texts;
"""


def test_small_pictures_are_magnified_without_blurring(browser: Any, pages: dict[str, Path]) -> None:
    load(browser, pages["complete"], 375)
    style = browser.execute_script(
        "const i = document.querySelector('.gallery .thumb'), s = getComputedStyle(i);"
        "return [i.naturalWidth, i.clientWidth, s.imageRendering]"
    )
    assert style[0] == 8
    assert style[1] >= 64
    assert style[2] == "pixelated"


def test_contents_lead_to_sections(browser: Any, pages: dict[str, Path]) -> None:
    load(browser, pages["complete"], 1200)
    targets = (
        "return [...document.querySelectorAll('nav a')].map(a => !!document.querySelector(a.getAttribute('href')))"
    )
    assert all(browser.execute_script(targets))


SHOWN = "return [...document.querySelectorAll('[data-part]')].filter(e => e.checkVisibility()).map(e => e.dataset.part)"


def test_the_filters_show_what_is_chosen_and_the_keyboard_moves_them(browser: Any, pages: dict[str, Path]) -> None:
    load(browser, pages["complete"], 1200)
    assert browser.execute_script(SHOWN) == ["difference", "fixed", "broken"]
    browser.find_element(By.CSS_SELECTOR, "[data-show=after]").click()
    browser.find_element(By.CSS_SELECTOR, "[data-show=broken]").click()
    assert browser.execute_script(SHOWN) == ["after", "broken"]
    browser.find_element(By.CSS_SELECTOR, "[data-show=after]").send_keys(Keys.ARROW_LEFT)
    browser.find_element(By.CSS_SELECTOR, "[data-show=broken]").send_keys(Keys.ARROW_RIGHT)
    assert browser.execute_script(SHOWN) == ["before", "fixed", "broken"]
    named = "return [...document.querySelectorAll('input')].every(i => i.labels[0]?.innerText.trim())"
    assert browser.execute_script(named)
    assert browser.execute_script(
        "return [...document.querySelectorAll('fieldset')].every(f => f.querySelector('legend'))"
    )


def test_a_cell_leads_to_its_examples_and_opens_them(browser: Any, pages: dict[str, Path]) -> None:
    load(browser, pages["complete"], 1200)
    seen = "return document.querySelector('#confusion-3').checkVisibility({contentVisibilityAuto: true})"
    assert not browser.execute_script(seen)
    browser.find_element(By.CSS_SELECTOR, "a[href='#confusion-3']").click()
    assert browser.execute_script(seen)


def test_paper_shows_everything_and_no_switches(browser: Any, pages: dict[str, Path]) -> None:
    load(browser, pages["complete"], 1200)
    browser.find_element(By.CSS_SELECTOR, "[data-show=broken]").click()
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    assert browser.execute_script(SHOWN) == ["difference", "before", "after", "fixed", "broken"]
    assert not browser.execute_script("return document.querySelector('.choices').checkVisibility()")
    assert browser.execute_script("return document.querySelector('#confusion-3 img').checkVisibility()")
    pdf = browser.execute_cdp_cmd("Page.printToPDF", {"printBackground": True})["data"]
    assert len(pdf) > 50_000
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


@pytest.mark.parametrize(("width", "height"), [(1280, 800), (390, 844)])
def test_the_first_screen_has_the_verdict_the_groups_and_the_picture(
    browser: Any, pages: dict[str, Path], width: int, height: int
) -> None:
    load(browser, pages["complete"], width)
    ends = browser.execute_script(
        "return ['.word', '.where', '.verdict img'].map(s => document.querySelector(s).getBoundingClientRect().bottom)"
    )
    assert max(ends) <= height


def test_without_has_everything_is_shown(browser: Any, pages: dict[str, Path], tmp_path: Path) -> None:
    old = tmp_path / "old.html"
    old.write_text(pages["complete"].read_text().replace("selector(:has(*))", "selector(:unknown-here(*))"))
    load(browser, old, 1200)
    assert browser.execute_script(SHOWN) == ["difference", "before", "after", "fixed", "broken"]
    assert not browser.execute_script("return document.querySelector('.choices').checkVisibility()")


def test_on_a_telephone_names_stay_whole_and_captions_are_no_wider_than_the_screen(
    browser: Any, tmp_path: Path
) -> None:
    names = ["norm_statistics_of_bn1", "another_class_name", "ship"]
    page = report(write_run(tmp_path, localized(names), diagnosed(names, names), treated(), verified()))
    load(browser, page, 400)
    assert browser.execute_script(WIDE_OR_BROKEN) == []


# Captions that reach beyond the screen, and words of table cells that stand on two lines.
WIDE_OR_BROKEN = """
for (const each of document.querySelectorAll('details')) each.open = true;
const wide = [...document.querySelectorAll('caption')].filter(c => c.getBoundingClientRect().right > innerWidth);
const broken = [];
for (const cell of document.querySelectorAll('tbody th, tbody td')) {
  const text = cell.firstChild;
  if (text?.nodeType !== Node.TEXT_NODE) continue;
  for (const word of text.textContent.matchAll(/[\\w.]+/g)) {
    const range = document.createRange();
    range.setStart(text, word.index); range.setEnd(text, word.index + word[0].length);
    if (range.getClientRects().length > 1) broken.push(word[0]);
  }
}
return [...wide.map(c => c.textContent), ...broken];
"""


def test_on_paper_a_heading_stays_with_what_follows_and_nothing_is_folded(browser: Any, pages: dict[str, Path]) -> None:
    load(browser, pages["complete"], 1200)
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    style = "return getComputedStyle(document.querySelector(arguments[0])).getPropertyValue(arguments[1])"
    try:
        assert browser.execute_script(style, "summary", "list-style-type") == "none"
        for heading in ("h2", "h3", "caption"):
            assert browser.execute_script(style, heading, "break-after") == "avoid"
        assert browser.execute_script(style, "figure.pair", "break-inside") == "avoid"
        assert browser.execute_script(style, "figure.chart", "break-inside") == "avoid"
    finally:
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
