"""The study report in a real browser: drawn, silent, offline, inert, and usable with a pointer, with keys, on a phone and on a wide screen."""

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from headless_browser import start_browser
from lmdissect.pipeline.viewing import ViewServer, open_view
from lmdissect.records import ExplorerSource
from lmdissect.report.study import write_study_report
from study_world import Tables, build_scores, build_study, keep_points, make_texts

pytestmark = [pytest.mark.browser, pytest.mark.slow]

_POINT = "size=30000"
_ATTACK = "</script></span><script>window.__pwned=1</script><img src=x onerror=window.__pwned=1><svg onload=window.__pwned=1>\" ' `"
_HOSTILE = f"{_ATTACK} \u202e \u05e9\u05dc\u05d5\u05dd \U0001f600 {'x' * 100_000} end"
_SECTIONS = 14


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Headless Chromium that logs its console and every request."""
    driver = start_browser()
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> ExplorerSource:
    texts = make_texts(130, num_words=60)
    texts["doc0003", "casual"] = _HOSTILE
    texts["doc0003", "original"] = f"{_ATTACK} needle"
    return build_scores(tmp_path_factory.mktemp("scores"), texts, label=_ATTACK)


@pytest.fixture(scope="module")
def study(source: ExplorerSource, tmp_path_factory: pytest.TempPathFactory) -> Path:
    def change(tables: Tables, details: dict[str, Any]) -> None:
        keep_points(_POINT, "size=100", "pubmed", "pubmed, casual")(tables, details)
        for row in tables["moved_tokens"][:4]:
            row["token"] = _ATTACK
        tables["statements"][0]["sentence"] += _ATTACK
        tables["runs"][0].update(base_scores=str(source.base_scores), tuned_scores=str(source.tuned_scores))
        details["notes"] = [_ATTACK]

    return build_study(tmp_path_factory.mktemp("study"), change)


@pytest.fixture(scope="module")
def report(study: Path, source: ExplorerSource) -> Path:
    return write_study_report(study, explorer=source)


def _wait(browser: Any, script: str, timeout_s: float = 15.0) -> Any:
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        if value := browser.execute_script(f"return {script}"):
            return value
        time.sleep(0.03)
    pytest.fail(f"never true: {script}")


def _open(browser: Any, url: str, width: int = 1280, scheme: str = "light") -> None:
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 640})
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]})
    for kind in ("browser", "performance"):
        browser.get_log(kind)
    browser.get(url)
    _wait(browser, "document.documentElement.dataset.ready")


def _draw_all(browser: Any) -> None:
    browser.execute_script("for (const figure of document.querySelectorAll('figure.chart')) figure.scrollIntoView({behavior: 'instant'})")
    for place in range(browser.execute_script("return document.querySelectorAll('figure.chart').length")):
        browser.execute_script(f"document.querySelectorAll('figure.chart')[{place}].scrollIntoView({{behavior: 'instant'}})")
        _wait(browser, f"document.querySelectorAll('figure.chart .plot')[{place}].dataset.drawn")


def _requested(browser: Any) -> set[str]:
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    return {event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"}


def _find(browser: Any, words: str) -> list[str]:
    """Type into the search and give the ids listed."""
    browser.execute_script(
        "const box = document.getElementById('doc-search'); box.value = arguments[0]; box.dispatchEvent(new Event('input'))", words
    )
    time.sleep(0.4)
    found: list[str] = browser.execute_script("return [...document.querySelectorAll('#doc-list b span:first-child')].map((line) => line.textContent)")
    return found


def _open_document(browser: Any, document: str) -> None:
    assert document in _find(browser, document)
    browser.execute_script("document.querySelector('#doc-list button').click()")
    _wait(browser, f"document.getElementById('reader-title').textContent === {document!r}")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280, 1920])
def test_it_is_drawn_silent_offline_and_fits(browser: Any, report: Path, width: int, scheme: str) -> None:
    _open(browser, report.as_uri(), width, scheme)
    _draw_all(browser)
    for details in browser.find_elements("css selector", "details"):
        browser.execute_script("arguments[0].open = true", details)
    _open_document(browser, "doc0003")
    browser.execute_script("const s = document.getElementById('variant-choice'); s.value = 'casual'; s.dispatchEvent(new Event('change'))")
    assert browser.execute_script("return document.documentElement.scrollWidth") == width
    assert browser.execute_script("return document.querySelectorAll('.plot .main-svg').length") >= _SECTIONS
    assert browser.execute_script(
        "return [...document.querySelectorAll('.plot')].every((plot) => plot.querySelectorAll('.scatterlayer path').length > 0)"
    )
    assert browser.execute_script("return [...document.querySelectorAll('.static')].every((still) => still.hidden)")
    assert browser.execute_script("return window.__pwned === undefined")
    assert browser.get_log("browser") == []
    assert _requested(browser) == {report.as_uri()}


def test_figures_follow_the_colour_scheme(browser: Any, report: Path) -> None:
    colours = {}
    for scheme in ("light", "dark"):
        _open(browser, report.as_uri(), 1280, scheme)
        _draw_all(browser)
        colours[scheme] = browser.execute_script(
            "return [getComputedStyle(document.body).backgroundColor, getComputedStyle(document.querySelector('.plot .ytick text')).fill]"
        )
    assert colours["light"] == ["rgb(254, 254, 254)", "rgb(27, 31, 36)"]
    assert colours["dark"] == ["rgb(21, 24, 29)", "rgb(232, 234, 238)"]


def test_hostile_text_is_shown_as_text(browser: Any, report: Path) -> None:
    _open(browser, report.as_uri())
    assert browser.execute_script("return document.querySelectorAll('img, [onerror], [onload]').length") == 0
    assert browser.execute_script("return document.querySelectorAll('script').length") == 5
    _open_document(browser, "doc0003")
    assert _ATTACK in browser.execute_script("return document.getElementById('left-tokens').textContent")
    browser.execute_script("const s = document.getElementById('variant-choice'); s.value = 'casual'; s.dispatchEvent(new Event('change'))")
    shown = browser.execute_script("return document.getElementById('right-tokens').textContent")
    assert shown == _HOSTILE.replace("\u202e", "\ufffd")
    assert browser.execute_script("return window.__pwned === undefined")


def test_a_mark_tells_its_numbers_to_pointer_and_keys(browser: Any, report: Path) -> None:
    from selenium.webdriver.common.keys import Keys

    _open(browser, report.as_uri())
    _draw_all(browser)
    plot = browser.find_element("css selector", "#overview .plot")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'}); arguments[0].focus()", plot)
    plot.send_keys(Keys.ARROW_RIGHT)
    said = _wait(browser, "document.querySelector('#overview [data-said]').textContent")
    assert said.startswith("against the original, nonbiomedical \u00b7 topic, +0.0")
    assert "95 % interval" in said
    assert _wait(browser, "document.querySelector('#overview .hovertext') && document.querySelector('#overview .hovertext').textContent").startswith(
        "against the original"
    )
    plot.send_keys(Keys.ARROW_RIGHT)
    assert "casual" in browser.execute_script("return document.querySelector('#overview [data-said]').textContent")


def test_the_legend_hides_a_series(browser: Any, report: Path) -> None:
    _open(browser, report.as_uri())
    _draw_all(browser)
    count = "return document.querySelectorAll('#overview .scatterlayer .point').length"
    before = browser.execute_script(count)
    browser.execute_script("document.querySelector('#overview .keys button').click()")
    assert 0 < browser.execute_script(count) < before
    assert browser.execute_script("return document.querySelector('#overview .keys button').getAttribute('aria-pressed')") == "false"
    browser.execute_script("document.querySelector('#overview .keys button').click()")
    assert browser.execute_script(count) == before


def test_another_figure_is_chosen_and_its_axis_switched(browser: Any, report: Path) -> None:
    _open(browser, report.as_uri())
    _draw_all(browser)
    browser.execute_script("const s = document.querySelector('#curves [data-choose]'); s.selectedIndex = 1; s.dispatchEvent(new Event('change'))")
    assert browser.execute_script("return document.querySelector('#curves .plot').dataset.drawn") == "curves-1"
    assert browser.execute_script("return document.querySelector('#curves [data-downloads] a').getAttribute('href')") == "figures/curves-1.png"
    kind = "return document.querySelector('#curves .plot').layout.xaxis.type"
    assert browser.execute_script(kind) == "log"
    browser.execute_script("document.querySelector('#curves [data-log]').click()")
    assert browser.execute_script(kind) == "linear"


def test_the_script_prints_every_cell_as_the_page_did(browser: Any, report: Path) -> None:
    _open(browser, report.as_uri())
    cells = "return [...document.querySelectorAll('.table tbody td')].map((cell) => cell.textContent)"
    before = browser.execute_script(cells)
    browser.execute_script("for (const box of document.querySelectorAll('[data-filter]')) box.dispatchEvent(new Event('input'))")
    assert browser.execute_script(cells) == before
    assert len(before) > 500


def test_a_table_is_sorted_filtered_and_shown_whole(browser: Any, report: Path) -> None:
    _open(browser, report.as_uri())
    root = "document.querySelector('[data-table=learned-estimates]')"
    heads = browser.execute_script(f"return [...{root}.querySelectorAll('th')].map((head) => head.textContent)")
    place = heads.index("Estimate")
    browser.execute_script(f"{root}.querySelectorAll('th button')[{place}].click()")
    column = f"return [...{root}.querySelectorAll('tbody tr')].map((row) => row.children[{place}].textContent)"
    values = [float(text.split(" ")[0].replace("\u2212", "-")) for text in browser.execute_script(column)]
    assert values == sorted(values, reverse=True)
    assert browser.execute_script(f"return {root}.querySelectorAll('th')[{place}].getAttribute('aria-sort')") == "descending"
    browser.execute_script(f"{root}.querySelectorAll('th button')[{place}].click()")
    values = [float(text.split(" ")[0].replace("\u2212", "-")) for text in browser.execute_script(column)]
    assert values == sorted(values)
    browser.execute_script(f"const box = {root}.querySelector('[data-filter]'); box.value = 'casual token'; box.dispatchEvent(new Event('input'))")
    rows = browser.execute_script(f"return [...{root}.querySelectorAll('tbody tr')].map((row) => row.textContent)")
    assert len(rows) == 4
    assert all("casual" in row for row in rows)
    browser.execute_script(
        f"const box = {root}.querySelector('[data-filter]'); box.value = ''; box.dispatchEvent(new Event('input')); {root}.querySelector('[data-more]').click()"
    )
    assert browser.execute_script(f"return {root}.querySelectorAll('tbody tr').length") == 40


def test_latex_is_copied_or_selected(browser: Any, report: Path) -> None:
    _open(browser, report.as_uri())
    root = "document.querySelector('[data-table=interactions-interactions]')"
    browser.execute_script(f"{root}.querySelector('[data-latex]').click()")
    text = browser.execute_script(f"return {root}.querySelector('.latex').value")
    assert text.startswith("\\begin{table}\n\\centering\\small\n\\caption{Interaction of two factors; 0 where they move independently}")
    assert "nonbiomedical\\_casual & nonbiomedical & casual" in text
    assert "$-$0.0" in text
    assert _wait(browser, f"/Copied|Selected/.test({root}.querySelector('[data-latex]').textContent)")


def test_documents_are_searched_sorted_and_more_are_shown(browser: Any, report: Path) -> None:
    _open(browser, report.as_uri())
    assert _find(browser, "needle") == ["doc0003"]
    assert _find(browser, "no-such-word-anywhere") == []
    assert len(_find(browser, "")) == 60
    browser.execute_script("document.getElementById('doc-more').click()")
    assert browser.execute_script("return document.querySelectorAll('#doc-list li').length") == 130
    numbers = (
        "return [...document.querySelectorAll('#doc-list b span:last-child')].map((line) => parseFloat(line.textContent.replace('\u2212', '-')))"
    )
    for value, isdown in (("3 1 -1", True), ("4 1 1", False), ("2 -1", True)):
        browser.execute_script("const s = document.getElementById('doc-sort'); s.value = arguments[0]; s.dispatchEvent(new Event('change'))", value)
        listed = browser.execute_script(numbers)
        assert listed == sorted(listed, reverse=isdown)


def _check_reader(browser: Any) -> None:
    """Open a document, move through it with keys, and read a token with a pointer."""
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    _open_document(browser, "doc0007")
    spans = browser.find_elements("css selector", "#left-tokens span[tabindex]")
    assert len(spans) == 60
    said = "return document.getElementById('token-said').textContent"
    browser.execute_script("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", spans[5])
    ActionChains(browser).move_to_element(spans[5]).perform()
    assert "position 5: gain" in browser.execute_script(said)
    spans[0].send_keys(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    assert "position 2: gain" in browser.execute_script(said)
    browser.switch_to.active_element.send_keys(Keys.END)
    assert "position 59: gain" in browser.execute_script(said)
    assert "base \u2212" in browser.execute_script(said)
    assert browser.execute_script("return document.querySelectorAll('#left-tokens [tabindex=\"0\"]').length") == 1
    pixels = (
        "const c = document.getElementById('left-ruler'); return c.getContext('2d').getImageData(0, 0, c.width, 10).data.some((value) => value > 0)"
    )
    assert browser.execute_script(pixels)


def test_a_document_is_read_with_pointer_and_keys(browser: Any, report: Path) -> None:
    _open(browser, report.as_uri())
    _check_reader(browser)
    assert "rounded (7 to 8 bits each)" in browser.execute_script("return document.getElementById('explorer').textContent")


def test_keys_reach_findings_tables_and_documents_in_order(browser: Any, report: Path) -> None:
    from selenium.webdriver.common.keys import Keys

    _open(browser, report.as_uri())
    browser.find_element("css selector", "body").send_keys(Keys.TAB)
    assert browser.switch_to.active_element.get_attribute("textContent") == "Skip to the findings"
    browser.switch_to.active_element.send_keys(Keys.ENTER)
    assert browser.execute_script("return document.activeElement.id") == "overview"
    browser.execute_script("document.getElementById('doc-search').focus()")
    browser.switch_to.active_element.send_keys("doc0011", Keys.TAB, Keys.TAB)
    _wait(browser, "document.querySelectorAll('#doc-list li').length === 1")
    browser.execute_script("document.querySelector('#doc-list button').focus()")
    browser.switch_to.active_element.send_keys(Keys.ENTER)
    _wait(browser, "document.getElementById('reader-title').textContent === 'doc0011'")


def test_every_control_has_a_name_and_every_section_a_heading(browser: Any, report: Path) -> None:
    _open(browser, report.as_uri())
    tree = browser.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    nameless = [
        node["role"]["value"]
        for node in tree
        if not node.get("ignored")
        and node.get("role", {}).get("value") in {"button", "textbox", "searchbox", "combobox", "checkbox", "link", "table", "region"}
        and not node.get("name", {}).get("value")
    ]
    assert nameless == []
    assert browser.execute_script(
        "return [...document.querySelectorAll('section')].every((s) => document.getElementById(s.getAttribute('aria-labelledby')))"
    )


def test_without_scripts_figures_and_tables_stand(browser: Any, report: Path) -> None:
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        browser.get(report.as_uri())
        shown = [still for still in browser.find_elements("css selector", ".static svg.wide") if still.is_displayed()]
        assert len(shown) == _SECTIONS
        assert not [button for button in browser.find_elements("css selector", "button") if button.is_displayed()]
        assert browser.find_element("css selector", "[data-table=learned-estimates] tbody tr").is_displayed()
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


def test_a_served_study_reads_documents_on_demand(browser: Any, study: Path, report: Path) -> None:
    server = ViewServer(open_view(study))
    thread = threading.Thread(target=server.serve)
    thread.start()
    try:
        _open(browser, server.url)
        _check_reader(browser)
        assert _find(browser, "needle") == ["doc0003"]
        assert browser.get_log("browser") == []
        requested = _requested(browser)
        assert all(url.startswith(server.url) for url in requested)
        assert len([url for url in requested if "document.json" in url]) == 1
    finally:
        server.stop()
        thread.join()
