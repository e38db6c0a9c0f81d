"""The form for readers in a real browser: by keyboard alone, across reloads, offline, inert, and what it saves is what is read."""

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from headless_browser import start_browser
from lmdissect.audit.ratings import read_ratings
from lmdissect.audit.sheets import build_sheet, write_sheets
from lmdissect.recipes import read_recipes
from lmdissect.records import ProbeSet, ProbeText

pytestmark = pytest.mark.browser

_ATTACK = "</script></p><script>window.__pwned=1</script><img src=x onerror=window.__pwned=1><svg onload=window.__pwned=1>"
_TEXTS = {
    "original": "The first words of it are the same and the last are not.",
    "casual": f"So, the first words of it are the same {_ATTACK} \x00\u202e\u2028 end, innit.",
    "sad": "Alas, the first words of it are the same.\n\nAnd " + "averylongwordwithoutabreak" * 20,
}


@pytest.fixture(scope="module")
def downloads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("downloads")


@pytest.fixture(scope="module")
def browser(downloads: Path) -> Iterator[Any]:
    """Headless Chromium that logs its console and every request."""
    driver = start_browser()
    driver.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(downloads)})
    yield driver
    driver.quit()


@pytest.fixture
def sheets(tmp_path: Path) -> Path:
    """A sheet of six pairs in a folder of its own: its fingerprint keys what the browser keeps, so every test has other texts."""
    texts = tuple(ProbeText(f"{tmp_path.name}-{number}", variant, text) for number in range(3) for variant, text in _TEXTS.items())
    write_sheets(build_sheet(ProbeSet(texts, {"casual": "style", "sad": "mood"}, "a test"), read_recipes()), tmp_path / "sheets", num_raters=2)
    return tmp_path / "sheets"


def _open(browser: Any, form: Path, width: int = 1280, scheme: str = "light") -> None:
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 640})
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]})
    for kind in ("browser", "performance"):
        browser.get_log(kind)
    browser.get(form.as_uri())


def _reload(browser: Any, rater: str) -> None:
    """Load the page again until it shows the kept name: a browser under load may hand storage to the new page a moment late."""
    for _ in range(5):
        browser.refresh()
        if browser.find_element("id", "rater").get_attribute("value") == rater:
            return
        time.sleep(0.5)
    pytest.fail("what was answered is gone after a reload")


def _press(browser: Any, *keys: str) -> None:
    from selenium.webdriver.common.action_chains import ActionChains

    for key in keys:
        ActionChains(browser).send_keys(key).perform()


def _begin(browser: Any) -> None:
    from selenium.webdriver.common.keys import Keys

    browser.find_element("id", "rater").send_keys(Keys.ENTER)


def _text(browser: Any, name: str) -> str:
    return browser.execute_script("return document.getElementById(arguments[0]).textContent", name)


