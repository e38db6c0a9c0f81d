"""A stand-in for the Hugging Face hub's HTTP API, on a real socket of the loopback: datasets, branches, commits, LFS uploads, downloads.

It keeps what a client can see: a commit appears whole or not at all, files over a few bytes of binary content go through LFS, tokens are checked, and it can
be told to hang or to fail, so that a client can be killed in the middle.
"""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

TOKEN = "hf_canaryTOKENwrite000000000000000000"  # noqa: S105 - what the stand-in accepts
READ_TOKEN = "hf_canaryTOKENread0000000000000000000"  # noqa: S105


@dataclass
class Repository:
    """Branches (name to commit) and commits (id to files) of one dataset."""

    private: bool
    branches: dict[str, str] = field(default_factory=dict)
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)

    def commit(self, branch: str, files: dict[str, bytes], message: str) -> str:
        name = hashlib.sha1(f"{len(self.commits)}{branch}{sorted(files)}".encode(), usedforsecurity=False).hexdigest()
        self.commits[name] = files
        self.branches[branch] = name
        self.messages.append(message)
        return name

    def resolve(self, revision: str) -> str | None:
        return self.branches.get(revision) or (revision if revision in self.commits else None)


class HubServer(ThreadingHTTPServer):
    """The hub. ``hang_on`` and ``fail_on``: a method and path beginning with it never get an answer, or status 500 (``fail_status``)."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories: dict[str, Repository] = {}
        self.blobs: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.hang_on: str | None = None
        self.fail_on: str | None = None
        self.fail_status = 500
        self.hanging = threading.Event()
        self.release = threading.Event()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that was killed has gone: nothing to say."""


@contextmanager
def serve_hub() -> Iterator[HubServer]:
    """A running hub."""
    server = HubServer()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.release.set()
        server.shutdown()
        thread.join()
        server.server_close()


