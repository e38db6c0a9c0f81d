"""A study, or one comparison, served to this machine's own browser: every run, every document, every token unrounded, read when it is asked for.

    GET /TOKEN/                 the page
    GET /TOKEN/runs.json        [{label}]
    GET /TOKEN/index.json       ?run=N: models, variants, one line per document
    GET /TOKEN/document.json    ?run=N&place=D: texts of a document, each cut into [start, end, tokens, base, tuned]
    GET /TOKEN/search.json      ?run=N&q=WORDS: places of the documents that hold all words
    GET /TOKEN/NAME             a file that the study's manifest or its report lists

Only 127.0.0.1 is listened on. The token in the path is drawn anew each time, so that no other page in the browser can guess the address; a request whose Host is
not this address is refused, which stops a foreign name that resolves here.
"""

import hmac
import json
import secrets
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np

from lmdissect.errors import DamagedArtifactError, LmdissectError, UnreadableInputError, UnusableOutputError
from lmdissect.formats import shift_tables, study_tables
from lmdissect.records import ExplorerSource
from lmdissect.report.study.content import read_study_content
from lmdissect.report.study.estimates import overview_chart
from lmdissect.report.study.packing import summary_row
from lmdissect.report.study.page import PageParts, write_study_page, write_texts_page
from lmdissect.report.study.sections import build_sections
from lmdissect.report.study.texts import RunTexts, TextPieces, read_run_texts
from lmdissect.store import Manifest, read_json, read_manifest

__all__ = ["View", "ViewServer", "open_view"]

_HELD_RUNS = 2
_KINDS = {".html": "text/html", ".csv": "text/csv", ".png": "image/png", ".svg": "image/svg+xml", ".pdf": "application/pdf", ".tex": "text/plain"}
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
}


@dataclass(slots=True)
class _HeldRun:
    texts: RunTexts
    lower: list[str]


class View:
    """What is served: the page, the files beside it, and the runs, of which the last few asked for are held in memory."""

    def __init__(self, page: str, runs: Sequence[ExplorerSource], files: Mapping[str, Path]) -> None:
        self.page, self.runs, self.files = page, list(runs), dict(files)
        self._held: OrderedDict[int, _HeldRun] = OrderedDict()
        self._lock = threading.Lock()

    def answer(self, name: str, parameters: Mapping[str, str]) -> Any:  # noqa: ANN401 - JSON is whatever it is
        """The JSON that ``name`` asks for.

        Raises:
            KeyError: There is no such name, run or document.
            ValueError: A number is none.
            LmdissectError: The run's scores cannot be read.
        """
        if name == "runs.json":
            return [{"label": run.label} for run in self.runs]
        answers = {"index.json": self._index, "document.json": self._document, "search.json": self._search}
        if name not in answers:
            raise KeyError(name)
        return answers[name](self._run(int(parameters.get("run", "0"))), parameters)

    def _run(self, number: int) -> _HeldRun:
        if not 0 <= number < len(self.runs):
            raise KeyError(number)
        with self._lock:
            if number not in self._held:
                texts = read_run_texts(self.runs[number])
                names = ["original", *texts.variants]
                rows = texts.base.rows
                lower = [
                    "\n".join([document, *(texts.base.texts[rows[document, name]] for name in names if (document, name) in rows)]).lower()
                    for document in texts.document_ids
                ]
                self._held[number] = _HeldRun(texts, lower)
            self._held.move_to_end(number)
            while len(self._held) > _HELD_RUNS:
                self._held.popitem(last=False)
            return self._held[number]

    def _index(self, run: _HeldRun, _: Mapping[str, str]) -> dict[str, Any]:
        texts = run.texts
        return {
            "label": texts.label,
            "base_model": texts.base.model,
            "tuned_model": texts.tuned.model,
            "variants": texts.variants,
            "factors": [texts.factors.get(name, "") for name in texts.variants],
            "documents": [summary_row(summary) for summary in texts.summaries()],
        }

    def _document(self, run: _HeldRun, parameters: Mapping[str, str]) -> list[dict[str, Any]]:
        place = int(parameters["place"])
        if not 0 <= place < len(run.texts.document_ids):
            raise KeyError(place)
        document = run.texts.document_ids[place]
        found = [(name, run.texts.pieces(document, name)) for name in ["original", *run.texts.variants]]
        return [{"variant": name, "text": pieces.text, "pieces": _rows(pieces)} for name, pieces in found if pieces is not None]

    def _search(self, run: _HeldRun, parameters: Mapping[str, str]) -> list[int]:
        words = parameters.get("q", "").lower().split()
        return [place for place, text in enumerate(run.lower) if all(word in text for word in words)]


