"""The study report at its full size: how long it takes to write, how large it is, how long it takes to open, and how quickly it answers a search.

    python benchmarks/report.py                  1,000 documents, 5 variants, 30 runs (a few minutes on 2 cores); writes docs/benchmarks-report.md
    python benchmarks/report.py --documents 100  a quick look, nothing written

The study is made up (tests/study_world.py): invented words by Zipf's law, about as compressible as English, 300 tokens of 5 characters a text. Nothing in it is a
measurement of a model. The browser is headless Chromium; it opens the file anew each time.
"""

import argparse
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests")]
OUT = ROOT / "docs" / "benchmarks-report.md"
POINTS = ("size=100", "size=1000", "size=10000", "size=30000", "rank=full")
NUM_SEEDS = 3
NUM_WORDS = 300
NUM_STEMS = 20_000
ROUNDS = 5
SEARCHES = ("ba", "lita", "doc0042", "ga me", "nothing-like-this")
SEARCH = """
const [words, done] = arguments;
const box = document.getElementById("doc-search"), count = document.getElementById("doc-count");
const started = performance.now();
new MutationObserver((_, observer) => { observer.disconnect(); requestAnimationFrame(() => done(performance.now() - started)); }).observe(count, {childList: true});
box.value = words;
box.dispatchEvent(new Event("input"));
"""


def write_study(folder: Path, num_documents: int) -> dict[str, Any]:
    """Make the study and its report; time the report alone, as a user's process would."""
    from lmdissect.formats.study_tables import read_study_tables
    from lmdissect.report.study import write_study_report
    from study_world import build_scores, build_study, keep_points, make_texts

    source = build_scores(folder / "scores", make_texts(num_documents, num_words=NUM_WORDS, num_stems=NUM_STEMS))
    study = build_study(folder / "study", keep_points(*POINTS, "pubmed", "pubmed, casual"), num_documents=num_documents, num_seeds=NUM_SEEDS)
    start_s, start_cpu_s = time.perf_counter(), time.process_time()
    page = write_study_report(study, explorer=source)
    found = {"write_s": time.perf_counter() - start_s, "write_cpu_s": time.process_time() - start_cpu_s, "page": page}
    text = page.read_text(encoding="utf-8")
    scripts = re.findall(r"<script[^>]*>(.*?)</script>", text, re.DOTALL)
    names = ("numbers of figures and tables", "texts of the chosen run", "token values of the chosen run", "plotly.js", "script of the page")
    found["parts"] = {name: len(script.encode()) for name, script in zip(names, scripts, strict=True)}
    found["num_runs"] = len(read_study_tables(study)[1]["runs"])
    found["rounding"] = re.search(r"Token values on this page are rounded.*?at most\.", text).group(0)  # type: ignore[union-attr]
    return found


def open_page(page: Path) -> tuple[dict[str, list[float]], list[tuple[str, float]]]:
    """Open the page several times, then search in it.

    Returns:
        Seconds from the start of navigation to the page being usable and to the first figure, and milliseconds of every search.
    """
    from headless_browser import start_browser

    times: dict[str, list[float]] = {"usable": [], "first figure": []}
    browser = start_browser()
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {"width": 1280, "height": 900, "deviceScaleFactor": 1, "mobile": False})
    browser.set_script_timeout(60)
    watch = """
    const seen = {};
    new MutationObserver(() => {
      if (!document.documentElement) return;
      if (document.documentElement.dataset.ready) seen.usable ??= performance.now();
      if (document.querySelector("[data-drawn]")) seen["first figure"] ??= performance.now();
      window.__seen = seen;
    }).observe(document, {subtree: true, childList: true, attributes: true});
    """
    browser.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": watch})
    try:
        for _ in range(ROUNDS):
            browser.get("about:blank")
            browser.get(page.as_uri())
            while len(seen := browser.execute_script("return window.__seen ?? {}")) < len(times):
                time.sleep(0.05)
            for name, found in times.items():
                found.append(seen[name] / 1000)
        searches = [("first after opening: " + SEARCHES[0], browser.execute_async_script(SEARCH, SEARCHES[0]))]
        searches += [(words, statistics.median(browser.execute_async_script(SEARCH, words) for _ in range(ROUNDS))) for words in SEARCHES]
    finally:
        browser.quit()
    return times, searches


def describe(found: dict[str, Any], times: dict[str, list[float]], searches: list[tuple[str, float]], num_documents: int) -> str:
    """The page of this benchmark."""
    chromium = subprocess.run(["/usr/bin/chromium", "--version"], capture_output=True, text=True, check=False).stdout.split(" built")[0].strip()
    size = found["page"].stat().st_size
    lines = [
        "# Benchmark: the study report",
        "",
        "Reproduce with `python benchmarks/report.py` after `uv sync --group dev`. This page is written by it; do not edit it by hand.",
        "",
        f"Machine: {os.cpu_count()} threads, load {os.getloadavg()[0]:.1f} when it ended; Python {platform.python_version()}, plotly {version('plotly')}, {chromium}.",
        f"A made-up study: {num_documents:,} documents, 5 variants and the originals, {found['num_runs']} runs; {NUM_WORDS} tokens a text. No model was measured.",
        "",
        "| what | measured | wanted |",
        "|---|---|---|",
        f"| written (static figures included) | {found['write_s']:.1f} s ({found['write_cpu_s']:.1f} s of processor time) | under 30 s |",
        f"| size of report.html | {size / 1e6:.1f} MB | under 15 MB |",
    ]
    for name, seconds in times.items():
        lines.append(
            f"| opens: {name} after | {statistics.median(seconds):.2f} s ({min(seconds):.2f}-{max(seconds):.2f}, {ROUNDS} times) | under 3 s |"
        )
    for words, duration_ms in searches:
        lines.append(f"| search `{words}`, list drawn | {duration_ms:.0f} ms | {'' if words.startswith('first') else 'under 100 ms'} |")
    lines += ["", "What the file is made of:", "", "| part | MB |", "|---|---|"]
    lines += [f"| {name} | {num_bytes / 1e6:.2f} |" for name, num_bytes in found["parts"].items()]
    return "\n".join([*lines, "", found["rounding"], ""])


def main() -> None:
    """Measure, print, and at full size write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=1000)
    num_documents = parser.parse_args().documents
    with tempfile.TemporaryDirectory() as folder:
        found = write_study(Path(folder), num_documents)
        times, searches = open_page(found["page"])
        text = describe(found, times, searches, num_documents)
    print(text)
    if num_documents >= 1000:
        OUT.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
