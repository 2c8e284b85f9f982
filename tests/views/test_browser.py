"""The report in a real browser: it loads whole, fits any screen, and nothing in it runs."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

from suture.views.page import report
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
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(str(DRIVER)))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("runs")
    healthy = (localized_without_errors(), diagnosed_without_classes(0), untreated(), verified_unchanged())
    runs = {
        "complete": write_run(root / "a", scanned(), localized(), diagnosed(), treated(), verified()),
        "hostile": hostile_run(root / "b"),
        "search": write_run(root / "e", searched()),
        "route": write_run(root / "f", routed()),
        "healthy": write_run(root / "c", *healthy),
        "own task": write_run(root / "d", localized(), treated(), verified_without_classes()),
    }
    return {name: report(run) for name, run in runs.items()}


def load(browser: Any, page: Path, width: int, *, dark: bool = False) -> None:
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
    browser.get(page.as_uri())


@pytest.mark.parametrize("width", [375, 1200])
@pytest.mark.parametrize("name", ["complete", "hostile", "search", "route", "healthy", "own task"])
def test_it_loads_whole_and_fits(browser: Any, pages: dict[str, Path], name: str, width: int) -> None:
    load(browser, pages[name], width)
    assert browser.get_log("browser") == []
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