def _git_oid(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _is_lfs(name: str) -> bool:
    return name.endswith(".parquet")


class _Handler(BaseHTTPRequestHandler):
    server: HubServer
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._route()

    def do_GET(self) -> None:
        self._route()

    def do_POST(self) -> None:
        self._route()

    def do_PUT(self) -> None:
        self._route()

    def log_message(self, *_: object) -> None:
        pass

    def _route(self) -> None:
        self.content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Transfer-Encoding") == "chunked":
            self.content = self._read_chunked()
        path = unquote(urlsplit(self.path).path)
        line = f"{self.command} {path}"
        self.server.requests.append(line)
        if self.server.hang_on is not None and line.startswith(self.server.hang_on):
            self.server.hanging.set()
            self.server.release.wait(60)
            self.close_connection = True
            return
        if self.server.fail_on is not None and line.startswith(self.server.fail_on):
            self._send_json({"error": f"as told, {self._token()}"}, self.server.fail_status)
            return
        parts = path.strip("/").split("/")
        if path == "/api/repos/create":
            self._create_repository()
        elif path == "/api/validate-yaml":
            self._send_json({"errors": [], "warnings": []})
        elif path.startswith("/lfs/"):
            self._store_blob(parts[1])
        elif path.endswith(".git/info/lfs/objects/batch"):
            self._batch()
        elif parts[:2] == ["api", "datasets"] and len(parts) >= 4:
            self._api("/".join(parts[2:4]), parts[4:])
        elif parts[0] == "datasets" and len(parts) > 5 and parts[3] == "resolve":
            self._resolve("/".join(parts[1:3]), parts[4], "/".join(parts[5:]))
        else:
            self._send_json({"error": f"nothing at {path}"}, 404)

    def _read_chunked(self) -> bytes:
        content = b""
        while size := int(self.rfile.readline().strip() or b"0", 16):
            content += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return content

    def _token(self) -> str:
        return (self.headers.get("Authorization") or "").removeprefix("Bearer ")

    def _may_write(self) -> bool:
        if self._token() == TOKEN:
            return True
        status = 403 if self._token() == READ_TOKEN else 401
        self._send_json({"error": f"refused the token {self._token()}"}, status)
        return False

    def _create_repository(self) -> None:
        if not self._may_write():
            return
        asked = json.loads(self.content)
        name = f"{asked['organization'] or 'someone'}/{asked['name']}"
        if name in self.server.repositories:
            self._send_json({"error": "You already created this dataset repo", "url": f"{self.server.endpoint}/datasets/{name}"}, 409)
            return
        repository = self.server.repositories[name] = Repository(private=asked.get("visibility") == "private" or bool(asked.get("private")))
        repository.commit("main", {".gitattributes": b"*.parquet filter=lfs\n"}, "initial commit")
        self._send_json({"url": f"{self.server.endpoint}/datasets/{name}", "name": name})

    def _readable(self, name: str) -> Repository | None:
        repository = self.server.repositories.get(name)
        if repository is not None and (not repository.private or self._token() in (TOKEN, READ_TOKEN)):
            return repository
        self._send_json({"error": "Repository not found"}, 401 if not self._token() else 404, {"X-Error-Code": "RepoNotFound"})
        return None

    def _commit_of(self, repository: Repository, revision: str) -> str | None:
        commit = repository.resolve(revision)
        if commit is None:
            self._send_json({"error": f"Invalid rev id: {revision}"}, 404, {"X-Error-Code": "RevisionNotFound"})
        return commit

    def _api(self, name: str, rest: list[str]) -> None:
        repository = self._readable(name)
        if repository is None:
            return
        verb = rest[0] if rest else "revision"
        if verb == "branch":
            self._branch(repository, "/".join(rest[1:]))
            return
        revision = "/".join(rest[1:]) or "main"
        if verb == "tree":
            revision = rest[1]
        commit = self._commit_of(repository, revision)
        if commit is None:
            return
        files = repository.commits[commit]
        if verb == "revision":
            siblings = [{"rfilename": file} for file in files]
            info = {"id": name, "sha": commit, "siblings": siblings, "tags": [], "downloads": 0, "likes": 0, "private": repository.private}
            self._send_json(info)
        elif verb == "tree":
            self._send_json([self._entry(file, content) for file, content in files.items()])
        elif verb == "preupload":
            self._preupload(files)
        elif verb == "commit":
            self._commit(name, repository, revision, commit)
        else:
            self._send_json({"error": f"no {verb}"}, 404)

    def _branch(self, repository: Repository, branch: str) -> None:
        if not self._may_write():
            return
        if branch in repository.branches:
            self._send_json({"error": "Reference already exists"}, 409)
            return
        start = repository.resolve(json.loads(self.content or b"{}").get("startingPoint") or "main")
        assert start is not None
        repository.branches[branch] = start
        self._send_json({})

    @staticmethod
    def _entry(name: str, content: bytes) -> dict[str, Any]:
        entry: dict[str, Any] = {"type": "file", "path": name, "size": len(content), "oid": _git_oid(content)}
        if _is_lfs(name):
            entry["lfs"] = {"oid": _sha256(content), "size": len(content), "pointerSize": 130}
        return entry

    def _preupload(self, files: dict[str, bytes]) -> None:
        if not self._may_write():
            return
        answers = []
        for asked in json.loads(self.content)["files"]:
            name = asked["path"]
            there = files.get(name)
            oid = None if there is None else _sha256(there) if _is_lfs(name) else _git_oid(there)
            answers.append({"path": name, "uploadMode": "lfs" if _is_lfs(name) else "regular", "shouldIgnore": False, "oid": oid})
        self._send_json({"files": answers})

    def _batch(self) -> None:
        if not self._may_write():
            return
        objects = []
        for asked in json.loads(self.content)["objects"]:
            action = {"actions": {"upload": {"href": f"{self.server.endpoint}/lfs/{asked['oid']}"}}}
            objects.append({"oid": asked["oid"], "size": asked["size"], **({} if asked["oid"] in self.server.blobs else action)})
        self._send_json({"transfer": "basic", "objects": objects})

    def _store_blob(self, oid: str) -> None:
        if _sha256(self.content) != oid:
            self._send_json({"error": "content does not match its hash"}, 400)
            return
        self.server.blobs[oid] = self.content
        self._send_json({})

    def _commit(self, name: str, repository: Repository, branch: str, head: str) -> None:
        if not self._may_write():
            return
        files = dict(repository.commits[head])
        message = ""
        for line in self.content.decode().splitlines():
            step = json.loads(line)
            value = step["value"]
            if step["key"] == "header":
                message = value["summary"]
                if value.get("parentCommit") not in (None, head):
                    self._send_json({"error": "the branch has moved"}, 412)
                    return
            elif step["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif step["key"] == "lfsFile":
                files[value["path"]] = self.server.blobs[value["oid"]]
            elif step["key"] == "deletedFile":
                del files[value["path"]]
        commit = repository.commit(branch, files, message)
        self._send_json(
            {"success": True, "commitOid": commit, "commitUrl": f"{self.server.endpoint}/datasets/{name}/commit/{commit}", "hookOutput": ""}
        )

    def _resolve(self, name: str, revision: str, file: str) -> None:
        repository = self._readable(name)
        commit = None if repository is None else self._commit_of(repository, revision)
        if repository is None or commit is None:
            return
        content = repository.commits[commit].get(file)
        if content is None:
            self._send_json({"error": "Entry not found"}, 404, {"X-Error-Code": "EntryNotFound"})
            return
        etag = _sha256(content) if _is_lfs(file) else _git_oid(content)
        self._send(content, 200, {"ETag": f'"{etag}"', "X-Repo-Commit": commit})

    def _send_json(self, value: object, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self._send(json.dumps(value).encode(), status, {"Content-Type": "application/json", **(headers or {})})

    def _send(self, content: bytes, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)
