"""Writing the report: everything there, inert, deterministic, and left alone when current."""

import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from lmdissect.errors import DamagedArtifactError, OutputLockedError, UnreadableInputError
from lmdissect.progress import SilentProgress
from lmdissect.report import write_report
from lmdissect.store import hash_file, lock_folder
from unit.report.shift_artifact import Details, Tables, build_shift_artifact, example_row, keep_variants, only_shifts, set_zero, split_tokenizers

FIGURES = ("shifts", "position", "cumulative", "fact-tokens")
HOSTILE = (
    "</span></p></script><script>window.__pwned=1</script><img src=x onerror=window.__pwned=1> javascript:alert(1) \"'><a href='javascript:alert(1)'>"
)


class _Page(HTMLParser):
    """Tags, attributes and text of a page, as a browser without scripts would see them."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def _parse(path: Path) -> _Page:
    page = _Page()
    page.feed(path.read_text(encoding="utf-8"))
    return page


class _Lines(SilentProgress):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, message: str) -> None:
        self.lines.append(message)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = build_shift_artifact(tmp_path_factory.mktemp("report"))
    write_report(folder)
    return folder


def test_all_files_are_there_and_recorded(folder: Path) -> None:
    expected = {"report.html", "tables.tex", *(f"figures/{name}.{kind}" for name in FIGURES for kind in ("png", "svg", "pdf"))}
    record = json.loads((folder / "report.json").read_text())
    assert set(record["files"]) == expected
    assert all(hash_file(folder / name) == digest for name, digest in record["files"].items())
    assert record["manifest_key"] == json.loads((folder / "manifest.json").read_text())["key"]
    assert set(record["manifest_files"]) == set(json.loads((folder / "manifest.json").read_text())["files"])


def test_the_page_loads_and_runs_nothing(folder: Path) -> None:
    page = _parse(folder / "report.html")
    policy = next(attributes["content"] for tag, attributes in page.tags if attributes.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy
    assert not {"script", "link", "img", "iframe", "object", "embed", "base", "form"} & {tag for tag, _ in page.tags}
    for _, attributes in page.tags:
        assert "style" not in attributes
        assert not [name for name in attributes if name.startswith("on")]
        assert (attributes.get("href") or "#").startswith("#")
        assert "src" not in attributes
    assert "http" not in (folder / "report.html").read_text(encoding="utf-8").replace('http-equiv="', "")


def test_headings_are_in_order_and_ids_are_unique(folder: Path) -> None:
    page = _parse(folder / "report.html")
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    anchors = {(attributes.get("href") or "")[1:] for tag, attributes in page.tags if tag == "a"}
    assert anchors <= set(ids)


def test_the_page_says_the_finding_the_notes_and_what_was_left_out(folder: Path) -> None:
    text = " ".join("".join(_parse(folder / "report.html").text).split())
    for words in (
        "moved by +0.046 nats/token [0.034, 0.058] towards the style of the originals",
        "Intervals are over documents, for this one training run.",
        "All variants were written by a language model.",
        "d-17, rap: no original",
        "line 7: empty text",
        "cumulative, rap, original, document: the interval covers 0",
        "keeps 36 % of words",
        "Xiao Zhang and Ji Wu, “Dissecting learning and forgetting in language model finetuning”, ICLR 2024",
        "Headline rule: net of the control",
    ):
        assert words in text, words


def test_one_table_for_each_unit(folder: Path) -> None:
    page = _parse(folder / "report.html")
    assert [attributes["class"] for tag, attributes in page.tags if tag == "div" and "panel" in (attributes.get("class") or "").split()] == [
        "panel panel-token",
        "panel panel-byte",
        "panel panel-document",
    ]
    assert [attributes["id"] for tag, attributes in page.tags if tag == "input" and "checked" in attributes] == ["unit-token"]


def test_a_failed_check_stands_at_the_top(tmp_path: Path) -> None:
    def change(tables: Tables, details: Details) -> None:
        only_shifts(tables, details)
        details["checks"]["scored under equal conditions"] = {"passed": False, "text": "base on cpu, tuned on cuda"}

    html = write_report(build_shift_artifact(tmp_path, change)).read_text(encoding="utf-8")
    assert html.index("1 self-check of 2 failed. scored under equal conditions: base on cpu, tuned on cuda.") < html.index('class="verdict"')


def _make_hostile(tables: Tables, details: Details) -> None:
    name = HOSTILE + "\x00\u202e"
    details["variants"] = {name if key == "casual" else key: facts for key, facts in details["variants"].items()}
    for rows in tables.values():
        for row in rows:
            row["variant"] = name if row["variant"] == "casual" else row["variant"]
    tables["examples"] = [example_row(name, "original", f"one {HOSTILE} two\x00\x1b\u202e three"), example_row(name, name, HOSTILE)]
    for model in ("base_model", "tuned_model"):
        details[model]["reference"] = f"</title>{HOSTILE}"
    details["probes"] = HOSTILE
    details["notes"] = [HOSTILE]
    details["dropped"] = [{"variant": HOSTILE, "document_id": HOSTILE, "reason": HOSTILE}]
    details["generators"] = {HOSTILE: HOSTILE}
    details["checks"] = {HOSTILE: {"passed": False, "text": HOSTILE}}


def test_hostile_text_is_shown_and_inert(tmp_path: Path) -> None:
    path = write_report(build_shift_artifact(tmp_path, _make_hostile))
    html = path.read_text(encoding="utf-8")
    assert "<script" not in html
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", html)
    page = _parse(path)
    assert not {"script", "img"} & {tag for tag, _ in page.tags}
    assert all((attributes.get("href") or "#").startswith("#") for _, attributes in page.tags)
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
    assert f"one {HOSTILE} two\ufffd\ufffd\ufffd three" in "".join(page.text)


def test_the_same_artifact_gives_the_same_bytes(tmp_path: Path, folder: Path) -> None:
    for name in [*json.loads((folder / "manifest.json").read_text())["files"], "manifest.json"]:
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    write_report(tmp_path)
    for name in [*json.loads((folder / "report.json").read_text())["files"], "report.json"]:
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes(), name


def _stamps(folder: Path) -> dict[str, int]:
    return {path.relative_to(folder).as_posix(): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_a_current_report_is_left_alone(folder: Path) -> None:
    before, progress = _stamps(folder), _Lines()
    assert write_report(folder, progress=progress) == folder / "report.html"
    assert _stamps(folder) == before
    assert progress.lines == [f"{folder / 'report.html'}: current, nothing rewritten"]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda folder: (folder / "report.html").write_text("changed"),
        lambda folder: (folder / "figures" / "shifts.pdf").unlink(),
        lambda folder: (folder / "report.json").write_text("{"),
        lambda folder: (folder / "report.json").unlink(),
        lambda folder: (folder / "report.json").write_text((folder / "report.json").read_text().replace('"template_hash": "', '"template_hash": "0')),
    ],
    ids=["page changed", "figure gone", "record damaged", "record gone", "record edited"],
)
def test_what_is_not_current_is_made_again(tmp_path: Path, spoil: Callable[[Path], object]) -> None:
    build_shift_artifact(tmp_path, only_shifts)
    write_report(tmp_path)
    good = {path.name: path.read_bytes() for path in [tmp_path / "report.html", *(tmp_path / "figures").iterdir()]}
    spoil(tmp_path)
    write_report(tmp_path)
    assert {path.name: path.read_bytes() for path in [tmp_path / "report.html", *(tmp_path / "figures").iterdir()]} == good
    assert json.loads((tmp_path / "report.json").read_text())["files"]["report.html"] == hash_file(tmp_path / "report.html")


def test_other_tables_or_templates_give_another_key(tmp_path: Path) -> None:
    from lmdissect.report import write

    first, second = build_shift_artifact(tmp_path / "a"), build_shift_artifact(tmp_path / "b", keep_variants("casual"))
    inputs = write._describe_inputs(first)
    assert inputs != write._describe_inputs(second)
    assert inputs["template_hash"] == write.hash_sources()
    changed = dict(write._read_sources(write.resources.files("lmdissect.report"), ""))
    assert {"templates/report.html.j2", "templates/report.css", "findings.py"} <= set(changed)


def test_a_rebuilt_report_drops_figures_that_it_no_longer_has(tmp_path: Path) -> None:
    folder, other = build_shift_artifact(tmp_path / "a", keep_variants("counterfactual")), build_shift_artifact(tmp_path / "b", split_tokenizers)
    write_report(folder)
    assert (folder / "figures" / "fact-tokens.png").exists()
    (folder / "figures" / "mine.txt").write_text("not ours")
    for path in other.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    write_report(folder)
    assert sorted(path.name for path in (folder / "figures").iterdir()) == ["mine.txt", "shifts.pdf", "shifts.png", "shifts.svg"]


def test_a_model_compared_with_itself_gets_a_report(tmp_path: Path) -> None:
    html = write_report(build_shift_artifact(tmp_path, set_zero)).read_text(encoding="utf-8")
    assert "Nothing moved: every shift is exactly 0" in html
    assert 'class="findings"' not in html


def test_a_report_without_control_has_no_net_columns(tmp_path: Path) -> None:
    html = write_report(build_shift_artifact(tmp_path, keep_variants("casual", "counterfactual"))).read_text(encoding="utf-8")
    assert '<th scope="colgroup" colspan="3" class="band">Against the original</th>' in html
    assert "Net of the control</th>" not in html


def test_damaged_or_missing_tables_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UnreadableInputError, match="no such folder"):
        write_report(tmp_path / "nothing")
    build_shift_artifact(tmp_path)
    pq.write_table(pq.read_table(tmp_path / "gains.parquet").slice(0, 1), tmp_path / "gains.parquet")
    with pytest.raises(DamagedArtifactError, match=r"gains\.parquet"):
        write_report(tmp_path)
    assert not (tmp_path / "report.html").exists()


def test_two_reports_are_never_written_into_one_folder_at_once(tmp_path: Path) -> None:
    build_shift_artifact(tmp_path)
    with lock_folder(tmp_path), pytest.raises(OutputLockedError, match="is writing"):
        write_report(tmp_path)
    assert write_report(tmp_path).is_file()
    with lock_folder(tmp_path):
        assert write_report(tmp_path).is_file()  # current: nothing is written, no lock is needed
