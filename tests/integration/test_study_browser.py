"""The study report in a real browser: drawn, silent, offline, inert, and usable with a pointer, with keys, on a phone and on a wide screen."""

import json
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from headless_browser import start_browser
from lmdissect.pipeline.viewing import View, ViewServer, open_view
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
        base, tuned = str(source.base_scores), str(source.tuned_scores)
        tables["runs"][0].update(base_scores=base, tuned_scores=tuned)
        tables["runs"][1].update(base_scores=tuned, tuned_scores=base)  # every shift of the first run with its sign turned round
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


def test_a_served_report_works_in_its_sandbox_and_reaches_nothing(browser: Any, study: Path, report: Path) -> None:
    """The report beside the page is drawn as from disk; a script in it, had somebody else put one there, gets no answer from the server."""
    assert report.name == "report.html"
    server = ViewServer(open_view(study))
    thread = threading.Thread(target=server.serve)
    thread.start()
    ask = "fetch(arguments[0]).then((answer) => arguments[1](`got ${answer.status}`), (error) => arguments[1](error.name))"
    try:
        _open(browser, server.url)
        assert browser.execute_async_script(ask, f"{server.url}runs.json") == "got 200"
        _open(browser, f"{server.url}report.html")
        _draw_all(browser)
        _open_document(browser, "doc0003")
        assert browser.get_log("browser") == []
        assert browser.execute_script("return window.origin") == "null"
        assert browser.execute_async_script(ask, f"{server.url}runs.json") == "TypeError"
    finally:
        server.stop()
        thread.join()


class _Faults:
    """A view whose answers to some requests wait, or fail."""

    def __init__(self, study: Path, *, slow: tuple[str, str] = ("", ""), failing: str = "") -> None:
        self.view, self.go_on = open_view(study), threading.Event()
        answer = self.view.answer

        def changed(name: str, parameters: Mapping[str, str]) -> Any:
            found = answer(name, parameters)
            if slow == (name, parameters.get("place" if name == "document.json" else "run")):
                self.go_on.wait(20)
            if name == "document.json" and parameters["place"] == failing:
                raise KeyError(failing)
            return found

        self.view.answer = changed  # type: ignore[method-assign]


@contextmanager
def _served(view: View) -> Iterator[ViewServer]:
    server = ViewServer(view)
    thread = threading.Thread(target=server.serve)
    thread.start()
    try:
        yield server
    finally:
        server.stop()
        thread.join()


_PRESS = "[...document.querySelectorAll('#doc-list button')].find((line) => line.querySelector('span').textContent === arguments[0]).click()"
_CHOOSE = "const s = document.getElementById(arguments[0]); s.value = arguments[1]; s.dispatchEvent(new Event('change'))"
_LISTED = "return [...document.querySelectorAll('#doc-list b')].map((line) => line.textContent)"
_TITLE = "document.getElementById('reader-title').textContent"


def _text_of(browser: Any, side: str) -> str:
    return str(browser.execute_script("return document.getElementById(arguments[0]).textContent", f"{side}-tokens"))


def test_a_slow_document_never_stands_under_anothers_title(browser: Any, study: Path) -> None:
    faults = _Faults(study, slow=("document.json", "1"))
    with _served(faults.view) as server:
        _open(browser, server.url)
        browser.execute_script(_CHOOSE, "doc-sort", "set")
        browser.execute_script(_PRESS, "doc0001")
        browser.execute_script(_PRESS, "doc0005")
        _wait(browser, f"{_TITLE} === 'doc0005'")
        shown = _text_of(browser, "left")
        faults.go_on.set()
        time.sleep(0.5)
        browser.execute_script(_CHOOSE, "variant-choice", "rap")
        assert (browser.execute_script(f"return {_TITLE}"), _text_of(browser, "left")) == ("doc0005", shown)


def test_a_slow_run_never_stands_under_anothers_name(browser: Any, study: Path) -> None:
    faults = _Faults(study, slow=("index.json", "1"))
    with _served(faults.view) as server:
        _open(browser, server.url)
        first = browser.execute_script(_LISTED)
        browser.execute_script(_CHOOSE, "run-choice", "1")
        assert browser.execute_script(_LISTED) == [], "nothing of the first run stands under the second's name"
        browser.execute_script(_CHOOSE, "run-choice", "0")
        _wait(browser, "document.querySelectorAll('#doc-list b').length")
        faults.go_on.set()
        time.sleep(0.5)
        assert browser.execute_script(_LISTED) == first
        browser.execute_script(_CHOOSE, "run-choice", "1")
        _wait(browser, "document.querySelectorAll('#doc-list b').length")
        assert browser.execute_script(_LISTED) != first