def _rows(pieces: TextPieces) -> list[list[Any]]:
    """Pieces as JSON; a token without a score has nulls."""
    columns = (pieces.start, pieces.end, pieces.num_tokens, pieces.base_nats, pieces.tuned_nats)
    isnan = np.isnan(pieces.base_nats) | np.isnan(pieces.tuned_nats)
    return [
        [start, end, count, None if missing else base, None if missing else tuned]
        for start, end, count, base, tuned, missing in zip(*(column.tolist() for column in columns), isnan.tolist(), strict=True)
    ]


def open_view(folder: Path) -> View:
    """What `lmdissect view` serves for ``folder``: a study with all its runs, or one comparison.

    Raises:
        UnreadableInputError: The folder is neither.
        DamagedArtifactError: A table is missing or changed.
        MissingDependencyError: The plotly package is not installed.
    """
    manifest = read_manifest(folder)
    files = _listed_files(folder, manifest)
    if manifest.stage == study_tables.STAGE:
        content = read_study_content(folder)
        runs = _study_runs(folder, content.tables["runs"])
        missing = "No run keeps its scores, so there are no texts to show." if not runs else ""
        parts = PageParts(content, overview_chart(content), build_sections(content), no_texts=missing, served=bool(runs))
        return View(write_study_page(parts), runs, files)
    if manifest.stage == shift_tables.STAGE:
        source = _kept_scores(folder, f"{_model(manifest, 'base_model')} to {_model(manifest, 'tuned_model')}")
        if source is None:
            message = f"{folder} keeps no scores beside its shifts (scores/base and scores/tuned): make it with lmdissect compare, or view a study"
            raise UnreadableInputError(message)
        return View(write_texts_page(source.label, has_report="report.html" in files), [source], files)
    message = f"{folder} holds an artifact of the stage '{manifest.stage}': give the folder of a study or of a comparison"
    raise UnreadableInputError(message)


def _model(manifest: Manifest, key: str) -> str:
    return str(manifest.details[key]["reference"])


def _listed_files(folder: Path, manifest: Manifest) -> dict[str, Path]:
    """Files that may be asked for by name: those of the artifact and of its report, and no others."""
    names = set(manifest.files)
    with suppress(DamagedArtifactError, UnreadableInputError, AttributeError):  # no report yet: its files are simply not there
        names |= set(read_json(folder / "report.json").get("files", {}))
    return {name: folder / name for name in names if Path(name).suffix in _KINDS and (folder / name).is_file()}


def _study_runs(folder: Path, rows: Sequence[Mapping[str, Any]]) -> list[ExplorerSource]:
    """Runs whose scores are kept: where the table says so, or beside the run's shifts."""
    runs = []
    for row in rows:
        label = f"{row['experiment']}: {row['point']}, seed {row['seed']} ({row['probes']})"
        named = [_find(folder, row.get(name)) for name in ("base_scores", "tuned_scores")]
        if named[0] is not None and named[1] is not None:
            runs.append(ExplorerSource(named[0], named[1], label))
        elif (shifts := _find(folder, row["shift_folder"])) is not None and (source := _kept_scores(shifts, label)) is not None:
            runs.append(source)
    return runs


