"""What is on disk, opened in Python."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pyarrow as pa
import pytest

from lmdissect.errors import DamagedArtifactError, MissingDependencyError, UnreadableInputError
from lmdissect.formats.study_tables import SCHEMAS, STAGE, write_study_table
from lmdissect.results import Results, ResultTable, open_results
from lmdissect.shifts import ShiftConfig, measure_shifts
from lmdissect.store import hash_file, open_artifact, read_json, write_json, write_table
from score_tables import ScoredText, documents_from_gains, save_scores

HOSTILE = "<script>alert(1)</script>&\"'"


@pytest.fixture
def comparison(tmp_path: Path) -> Path:
    """A shift artifact of three documents, as `lmdissect shift` writes it."""
    base, tuned = documents_from_gains({"original": [0.5, 0.4, 0.3], "casual": [0.1, 0.2, 0.1]})
    save_scores(tmp_path / "base", base, model=f"base{HOSTILE}")
    save_scores(tmp_path / "tuned", tuned, model="tuned")
    measure_shifts(tmp_path / "base", tmp_path / "tuned", ShiftConfig(num_draws=100), tmp_path / "shift")
    return tmp_path / "shift"


def save_experiment(folder: Path) -> Path:
    """An output folder as `lmdissect run` leaves it: tables and a manifest of its own kind."""
    folder.mkdir()
    table = pa.table({"corpus.size": [10, 20], "seed": [0, 0], "estimate": [0.25, None]})
    write_table(folder / "shifts.parquet", table)
    (folder / "shifts.csv").write_text("x\n", encoding="utf-8")
    files = {name: hash_file(folder / name) for name in ("shifts.parquet", "shifts.csv")}
    write_json(folder / "manifest.json", {"experiment": {"name": "sizes"}, "source": "sizes.yaml", "points": 2, "files": files})
    return folder


def save_study(folder: Path) -> Path:
    with open_artifact(folder, stage=STAGE, config={}, inputs={}) as artifact:
        tables = {name: pa.Table.from_pylist([], schema=schema) for name, schema in SCHEMAS.items()}
        files = [name for table, content in tables.items() for name in write_study_table(artifact, table, content)]
        unavailable = [{"table": "tempo", "reason": "one step"}]
        artifact.finish(counts={}, details={"unavailable": unavailable}, files=files)
    return folder


class Cells(HTMLParser):
    """Tags, and texts of a page as a reader sees them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.texts: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


class TestComparison:
    def test_tables_are_properties(self, comparison: Path) -> None:
        results = open_results(comparison)
        assert results.kind == "shift"
        assert {"shifts", "losses", "gains"} <= set(results.tables)
        assert set(results.tables) <= set(dir(results))
        assert results.shifts.arrow.equals(results["shifts"].arrow)
        assert results.settings["num_draws"] == 100
        assert len(results.unavailable) == len(results.details["unavailable"]) > 0

    def test_rows(self, comparison: Path) -> None:
        rows = open_results(str(comparison)).shifts.where(variant="casual", normalization="token", reference="original")
        assert len(rows) == 1
        assert [row["estimate"] for row in rows] == pytest.approx([0.8 / 3], abs=1e-6)
        assert len(rows.where(variant="rap")) == 0
        assert len(open_results(comparison).losses.where(factor=None)) == 1, "the originals"

    def test_data_frames(self, comparison: Path) -> None:
        frame = open_results(comparison).gains.to_pandas()
        assert list(frame.columns) == list(open_results(comparison).gains.columns)
        assert len(frame) == len(open_results(comparison).gains)

    def test_nothing_can_be_set(self, comparison: Path) -> None:
        results = open_results(comparison)
        with pytest.raises(AttributeError):
            results.kind = "study"  # type: ignore[misc]
        with pytest.raises(AttributeError):
            results.shifts.name = "x"  # type: ignore[misc]

    def test_a_name_that_is_no_table(self, comparison: Path) -> None:
        results = open_results(comparison)
        with pytest.raises(AttributeError, match=r"has no table 'shift'.*shifts"):
            results.shift  # noqa: B018
        with pytest.raises(KeyError, match="shift"):
            results["shift"]
        with pytest.raises(UnreadableInputError, match=r"the table shifts has no column 'varaint' \(it has base_model,"):
            results.shifts.where(varaint="casual")

    def test_a_file_changed_after_opening_is_not_read(self, comparison: Path) -> None:
        results = open_results(comparison)
        (comparison / "gains.parquet").write_bytes(b"x")
        with pytest.raises(DamagedArtifactError, match=r"gains\.parquet"):
            results.gains  # noqa: B018
        with pytest.raises(DamagedArtifactError, match=r"gains\.parquet"):
            open_results(comparison)

    def test_what_it_says_of_itself(self, comparison: Path) -> None:
        shown = repr(open_results(comparison))
        assert shown.startswith(f"<factor shifts of one model pair: base base{HOSTILE}; tuned tuned; probes a test; ")
        assert "tables " in shown
        assert repr(open_results(comparison).gains).startswith("<table gains: 6 rows; columns variant, factor,")


