"""Hub layout: one split per variant, in a folder or on the hub."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lmdissect.errors import UnreadableInputError
from lmdissect.probes import read_probe_set
from lmdissect.probes.layouts import canonical_id

SPLITS = {
    "pubmed": [{"id": {"ArticleId": ["7", "10.1/x"]}, "text": "true"}, {"id": {"ArticleId": ["8"]}, "text": "also true"}],
    "counterfactual": [{"id": {"ArticleId": ["8"]}, "text": "false"}],
}
TABLE = {"original": {"7": "true", "8": "also true"}, "counterfactual": {"8": "false"}}


def _write_splits(folder: Path, names: dict[str, str]) -> Path:
    """Write every split under the file name given for it."""
    for split, name in names.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".parquet":
            pq.write_table(pa.Table.from_pylist(SPLITS[split]), path)
        else:
            path.write_text("".join(f"{json.dumps(row)}\n" for row in SPLITS[split]), encoding="utf-8")
    return folder


def _card(folder: Path, data_files: str) -> None:
    (folder / "README.md").write_text(f"---\nconfigs:\n- config_name: default\n  data_files:\n{data_files}\n---\n# A set\n\n---\n", encoding="utf-8")


@pytest.mark.parametrize(
    "names",
    [
        {"pubmed": "data/pubmed-00000-of-00001.parquet", "counterfactual": "data/counterfactual-00000-of-00001-0a1b.parquet"},
        {"pubmed": "pubmed.jsonl", "counterfactual": "counterfactual.parquet"},
    ],
)
def test_folder_without_a_header_goes_by_file_names(tmp_path: Path, names: dict[str, str]) -> None:
    folder = _write_splits(tmp_path / "set", names)
    (folder / "README.md").write_text("no header here\n", encoding="utf-8")
    probe_set = read_probe_set(str(folder))
    assert {name: dict(sorted(texts.items())) for name, texts in probe_set.by_variant().items()} == TABLE
    assert dict(probe_set.factors) == {"counterfactual": "factual"}


def test_folder_with_a_header_goes_by_it(tmp_path: Path) -> None:
    folder = _write_splits(tmp_path, {"pubmed": "data/part-a.parquet", "counterfactual": "other/x.jsonl"})
    _write_splits(tmp_path, {"pubmed": "data/stray.parquet"})
    _card(folder, "  - split: c4\n    path:\n    - data/part-*.parquet\n  - split: counterfactual\n    path: other/x.jsonl")
    probe_set = read_probe_set(str(folder))
    assert probe_set.by_variant() == TABLE
    assert probe_set.rejected == ()


@pytest.mark.parametrize("path", ["../outside.parquet", "/etc/passwd", "data/none.parquet"])
def test_header_cannot_point_outside_or_at_nothing(tmp_path: Path, path: str) -> None:
    _write_splits(tmp_path, {"pubmed": "outside.parquet"})
    folder = tmp_path / "set"
    folder.mkdir()
    _card(folder, f"  - split: pubmed\n    path: {path}")
    with pytest.raises(UnreadableInputError, match=f"README.md: its configs header names '{path}', and no such file lies in the folder"):
        read_probe_set(str(folder))


def test_broken_header_and_empty_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(UnreadableInputError, match=r"holds no probes\.yaml"):
        read_probe_set(str(tmp_path))
    (tmp_path / "README.md").write_text("---\nconfigs: [\n---\n", encoding="utf-8")
    with pytest.raises(UnreadableInputError, match=r"README\.md: its YAML header cannot be read") as caught:
        read_probe_set(str(tmp_path))
    assert "\n" not in str(caught.value)


def test_bad_rows_name_file_split_and_row(tmp_path: Path) -> None:
    path = tmp_path / "pubmed.jsonl"
    path.write_text('{"id": 1, "text": "a"}\n{"id": [], "text": "b"}\n{"text": "c"}\n{"id": 2, "text": 5}\n', encoding="utf-8")
    probe_set = read_probe_set(str(tmp_path))
    assert probe_set.by_variant() == {"original": {"1": "a"}}
    assert [(record.source, record.record, record.reason) for record in probe_set.rejected] == [
        (str(path), "split pubmed, line 2 (variant original)", "id is not a string (list)"),
        (str(path), "split pubmed, line 3 (variant original)", "id missing"),
        (str(path), "split pubmed, line 4 (document 2, variant original)", "text is not a string (int)"),
    ]


def test_split_of_long_form_rows_is_long_form(tmp_path: Path) -> None:
    rows = [{"document_id": "1", "variant": variant, "text": variant} for variant in ("original", "rap")]
    (tmp_path / "train.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    assert read_probe_set(str(tmp_path)).by_variant() == {"original": {"1": "original"}, "rap": {"1": "rap"}}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("7", "7"),
        (7, 7),
        (["7", "10.1/x"], "7"),
        ([["7"]], "7"),
        ({"doi": "10.1/x", "pmid": 7}, 7),
        ({"ArticleId": [["7"]]}, "7"),
        ({"url": "u", "day": None}, "u"),
        ({"url": "u", "day": 3}, '{"day": 3, "url": "u"}'),
        ({"url": None}, None),
        ([], []),
        ({}, {}),
        (None, None),
    ],
)
def test_ids_of_every_shape_become_one(value: object, expected: object) -> None:
    assert canonical_id(value) == expected


def test_saved_dataset_is_read(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    saved = datasets.DatasetDict({split: datasets.Dataset.from_list(rows) for split, rows in SPLITS.items()})
    saved.save_to_disk(str(tmp_path / "saved"))
    assert read_probe_set(str(tmp_path / "saved")).by_variant() == TABLE
    (tmp_path / "saved" / "pubmed" / "state.json").unlink()
    with pytest.raises(UnreadableInputError, match="saved: cannot be read as a saved dataset"):
        read_probe_set(str(tmp_path / "saved"))


REVISION = "0" * 39 + "1"


class _Hub(BaseHTTPRequestHandler):
    """A hub with one dataset, `owner/probes`, at one revision, on the loopback."""

    files: dict[str, bytes]

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if "/paths-info/" in self.path and "owner/probes" in self.path:
            self._send(json.dumps([self._entry(name) for name in self.files]).encode())
        else:
            self._send(b'{"error": "not here"}', 404)

    def _answer(self) -> None:
        path = self.path.split("?")[0]
        if path.startswith("/api/datasets/owner/probes/tree/"):
            inside = path.removeprefix(f"/api/datasets/owner/probes/tree/{REVISION}").strip("/") == "data"
            folder = {"type": "directory", "path": "data", "size": 0, "oid": REVISION}
            self._send(json.dumps([self._entry(name) for name in self.files] if inside else [folder]).encode())
        elif path.startswith("/api/datasets/owner/probes"):
            siblings = [{"rfilename": name} for name in self.files]
            info = {"id": "owner/probes", "sha": REVISION, "siblings": siblings, "tags": [], "downloads": 0, "likes": 0, "private": False}
            self._send(json.dumps(info).encode())
        elif path.startswith("/datasets/owner/probes/resolve/") and (name := path.split("/", 6)[6]) in self.files:
            self._send(self.files[name], etag=hashlib.sha1(self.files[name], usedforsecurity=False).hexdigest())
        else:
            self._send(b'{"error": "not here"}', 404)

    def _entry(self, name: str) -> dict[str, object]:
        content = self.files[name]
        return {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content, usedforsecurity=False).hexdigest()}

    def _send(self, content: bytes, status: int = 200, etag: str | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("X-Repo-Commit", REVISION)
        if status == 404:
            self.send_header("X-Error-Code", "EntryNotFound" if "/owner/probes/" in self.path else "RepoNotFound")
        if etag is not None:
            self.send_header("ETag", f'"{etag}"')
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[str]:
    folder = _write_splits(tmp_path / "hub", {split: f"data/{split}-00000-of-00001.parquet" for split in SPLITS})
    _Hub.files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Hub)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


READ = """
import json, sys
from lmdissect.errors import LmdissectError
from lmdissect.probes import read_probe_set
for source in sys.argv[1:]:
    try:
        print(json.dumps(read_probe_set(source).by_variant()))
    except LmdissectError as error:
        print(json.dumps([type(error).__name__, str(error)]))
