"""A study, or one comparison, served to this machine's own browser: every run, every document, every token unrounded, read when it is asked for.

    GET /TOKEN/                 the page
    GET /TOKEN/runs.json        [{label}]
    GET /TOKEN/index.json       ?run=N: models, variants, one line per document
    GET /TOKEN/document.json    ?run=N&place=D: texts of a document, each cut into [start, end, tokens, base, tuned]
    GET /TOKEN/search.json      ?run=N&q=WORDS: places of the documents that hold all words
    GET /TOKEN/NAME             a file that the study's manifest or its report lists

Only 127.0.0.1 is listened on. The token in the path is drawn anew each time, so that no other page in the browser can guess the address; a request whose Host is
not this address is refused, which stops a foreign name that resolves here.

The folder may be somebody else's, so what it holds is trusted with nothing: a file is served only if it lies inside the folder, wherever the manifest, the report or a
symbolic link says it is, and every answer carries a content security policy. A report.html stands in a sandbox of its own origin, so that no script in it can ask this
server for anything.
"""

import hmac
import json
import os
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
from lmdissect.wording import format_count

__all__ = ["View", "ViewServer", "open_view"]

_HELD_RUNS = 2
_NAMED_RUNS = 20
_KINDS = {".html": "text/html", ".csv": "text/csv", ".png": "image/png", ".svg": "image/svg+xml", ".pdf": "application/pdf", ".tex": "text/plain"}
_LOCKED = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
_OWN_PAGE = f"{_LOCKED}; script-src 'unsafe-inline'; connect-src 'self'"
"""Of the page that this program writes, whose own policy narrows it to the hashes of its scripts and styles."""
_PAGE_OF_THE_FOLDER = f"{_LOCKED}; script-src 'unsafe-inline'; sandbox allow-scripts allow-downloads"
_POLICIES = {".html": _PAGE_OF_THE_FOLDER, ".pdf": "frame-ancestors 'none'"}
"""By ending. A PDF's viewer is part of the browser, and some do not show it under a policy."""
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
    """What is served: the page, the files beside it, and the runs, of which the last few asked for are held in memory.

    ``not_shown`` has a line for every run whose texts cannot be shown, with the reason.
    """

    def __init__(self, page: str, runs: Sequence[ExplorerSource], files: Mapping[str, Path], not_shown: Sequence[str] = ()) -> None:
        self.page, self.runs, self.files, self.not_shown = page, list(runs), dict(files), tuple(not_shown)
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
        runs, not_shown = _study_runs(folder, content.tables["runs"])
        parts = PageParts(content, overview_chart(content), build_sections(content), no_texts=_no_texts(not_shown), served=bool(runs))
        return View(write_study_page(parts), runs, files, not_shown)
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
    """Files that may be asked for by name: those of the artifact and of its report that lie inside the folder, and no others."""
    names: set[object] = set(manifest.files)
    with suppress(DamagedArtifactError, UnreadableInputError, AttributeError, TypeError):  # no report yet, or one of another form
        names |= set(read_json(folder / "report.json").get("files", {}))
    return {name: folder / name for name in names if isinstance(name, str) and Path(name).suffix in _KINDS and _is_file_inside(folder, name)}


def _is_file_inside(folder: Path, name: str) -> bool:
    """Whether ``name`` is a file of the folder, symbolic links followed. The names come from the folder itself: `..` and the like are no names of its files."""
    try:
        return (folder / name).resolve().is_relative_to(folder.resolve()) and (folder / name).is_file()
    except (OSError, ValueError):  # too long for a name, or with a null character
        return False


def _study_runs(folder: Path, rows: Sequence[Mapping[str, Any]]) -> tuple[list[ExplorerSource], list[str]]:
    """Runs whose scores are kept, where the table says so or beside the run's shifts; and a line for each that cannot be shown, with the reason."""
    runs, not_shown = [], []
    for row in rows:
        label = f"{row['experiment']}: {row['point']}, seed {row['seed']} ({row['probes']})"
        named = [_as_seen_from(folder, row.get(name)) for name in ("base_scores", "tuned_scores")]
        shifts = _as_seen_from(folder, row["shift_folder"])
        beside = None if shifts is None else _kept_scores(shifts, label)
        if named[0] is not None and named[1] is not None and all(map(_is_finished, named)):
            runs.append(ExplorerSource(named[0], named[1], label))
        elif beside is not None:
            runs.append(beside)
        else:
            gone = [path for path in (*named, shifts) if path is not None and not _is_finished(path)]
            reason = f"nothing finished in {gone[0]}: put it back, or make the study again in a new folder" if gone else "its scores were not kept"
            not_shown.append(f"{label}: {reason}")
    return runs, not_shown


def _as_seen_from(folder: Path, name: str | None) -> Path | None:
    """A folder that a table names by its path from the study's, which was written with all symbolic links followed."""
    return Path(os.path.normpath(folder.resolve() / name)) if name else None


def _is_finished(path: Path | None) -> bool:
    return path is not None and (path / "manifest.json").is_file()


def _no_texts(not_shown: Sequence[str]) -> str:
    """What the page says of runs that cannot be shown; nothing where there are none."""
    if not not_shown:
        return ""
    more = f"; and {len(not_shown) - _NAMED_RUNS} more" if len(not_shown) > _NAMED_RUNS else ""
    return f"Texts cannot be shown of {format_count(len(not_shown), 'run')}: {'; '.join(not_shown[:_NAMED_RUNS])}{more}."


def _kept_scores(folder: Path, label: str) -> ExplorerSource | None:
    base, tuned = folder / "scores" / "base", folder / "scores" / "tuned"
    return ExplorerSource(base, tuned, label) if _is_finished(base) and _is_finished(tuned) else None


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
            self._send(HTTPStatus.OK, "text/html", view.page.encode(), _OWN_PAGE)
        elif name in view.files:
            ending = Path(name).suffix
            self._send(HTTPStatus.OK, _KINDS[ending], view.files[name].read_bytes(), _POLICIES.get(ending, _LOCKED))
        else:
            self._send(
                HTTPStatus.OK,
                "application/json",
                json.dumps(view.answer(name, parameters), ensure_ascii=False, allow_nan=False).encode("utf-8", "replace"),
            )

    def _send(self, status: HTTPStatus, kind: str, body: bytes, policy: str = _LOCKED) -> None:
        own = {"Content-Type": f"{kind}; charset=utf-8", "Content-Length": str(len(body)), "Content-Security-Policy": policy}
        try:
            self.send_response(status)
            for header, value in {**_HEADERS, **own}.items():
                self.send_header(header, value)
            self.end_headers()
            self.wfile.write(body)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True  # the browser went away

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it so
        """Say nothing: the terminal is the user's."""