def _find(folder: Path, name: str | None) -> Path | None:
    """A finished artifact's folder that a table names, as it is or from the study's folder."""
    if not name:
        return None
    return next((path for path in (Path(name), folder / name) if (path / "manifest.json").is_file()), None)


def _kept_scores(folder: Path, label: str) -> ExplorerSource | None:
    base, tuned = folder / "scores" / "base", folder / "scores" / "tuned"
    return ExplorerSource(base, tuned, label) if all((path / "manifest.json").is_file() for path in (base, tuned)) else None


class ViewServer:
    """Serves a `View` on 127.0.0.1 until told to stop."""

    def __init__(self, view: View, port: int = 0) -> None:
        """Listen.

        Args:
            view: What to serve.
            port: On which port; 0 for a free one.

        Raises:
            UnusableOutputError: The port is taken or not allowed.
        """
        self.token = secrets.token_urlsafe(16)
        try:
            self._server = _Server(("127.0.0.1", port), _Handler)
        except OSError as error:
            message = f"port {port} on 127.0.0.1 cannot be used ({error.strerror}): choose another --port, or leave it out for a free one"
            raise UnusableOutputError(message) from error
        self._server.view, self._server.token = view, self.token

    @property
    def url(self) -> str:
        """Address of the page."""
        return f"http://127.0.0.1:{self._server.server_address[1]}/{self.token}/"

    def serve(self) -> None:
        """Answer until `stop` is called, or until an exception (Ctrl-C) ends it; then the port is free again."""
        try:
            self._server.serve_forever(poll_interval=0.2)
        finally:
            self._server.server_close()

    def stop(self) -> None:
        """End `serve`, called from another thread."""
        self._server.shutdown()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    view: View
    token: str


class _Handler(BaseHTTPRequestHandler):
    """GET alone: any other method is answered 501 by the base class."""

    server: _Server
    server_version = "lmdissect"
    sys_version = ""

    def do_GET(self) -> None:
        """Answer one request."""
        host, port = self.server.server_address[:2]
        address = urlsplit(self.path)
        _, _, rest = address.path.partition("/")
        token, _, name = rest.partition("/")
        is_ours = self.headers.get("Host", "") in (f"{host!s}:{port}", f"localhost:{port}")
        if not (is_ours and hmac.compare_digest(token.encode(), self.server.token.encode())):
            self._send(HTTPStatus.NOT_FOUND, "text/plain", b"not found")
            return
        parameters = {key: values[-1] for key, values in parse_qs(address.query, keep_blank_values=True).items()}
        try:
            self._answer(unquote(name), parameters)
        except (KeyError, ValueError):
            self._send(HTTPStatus.NOT_FOUND, "text/plain", b"not found")
        except LmdissectError as error:
            self._send(HTTPStatus.INTERNAL_SERVER_ERROR, "text/plain", str(error).encode())

    def _answer(self, name: str, parameters: Mapping[str, str]) -> None:
        view = self.server.view
        if not name:
            self._send(HTTPStatus.OK, "text/html", view.page.encode())
        elif name in view.files:
            self._send(HTTPStatus.OK, _KINDS[Path(name).suffix], view.files[name].read_bytes())
        else:
            self._send(
                HTTPStatus.OK,
                "application/json",
                json.dumps(view.answer(name, parameters), ensure_ascii=False, allow_nan=False).encode("utf-8", "replace"),
            )

    def _send(self, status: HTTPStatus, kind: str, body: bytes) -> None:
        try:
            self.send_response(status)
            for header, value in {**_HEADERS, "Content-Type": f"{kind}; charset=utf-8", "Content-Length": str(len(body))}.items():
                self.send_header(header, value)
            self.end_headers()
            self.wfile.write(body)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True  # the browser went away

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it so
        """Say nothing: the terminal is the user's."""