class TestNotebook:
    def test_a_folder_as_html(self, comparison: Path) -> None:
        page = Cells(open_results(comparison)._repr_html_())
        assert "script" not in page.tags
        assert f"base base{HOSTILE}" in "".join(page.texts)
        assert "shifts" in page.texts

    def test_a_table_as_html(self) -> None:
        table = ResultTable("examples", pa.table({f"c{HOSTILE}": [HOSTILE, None, "x" * 500], "p_value": [0.123456, None, 1e-9]}))
        page = Cells(table._repr_html_())
        assert "script" not in page.tags
        assert page.texts == ["examples, 3 rows", f"c{HOSTILE}", "p_value", HOSTILE, "0.1235", "x" * 79 + "…", "1e-09"]

    def test_long_tables_are_cut_and_say_so(self) -> None:
        page = ResultTable("t", pa.table({"n": list(range(1234))}))._repr_html_()
        assert page.count("<tr>") == 21
        assert "1,214 more rows" in page

    def test_colours_are_those_of_the_page(self, comparison: Path) -> None:
        """Light and dark notebooks alike: no colour is set but a translucent line."""
        for page in (open_results(comparison)._repr_html_(), open_results(comparison).shifts._repr_html_()):
            assert "color:inherit" in page
            assert "#" not in page.replace("&#", "")
            assert page.count("rgba(") == page.count("rgba(128,128,128,.4)")
            assert len(page) < 30_000


def test_an_experiment(tmp_path: Path) -> None:
    results = open_results(save_experiment(tmp_path / "out"))
    assert repr(results) == "<tables of an experiment: sizes; tables shifts>"
    assert results.shifts.to_pandas()["estimate"].isna().tolist() == [False, True]
    assert "corpus.size" in results._repr_html_()
    with pytest.raises(UnreadableInputError, match="no such folder"):
        results.study  # noqa: B018
    save_study(tmp_path / "out" / "study")
    assert results.study.kind == "study"
    (tmp_path / "out" / "shifts.parquet").unlink()
    with pytest.raises(DamagedArtifactError):
        results.shifts  # noqa: B018
    assert "missing" in results._repr_html_()


def test_what_failed_in_an_experiment_is_unavailable(tmp_path: Path) -> None:
    folder = save_experiment(tmp_path / "out")
    assert open_results(folder).unavailable == ()
    failures = [{"node": "finetune/0123", "reason": "loss became NaN"}]
    write_json(folder / "manifest.json", {**read_json(folder / "manifest.json"), "failures": failures})
    assert open_results(folder).unavailable == tuple(failures)
    assert "1 number not computed" not in repr(open_results(folder)), "a run is not one number"
    assert "1 failure" in repr(open_results(folder))


def test_a_damaged_table_is_shown_as_such(comparison: Path) -> None:
    results = open_results(comparison)
    (comparison / "gains.parquet").write_bytes(b"xx")
    page = Cells(results._repr_html_())
    assert page.texts[page.texts.index("gains") + 1] == "damaged"


def test_a_calibration(tmp_path: Path) -> None:
    with open_artifact(tmp_path, stage="calibration", config={}, inputs={}) as artifact:
        artifact.write_table("goals.parquet", pa.table({"goal": ["coverage"]}))
        artifact.finish(counts={}, details={}, files=["goals.parquet"])
    results = open_results(tmp_path)
    assert (results.kind, results.tables) == ("calibration", ("goals",))
    assert "calibration of the instrument" in repr(results)


def test_a_folder_of_results_names_them(comparison: Path, tmp_path: Path) -> None:
    """The folder of a demo holds two comparisons and a study, the model that it trained, and no tables itself."""
    demo = tmp_path / "demo"
    demo.mkdir()
    comparison.rename(demo / "biomedical")
    save_study(demo / "study")
    save_scores(demo / "scores", [ScoredText("d", "original", "two words", (-1.0, -2.0))])
    (demo / "broken").mkdir()
    (demo / "broken" / "manifest.json").write_text("{", encoding="utf-8")
    named = re.escape(f"{demo} holds no tables itself, and results inside: open one of {demo / 'biomedical'}, {demo / 'study'}")
    with pytest.raises(UnreadableInputError, match=f"^{named}$"):
        open_results(demo)


def test_a_study(tmp_path: Path) -> None:
    results = open_results(save_study(tmp_path / "study"))
    assert results.kind == "study"
    assert set(results.tables) == set(SCHEMAS)
    assert results.unavailable == ({"table": "tempo", "reason": "one step"},)
    assert "1 number not computed" in repr(results)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: None, "no such folder"),
        (lambda folder: folder.mkdir(), "it holds no manifest.json"),
        (
            lambda folder: save_scores(folder, [ScoredText("d", "original", "two words", (-1.0, -2.0))]),
            "an artifact of the stage 'score', and no results",
        ),
        (lambda folder: (folder.mkdir(), write_json(folder / "manifest.json", {"outcomes": 3})), "holds no results"),
        (lambda folder: (folder.mkdir(), write_json(folder / "manifest.json", [1])), "manifest"),
    ],
)
def test_a_folder_without_results(tmp_path: Path, make: Callable[[Path], object], message: str) -> None:
    make(tmp_path / "x")
    with pytest.raises((UnreadableInputError, DamagedArtifactError), match=message):
        open_results(tmp_path / "x")


def test_importing_is_light() -> None:
    script = (
        "import sys, lmdissect.results\n"
        "heavy = {'torch', 'transformers', 'pandas', 'pyarrow', 'numpy', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", script], check=True, env=os.environ)


def test_without_pandas(monkeypatch: pytest.MonkeyPatch) -> None:
    table = ResultTable("t", pa.table({"n": [1]}))
    monkeypatch.setitem(sys.modules, "pandas", None)  # Python's own way to say that a package is not there
    with pytest.raises(MissingDependencyError, match="pip install pandas"):
        table.to_pandas()
    assert list(table) == [{"n": 1}]


def test_results_are_made_by_opening(comparison: Path) -> None:
    assert isinstance(open_results(comparison), Results)
