"""The server of `lmdissect view`: this machine alone, a token, GET, and nothing but what is listed."""

import http.client
import json
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa
import pytest

from lmdissect.errors import UnreadableInputError, UnusableOutputError
from lmdissect.formats.study_tables import SCHEMAS
from lmdissect.pipeline.study import make_study
from lmdissect.pipeline.viewing import ViewServer, open_view
from lmdissect.records import ExplorerSource
from lmdissect.shifts import ShiftConfig, measure_shifts
from lmdissect.store import write_json
from score_tables import documents_from_gains, save_scores
from study_world import Tables, build_scores, build_study, make_texts, only_tables
from unit.report.shift_artifact import build_shift_artifact


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> ExplorerSource:
    return build_scores(tmp_path_factory.mktemp("scores"), make_texts(4, num_words=20))


@pytest.fixture(scope="module")
def server(source: ExplorerSource, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ViewServer]:
    def change(tables: Tables, details: dict[str, Any]) -> None:
        only_tables("statements")(tables, details)
        for row in tables["runs"][:2]:
            row.update(base_scores=str(source.base_scores), tuned_scores=str(source.tuned_scores))

    served = ViewServer(open_view(build_study(tmp_path_factory.mktemp("study"), change)))
    thread = threading.Thread(target=served.serve)
    thread.start()
    yield served
    served.stop()
    thread.join()


def _ask(server: ViewServer, path: str, *, method: str = "GET", host: str | None = None) -> tuple[int, bytes, dict[str, str]]:
    address = urlsplit(server.url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port or 0, timeout=20)
    connection.request(method, path, headers={"Host": host} if host else {})
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, body, dict(answer.getheaders())


def _path(server: ViewServer, name: str) -> str:
    return urlsplit(server.url).path + name


def test_it_listens_on_this_machine_alone(server: ViewServer) -> None:
    assert urlsplit(server.url).hostname == "127.0.0.1"
    assert len(server.token) >= 20


def test_the_page_says_that_it_is_served(server: ViewServer) -> None:
    status, body, headers = _ask(server, _path(server, ""))
    assert status == 200
    assert b"connect-src &#39;self&#39;" in body
    assert b"every run, every token, unrounded" in body
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Cache-Control"] == "no-store"


def test_runs_documents_and_search(server: ViewServer) -> None:
    runs = json.loads(_ask(server, _path(server, "runs.json"))[1])
    assert [run["label"] for run in runs] == ["size: size=100, seed 0 (pubmed)", "size: size=100, seed 1 (pubmed)"]
    index = json.loads(_ask(server, _path(server, "index.json?run=1"))[1])
    assert [line[0] for line in index["documents"]] == ["doc0000", "doc0001", "doc0002", "doc0003"]
    texts = json.loads(_ask(server, _path(server, "document.json?run=1&place=2"))[1])
    assert [text["variant"] for text in texts] == ["original", *index["variants"]]
    start, end, count, base, tuned = texts[0]["pieces"][0]
    assert (start, count) == (0, 1)
    assert texts[0]["text"][start:end] == texts[0]["text"].split()[0]
    assert base < 0
    assert tuned <= 0
    assert json.loads(_ask(server, _path(server, "search.json?run=0&q=DOC0003"))[1]) == [3]
    assert json.loads(_ask(server, _path(server, "search.json?run=0&q=no-such-word"))[1]) == []


def test_files_of_the_study_are_served_by_name_and_no_others(server: ViewServer) -> None:
    status, body, headers = _ask(server, _path(server, "statements.csv"))
    assert status == 200
    assert headers["Content-Type"] == "text/csv; charset=utf-8"
    assert body.startswith(b'"analysis"')
    for name in ("manifest.json", "../scores/base/manifest.json", "%2e%2e/x", "estimates.parquet", "nothing"):
        assert _ask(server, _path(server, name))[0] == 404, name


@pytest.mark.parametrize("path", ["/", "/x", "/wrong-token/", "/wrong-token/runs.json"])
def test_without_the_token_there_is_nothing(server: ViewServer, path: str) -> None:
    assert _ask(server, path)[:2] == (404, b"not found")