"""


def _read_in_process(sources: list[str], home: Path, **settings: str) -> list[object]:
    environment = {name: value for name, value in os.environ.items() if "proxy" not in name.lower() and not name.startswith("HF_")}
    environment |= {"HF_HOME": str(home), "HF_HUB_DISABLE_TELEMETRY": "1", **settings}
    command = [sys.executable, "-c", READ, *sources]
    finished = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120, cwd=home)
    assert finished.returncode == 0, finished.stderr
    return [json.loads(line) for line in finished.stdout.splitlines()]


@pytest.mark.timeout(180)
def test_hub_id_is_read_and_a_missing_one_is_named(tmp_path: Path, hub: str) -> None:
    there, pinned, missing = _read_in_process(["owner/probes", f"owner/probes@{REVISION}", "owner/none"], tmp_path, HF_ENDPOINT=hub)
    assert there == pinned
    assert there == TABLE
    assert isinstance(missing, list)
    assert missing[0] == "UnreadableInputError"
    assert missing[1].startswith("owner/none: no such file or folder, and not to be had as a Hugging Face dataset")
    assert "\n" not in missing[1]
    [again, offline] = _read_in_process(["owner/probes", "owner/none"], tmp_path, HF_HUB_OFFLINE="1")
    assert again == TABLE
    assert isinstance(offline, list)
    assert "(HF_HUB_OFFLINE is set)" in offline[1]