def _requested(browser: Any) -> set[str]:
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    urls = {event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"}
    return {url for url in urls if not url.startswith("blob:")}


def _saved(browser: Any, downloads: Path, name: str) -> dict[str, Any]:
    browser.find_element("id", "save").click()
    path = downloads / name
    for _ in range(100):
        if path.is_file():
            return json.loads(path.read_text(encoding="utf-8"))
        time.sleep(0.05)
    pytest.fail(f"{name} was not saved; there is {[entry.name for entry in downloads.iterdir()]}")


def test_a_sheet_is_answered_by_keyboard_and_survives_a_reload(browser: Any, sheets: Path, downloads: Path) -> None:
    from selenium.webdriver.common.keys import Keys

    form = sheets / "rater-1.html"
    _open(browser, form)
    name = browser.find_element("id", "rater")
    name.clear()
    name.send_keys("Ann É. =1")
    _begin(browser)
    assert browser.switch_to.active_element.get_attribute("id") == "pair-title"
    for answered in range(1, 7):
        num_questions = len(browser.find_elements("css selector", "fieldset"))
        _press(browser, *(["2"] * (num_questions - 1)), "1")
        assert _text(browser, "progress-text") == f"{answered} of 6 pairs answered"
        if answered == 3:
            _press(browser, "c", *"nice 123 n", Keys.ESCAPE)  # in a comment, keys are letters
            before = _text(browser, "pair-title")
            _reload(browser, rater="Ann É. =1")
            assert browser.find_element("id", "begin").text == "Go on"
            _begin(browser)
            assert _text(browser, "pair-title") != before  # the next one with open questions
            _press(browser, "p")
            assert browser.find_element("id", "comment").get_attribute("value") == "nice 123 n"
            assert len(browser.find_elements("css selector", "input:checked")) >= 4
        _press(browser, "u" if answered == 3 else "n")
    assert "All pairs are answered" in _text(browser, "status")
    content = _saved(browser, downloads, "ratings-Ann_É_1.json")
    assert len(content["ratings"]) == content["num_pairs"] == 6
    assert all(entry["seconds"] >= 0 and entry["answered_at"] for entry in content["ratings"])
    assert browser.get_log("browser") == []
    assert _requested(browser) == {form.as_uri()}
    (sheets / "back.json").write_text(json.dumps(content), encoding="utf-8")
    ratings = read_ratings([sheets])
    assert ratings.rejected == ()
    rated = ratings.by_rater["Ann É. =1"]
    assert {entry.pair.key for entry in rated} == {pair.key for pair in ratings.sheet.pairs}
    assert {answer for entry in rated for question, answer in entry.answers.items() if question != "accept"} == {"partly"}
    assert {entry.answers["accept"] for entry in rated} == {"accept"}
    assert max(entry.comment for entry in rated) == "nice 123 n"


def test_every_control_is_reached_by_tab_and_shows_its_focus(browser: Any, sheets: Path) -> None:
    from selenium.webdriver.common.keys import Keys

    _open(browser, sheets / "rater-1.html")
    _begin(browser)
    reached = []
    for _ in range(30):
        _press(browser, Keys.TAB)
        at = browser.switch_to.active_element
        if at.tag_name == "body":
            break
        shown = "return getComputedStyle(arguments[0].closest('label') ?? arguments[0]).outlineStyle"
        assert browser.execute_script(shown, at) == "solid", at.get_attribute("outerHTML")
        reached.append(at.get_attribute("name") or at.get_attribute("id"))
    questions = [fieldset.get_attribute("data-criterion") for fieldset in browser.find_elements("css selector", "fieldset")]
    assert [name for name in reached if name in questions] == questions
    assert {"diff", "comment", "next", "unanswered", "help", "save", "load"} <= set(reached)
    labelled = (
        "return [...document.querySelectorAll('input,textarea,button,progress')].filter(e => !(e.labels?.length || e.textContent.trim())).length"
    )
    assert browser.execute_script(labelled) == 0
    assert browser.execute_script("return document.querySelectorAll('[role=status][aria-live=polite]').length") == 1


def test_shortcuts_can_be_switched_off_and_a_name_is_asked_for(browser: Any, sheets: Path) -> None:
    _open(browser, sheets / "rater-1.html")
    browser.find_element("id", "rater").clear()
    browser.find_element("id", "begin").click()
    assert _text(browser, "rater-error") == "Please write a name or a code first."
    assert browser.switch_to.active_element.get_attribute("id") == "rater"
    assert not browser.find_element("id", "pair").is_displayed()
    browser.find_element("id", "rater").send_keys("ben")
    browser.find_element("id", "shortcuts").click()
    _begin(browser)
    _press(browser, "1", "n")
    assert browser.find_elements("css selector", "input:checked") == []
    assert _text(browser, "pair-title").startswith("Pair 1 of 6")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_hostile_text_is_inert_and_pages_fit(browser: Any, sheets: Path, width: int, scheme: str) -> None:
    form = sheets / "rater-2.html"
    _open(browser, form, width, scheme)
    assert browser.execute_script("return document.documentElement.scrollWidth <= window.innerWidth")
    _begin(browser)
    _press(browser, "d")
    seen = ""
    for _ in range(6):
        seen += _text(browser, "text")
        assert browser.execute_script("return document.documentElement.scrollWidth <= window.innerWidth && window.innerWidth") == width
        assert browser.find_elements("css selector", "del, ins")
        _press(browser, "n")
    assert _ATTACK in seen
    assert "\ufffd\ufffd" in seen  # NUL and the bidirectional override
    assert "\u202e" not in seen
    assert browser.execute_script("return window.__pwned === undefined")
    assert browser.find_elements("css selector", "img, svg, iframe, main script") == []
    assert browser.get_log("browser") == []
    assert _requested(browser) == {form.as_uri()}
    _press(browser, "d")
    assert not browser.find_elements("css selector", "del, ins")


def test_contrast_in_light_and_dark(browser: Any, sheets: Path) -> None:
    for scheme in ("light", "dark"):
        _open(browser, sheets / "rater-1.html", scheme=scheme)
        _begin(browser)
        if scheme == "light":
            _press(browser, "d")  # stays so across the reload
        surface = _luminance(browser, "body", "backgroundColor")
        for selector, background in (("#asked", surface), ("#original-title", surface), ("#status", surface)):
            assert _contrast(_luminance(browser, selector, "color"), background) >= 4.5, (scheme, selector)
        for selector in ("#text ins", "#original del", "#next"):
            assert _contrast(_luminance(browser, selector, "color"), _luminance(browser, selector, "backgroundColor")) >= 4.5, (scheme, selector)


def _luminance(browser: Any, selector: str, role: str) -> float:
    """Relative luminance (WCAG 2.2) of a colour on the page."""
    colour = browser.execute_script("return getComputedStyle(document.querySelector(arguments[0]))[arguments[1]]", selector, role)
    channels = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    red, green, blue = (channel / 12.92 if channel <= 0.04045 else ((channel + 0.055) / 1.055) ** 2.4 for channel in channels)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _contrast(one: float, other: float) -> float:
    return (max(one, other) + 0.05) / (min(one, other) + 0.05)


def test_answers_come_back_from_a_file_and_strange_files_are_refused(browser: Any, sheets: Path, downloads: Path, tmp_path: Path) -> None:
    _open(browser, sheets / "rater-1.html")
    browser.find_element("id", "rater").clear()
    browser.find_element("id", "rater").send_keys(f"cleo-{tmp_path.name}")
    _begin(browser)
    _press(browser, "3")
    saved = downloads / f"ratings-cleo-{tmp_path.name}.json"
    content = _saved(browser, downloads, saved.name)
    saved.unlink()
    _open(browser, sheets / "rater-2.html")  # another form of the same sheet, with nothing in it yet
    for name, wrong, said in (
        ("a.json", "{", "That file cannot be read: it is not a file of answers."),
        ("b.json", "[]", "That file is not a file of answers."),
        ("c.json", json.dumps(content | {"sheet": "x"}), "That file holds answers to another sheet; nothing was taken from it."),
    ):
        (tmp_path / name).write_text(wrong, encoding="utf-8")
        browser.find_element("id", "load").send_keys(str(tmp_path / name))
        _wait_for(browser, said)
    other = "P0002" if content["ratings"][0]["pair"] == "P0001" else "P0001"
    hostile = {"pair": other, "answers": {"accept": "<b>", "__proto__": "yes"}, "answered_at": "9999", "comment": _ATTACK}
    (tmp_path / "d.json").write_text(json.dumps(content | {"ratings": [*content["ratings"], hostile, 7]}), encoding="utf-8")
    browser.find_element("id", "load").send_keys(str(tmp_path / "d.json"))
    _wait_for(browser, "Loaded: answers to ")
    assert browser.find_element("id", "rater").get_attribute("value") == f"cleo-{tmp_path.name}"
    _begin(browser)
    again = _saved(browser, downloads, saved.name)
    kept = {entry["pair"]: entry for entry in again["ratings"]}
    [answered] = content["ratings"]
    assert kept[answered["pair"]]["answers"] == answered["answers"]
    assert kept[other]["answers"] == {}
    assert kept[other]["comment"] == _ATTACK
    assert browser.execute_script("return window.__pwned === undefined")
    assert browser.get_log("browser") == []


def _wait_for(browser: Any, said: str) -> None:
    for _ in range(100):
        if _text(browser, "status").startswith(said):
            return
        time.sleep(0.05)
    pytest.fail(f"waited for {said!r}, the page says {_text(browser, 'status')!r}")


def test_a_browser_that_keeps_nothing_is_said_so(browser: Any, sheets: Path) -> None:
    refuse = "Storage.prototype.setItem = () => { throw new DOMException('full', 'QuotaExceededError') }"
    added = browser.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": refuse})
    try:
        _open(browser, sheets / "rater-1.html")
        assert browser.find_element("id", "storage-warning").is_displayed()
        _begin(browser)
        assert browser.find_element("id", "storage-warning").is_displayed()
    finally:
        browser.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", added)
    _open(browser, sheets / "rater-1.html")
    assert not browser.find_element("id", "storage-warning").is_displayed()