def test_a_foreign_name_for_this_machine_is_refused(server: ViewServer) -> None:
    assert _ask(server, _path(server, "runs.json"), host="attacker.example")[0] == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_only_get_is_answered(server: ViewServer, method: str) -> None:
    assert _ask(server, _path(server, ""), method=method)[0] == 501


@pytest.mark.parametrize(
    "name", ["index.json?run=99", "index.json?run=x", "document.json?run=0&place=99", "document.json?run=0", "document.json?run=0&place=-1"]
)
def test_runs_and_documents_that_do_not_exist(server: ViewServer, name: str) -> None:
    assert _ask(server, _path(server, name))[0] == 404


def test_scores_that_are_gone_are_named(tmp_path: Path) -> None:
    source = build_scores(tmp_path / "scores", make_texts(2, num_words=5))

    def change(tables: Tables, details: dict[str, Any]) -> None:
        only_tables("statements")(tables, details)
        tables["runs"][0].update(base_scores=str(source.base_scores), tuned_scores=str(source.tuned_scores))

    view = open_view(build_study(tmp_path / "study", change))
    (source.base_scores / "token_scores.parquet").unlink()
    served = ViewServer(view)
    thread = threading.Thread(target=served.serve)
    thread.start()
    status, body, _ = _ask(served, _path(served, "index.json?run=0"))
    served.stop()
    thread.join()
    assert status == 500
    assert b"token_scores.parquet" in body


@pytest.fixture
def two_runs(tmp_path: Path) -> tuple[Path, list[Path]]:
    """The folder of a study as the program makes it, and those of the comparisons that it is made from, all in one folder."""
    folders = []
    for name in ("first", "second"):
        base, tuned = documents_from_gains({"original": [0.3, 0.5, 0.4], "casual": [0.1, 0.2, 0.1]})
        folder = tmp_path / "all" / "runs" / name
        save_scores(folder / "scores" / "base", base, model="base")
        save_scores(folder / "scores" / "tuned", tuned, model=name)
        measure_shifts(folder / "scores" / "base", folder / "scores" / "tuned", ShiftConfig(num_draws=100), folder)
        folders.append(folder)
    return tmp_path / "all" / "study", folders