def test_what_cannot_be_read_is_said_and_nothing_else_is_shown_for_it(browser: Any, study: Path) -> None:
    with _served(_Faults(study, failing="4").view) as server:
        _open(browser, server.url)
        browser.execute_script(_CHOOSE, "doc-sort", "set")
        browser.execute_script(_PRESS, "doc0005")
        _wait(browser, f"{_TITLE} === 'doc0005'")
        browser.execute_script(_PRESS, "doc0004")
        said = _wait(browser, "!document.getElementById('reader-empty').hidden && document.getElementById('reader-empty').textContent")
        assert said == "doc0004 cannot be shown. The server could not read this: not found"
        assert browser.execute_script("return document.getElementById('reader-body').hidden")
        browser.execute_script(_PRESS, "doc0005")
        _wait(browser, "document.getElementById('reader-empty').hidden")
    assert _find(browser, "zzz") == []
    assert browser.execute_script("return document.getElementById('doc-count').textContent").startswith(
        "The server does not answer: start lmdissect view"
    )


def test_paper_has_the_figure_of_its_caption(browser: Any, report: Path) -> None:
    _open(browser, report.as_uri(), 1280, "dark")
    _draw_all(browser)
    choose = "const s = document.querySelector('#curves [data-choose]'); s.selectedIndex = arguments[0]; s.dispatchEvent(new Event('change'))"
    state = (
        "const f = document.querySelector('#curves figure'), p = f.querySelector('.plot');"
        "return [f.querySelector('.static').hidden, p.hidden, p.dataset.drawn, p.layout.width < 700, p.layout.font.color]"
    )
    browser.execute_script(choose, 1)
    browser.execute_script("dispatchEvent(new Event('beforeprint'))")
    assert browser.execute_script(state) == [True, False, "curves-1", True, "#1b1f24"]
    browser.execute_script("dispatchEvent(new Event('afterprint'))")
    assert browser.execute_script(state) == [True, False, "curves-1", False, "#e8eaee"]
    browser.execute_script(choose, 0)
    browser.execute_script("dispatchEvent(new Event('beforeprint'))")
    assert browser.execute_script(state)[:2] == [False, True]
    browser.execute_script("dispatchEvent(new Event('afterprint'))")
    assert browser.execute_script(state)[:2] == [True, False]


def test_a_button_pressed_twice_gets_its_name_back(browser: Any, report: Path) -> None:
    _open(browser, report.as_uri())
    button = "document.querySelector('[data-table=interactions-interactions] [data-latex]')"
    browser.execute_script(f"{button}.click()")
    assert _wait(browser, f"/Copied|Selected/.test({button}.textContent)")
    assert browser.execute_script("return document.querySelector('body > [role=status]').textContent")
    time.sleep(0.5)
    browser.execute_script(f"{button}.click()")
    time.sleep(0.2)
    _wait(browser, f"{button}.textContent === 'Copy as LaTeX'")


def test_the_chosen_variant_stays_from_document_to_document(browser: Any, report: Path) -> None:
    _open(browser, report.as_uri())
    _open_document(browser, "doc0007")
    browser.execute_script(_CHOOSE, "variant-choice", "paraphrase")
    _open_document(browser, "doc0008")
    assert browser.execute_script("return document.getElementById('variant-choice').value") == "paraphrase"
    browser.execute_script(_CHOOSE, "doc-sort", "3 1 -1")
    assert browser.execute_script("return document.getElementById('variant-choice').value") != "paraphrase"


def test_the_focus_stays_in_a_table_that_is_shown_whole(browser: Any, report: Path) -> None:
    _open(browser, report.as_uri())
    browser.execute_script("const b = document.querySelector('[data-table=learned-estimates] [data-more]'); b.focus(); b.click()")
    assert browser.execute_script("return document.activeElement.matches('[data-table=learned-estimates] .scroll')")


@pytest.mark.parametrize("width", [768, 1280])
def test_titles_of_curves_are_whole_and_the_unit_is_on_the_axis(browser: Any, report: Path, width: int) -> None:
    _open(browser, report.as_uri(), width)
    _draw_all(browser)
    titles = browser.execute_script("return [...document.querySelectorAll('#curves .plot .annotation-text')].map((title) => title.textContent)")
    assert titles == ["gain on the originals", "shift against the original", "shift net of the control"]
    assert browser.execute_script("return document.querySelector('#curves .plot .ytitle').textContent") == "nats/token"
