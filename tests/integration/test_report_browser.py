"""The report in a real browser: offline, silent, inert, and readable on a page and on a phone."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from headless_browser import start_browser
from lmdissect.report import write_report
from unit.report.shift_artifact import Details, Tables, build_shift_artifact, example_row

pytestmark = pytest.mark.browser

_WIDTHS = (1280, 390)
_ATTACK = "</span></p><script>window.__pwned=1</script><img src=x onerror=window.__pwned=1><svg onload=window.__pwned=1>"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Headless Chromium that logs its console and every request."""
    driver = start_browser()
    yield driver
    driver.quit()


def _make_hostile(tables: Tables, details: Details) -> None:
    for row in tables["examples"][1:]:
        row.update(example_row(row["document_id"], row["variant"], f"{row['text']} {_ATTACK} \x00\u202e end"))
    details["notes"] = [_ATTACK]
    details["tuned_model"]["reference"] = f"</title>{_ATTACK}" + "/a-very-long-path-without-a-break" * 8
    details["dropped"] = [{"variant": _ATTACK, "document_id": "x" * 300, "reason": _ATTACK}]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(build_shift_artifact(tmp_path_factory.mktemp("report"), _make_hostile))


def _open(browser: Any, report: Path, width: int, scheme: str = "light") -> None:
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 640})
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]})
    for kind in ("browser", "performance"):
        browser.get_log(kind)
    browser.get(report.as_uri())


def _requested(browser: Any) -> set[str]:
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    return {event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"}


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", _WIDTHS)
def test_the_report_is_silent_offline_and_fits(browser: Any, report: Path, width: int, scheme: str) -> None:
    _open(browser, report, width, scheme)
    for details in browser.find_elements("css selector", "details"):
        browser.execute_script("arguments[0].open = true", details)
    assert browser.execute_script("return document.documentElement.scrollWidth <= window.innerWidth")
    assert browser.execute_script("return window.innerWidth") == width
    assert browser.execute_script("return window.__pwned === undefined")
    assert browser.get_log("browser") == []
    assert _requested(browser) == {report.as_uri()}


@pytest.mark.parametrize("width", _WIDTHS)
def test_figures_fit_and_their_type_is_legible(browser: Any, report: Path, width: int) -> None:
    _open(browser, report, width)
    shown = [svg for svg in browser.find_elements("css selector", "svg.drawing") if svg.is_displayed()]
    assert len(shown) == 4
    for svg in shown:
        box = browser.execute_script("const b = arguments[0].getBoundingClientRect(); return [b.left, b.right]", svg)
        assert box[0] >= 0
        assert box[1] <= width
        heights = browser.execute_script("return [...arguments[0].querySelectorAll('text')].map(t => t.getBoundingClientRect().height)", svg)
        assert min(heights) >= 12


def test_the_style_sheet_passes_the_policy_and_follows_the_colour_scheme(browser: Any, report: Path) -> None:
    colours = {}
    for scheme in ("light", "dark"):
        _open(browser, report, 1280, scheme)
        colours[scheme] = browser.execute_script(
            "return [getComputedStyle(document.body).backgroundColor, getComputedStyle(document.querySelector('svg.wide .f-ink')).fill]"
        )
    assert colours["light"] == ["rgb(254, 254, 254)", "rgb(27, 31, 36)"]
    assert colours["dark"] == ["rgb(21, 24, 29)", "rgb(232, 234, 238)"]


def test_units_are_switched_with_the_keyboard(browser: Any, report: Path) -> None:
    from selenium.webdriver.common.keys import Keys

    _open(browser, report, 1280)
    assert [panel.is_displayed() for panel in browser.find_elements("css selector", ".panel")] == [True, False, False]
    browser.find_element("id", "unit-token").send_keys(Keys.ARROW_RIGHT)
    assert [panel.is_displayed() for panel in browser.find_elements("css selector", ".panel")] == [False, True, False]


def test_wide_tables_scroll_inside_their_own_container(browser: Any, report: Path) -> None:
    _open(browser, report, 390)
    inner, outer = browser.execute_script("const s = document.querySelector('#losses .scroll'); return [s.scrollWidth, s.clientWidth]")
    assert inner > outer


def test_a_page_without_script_has_no_element_of_the_attack(browser: Any, report: Path) -> None:
    _open(browser, report, 1280)
    assert browser.find_elements("css selector", "script, img, [onload], [onerror]") == []
    assert browser.title.startswith("What finetuning changed: </title>")