def test_runs_are_found_wherever_the_command_is_run(two_runs: tuple[Path, list[Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The study is made with paths as a user types them, then looked at from other folders, and after all of it was moved."""
    study, folders = two_runs
    monkeypatch.chdir(tmp_path / "all")
    make_study([folder.relative_to(tmp_path / "all") for folder in folders], Path("study"), config=ShiftConfig(num_draws=100))
    labels = ["comparisons: first, seed 0 (a test)", "comparisons: second, seed 0 (a test)"]
    for here, named in ((tmp_path / "all", "study"), (study, "."), (tmp_path, str(study))):
        monkeypatch.chdir(here)
        view = open_view(Path(named))
        assert ([run.label for run in view.runs], view.not_shown) == (labels, ())
        assert view.answer("index.json", {"run": "1"})["tuned_model"] == "second"
    (tmp_path / "all").rename(tmp_path / "elsewhere")
    assert len(open_view(tmp_path / "elsewhere" / "study").runs) == 2


def test_runs_whose_scores_are_gone_are_named_with_the_place(two_runs: tuple[Path, list[Path]], tmp_path: Path) -> None:
    study, folders = two_runs
    make_study(folders, study, config=ShiftConfig(num_draws=100))
    shutil.rmtree(folders[0] / "scores")
    view = open_view(study)
    assert [run.label for run in view.runs] == ["comparisons: second, seed 0 (a test)"]
    place = (folders[0] / "scores" / "base").resolve()
    (line,) = view.not_shown
    assert line.startswith(f"comparisons: first, seed 0 (a test): nothing finished in {place}: put it back, or")
    assert f"Texts cannot be shown of 1 run: {line}." in view.page
    folders[1].rename(tmp_path / "moved")
    assert open_view(study).runs == []
    assert "Texts cannot be shown of 2 runs: " in open_view(study).page


def test_names_that_lead_out_of_the_folder_are_not_served(tmp_path: Path) -> None:
    """A folder from somebody else lists whatever it likes; only its own files are given out."""
    folder = build_shift_artifact(tmp_path / "got")
    build_scores(folder / "scores", make_texts(2, num_words=5))
    (tmp_path / "secret.csv").write_text("secret", encoding="utf-8")
    (folder / "link.csv").symlink_to(tmp_path / "secret.csv")
    (folder / "own.csv").write_text("own", encoding="utf-8")
    names = ["../secret.csv", "figures/../../secret.csv", str(tmp_path / "secret.csv"), "link.csv", "x\0.csv", f"{'x' * 5000}.csv", "own.csv"]
    write_json(folder / "report.json", {"files": dict.fromkeys(names, "hash")})
    files = open_view(folder).files
    assert files["own.csv"] == folder / "own.csv"
    assert all(path.resolve().parent == folder.resolve() for path in files.values())
    assert not set(names[:-1]) & set(files)
    write_json(folder / "report.json", {"files": [1, None, {}]})
    assert "shifts.csv" in open_view(folder).files


def test_every_answer_has_a_policy_and_a_found_report_a_sandbox(tmp_path: Path) -> None:
    """A report.html may hold scripts of whoever made it: they are kept from this server, whose address they could read."""
    folder = build_shift_artifact(tmp_path)
    build_scores(folder / "scores", make_texts(2, num_words=5))
    (folder / "report.html").write_text("<script>fetch('index.json')</script>", encoding="utf-8")
    write_json(folder / "report.json", {"files": {"report.html": "hash"}})
    served = ViewServer(open_view(folder))
    thread = threading.Thread(target=served.serve)
    thread.start()
    policies = {
        name: _ask(served, _path(served, name))[2]["Content-Security-Policy"] for name in ("", "report.html", "shifts.csv", "runs.json", "none")
    }
    served.stop()
    thread.join()
    assert all("default-src 'none'" in policy and "frame-ancestors 'none'" in policy for policy in policies.values())
    assert [name for name, policy in policies.items() if "connect-src 'self'" in policy] == [""]
    assert [name for name, policy in policies.items() if "sandbox allow-scripts" in policy] == ["report.html"]
    assert "allow-same-origin" not in policies["report.html"]


def test_a_comparison_is_served_too(tmp_path: Path) -> None:
    build_shift_artifact(tmp_path)
    build_scores(tmp_path / "scores", make_texts(2, num_words=5))
    view = open_view(tmp_path)
    assert [run.label for run in view.runs] == ["models/base to runs/tuned"]
    assert "Token by token" in view.page
    assert "shifts.csv" in view.files


def test_a_comparison_without_scores_says_so(tmp_path: Path) -> None:
    with pytest.raises(UnreadableInputError, match="keeps no scores beside its shifts"):
        open_view(build_shift_artifact(tmp_path))


def test_another_folder_is_named(tmp_path: Path, source: ExplorerSource) -> None:
    with pytest.raises(UnreadableInputError, match="stage 'score'"):
        open_view(source.base_scores)
    with pytest.raises(UnreadableInputError):
        open_view(tmp_path)


def test_a_study_of_another_version_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = build_study(tmp_path)
    monkeypatch.setitem(SCHEMAS, "capacity", SCHEMAS["capacity"].append(pa.field("new_column", pa.float64())))
    with pytest.raises(UnreadableInputError, match=r"capacity\.parquet is of another version .* make the study again"):
        open_view(study)


def test_a_taken_port_is_named(server: ViewServer, source: ExplorerSource, tmp_path: Path) -> None:
    build_shift_artifact(tmp_path)
    build_scores(tmp_path / "scores", make_texts(2, num_words=5))
    taken = urlsplit(server.url).port or 0
    with pytest.raises(UnusableOutputError, match=f"port {taken} on 127.0.0.1 cannot be used"):
        ViewServer(open_view(tmp_path), taken)
