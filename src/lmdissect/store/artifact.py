"""An artifact: a folder with data files and, written last, a `manifest.json` that says what made it and what it holds.

Life of a folder:

    .lock           held (flock) by the one process that makes it; the kernel releases it when that process dies
    started.json    stage, key, config and inputs of the work in progress, so that chunks of other settings are never taken up
    chunks/         finished pieces, each appearing by rename; the name carries the content's hash. Other processes may join and add some
    *.parquet ...   the artifact's files
    manifest.json   appears last; from then on the artifact is finished, and chunks/ and started.json are gone

The *key* is the hash of stage, schema version, all config fields and the hashes of all inputs. A folder of another key is an error that names the
fields that differ: never a warning, never served.
"""

import fcntl
import importlib.metadata
import json
import os
import platform
import shutil
import socket
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lmdissect.errors import DamagedArtifactError, OutputLockedError, StaleArtifactError, UnreadableInputError, UnusableOutputError
from lmdissect.store.chunks import CHUNKS, find_chunks, store_chunk
from lmdissect.store.files import output_folder, output_guard, read_json, write_json, write_table
from lmdissect.store.fingerprint import canonical_json, fingerprint, hash_file

__all__ = [
    "SCHEMA_VERSION",
    "ArtifactFolder",
    "FileRecord",
    "JoinedArtifact",
    "Manifest",
    "artifact_key",
    "join_artifact",
    "lock_folder",
    "open_artifact",
    "read_artifact",
    "read_manifest",
    "versions",
]

SCHEMA_VERSION = 2
"""Raised when a stored format or a formula changes, so that older artifacts are not served as new ones."""

_MANIFEST = "manifest.json"
_STARTED = "started.json"
_LOCK = ".lock"
_ABSENT = object()
_CURE = "choose another --out, or delete that folder first"
_PACKAGES = ("lmdissect", "torch", "transformers", "peft", "accelerate", "tokenizers", "numpy", "scipy", "pyarrow")


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class _Started(_Frozen):
    """What `started.json` holds."""

    stage: str
    key: str
    config: dict[str, Any]
    inputs: dict[str, Any]
    started_at: str


class FileRecord(_Frozen):
    """Hash and size of one file of an artifact."""

    sha256: str
    size_bytes: int


class Manifest(_Frozen):
    """What made an artifact and what it holds."""

    schema_version: int
    stage: str
    key: str
    config: dict[str, Any] = Field(description="all settings; part of the key")
    inputs: dict[str, Any] = Field(description="hashes of all inputs; part of the key")
    files: dict[str, FileRecord]
    counts: dict[str, int] = Field(description="what was kept and what was not")
    details: dict[str, Any] = Field(description="what the stage wants to tell: rejected records, self-checks, model facts, unavailable rows")
    versions: dict[str, str]
    machine: dict[str, Any]
    started_at: str = Field(description="when the first of its sessions began")
    finished_at: str
    wall_s: float = Field(description="duration of its last session alone: a run that was resumed took longer")


def versions() -> dict[str, str]:
    """Versions of this package and of those that numbers depend on."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _machine() -> dict[str, Any]:
    return {"platform": platform.platform(), "processor": platform.machine(), "num_cpus": os.cpu_count() or 1}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def artifact_key(stage: str, config: Mapping[str, Any], inputs: Mapping[str, Any]) -> str:
    """Key of an artifact: SHA-256 (hex) of stage, format version, all settings and the hashes of all inputs."""
    return fingerprint({"schema_version": SCHEMA_VERSION, "stage": stage, "config": dict(config), "inputs": dict(inputs)})


class ArtifactFolder:
    """An artifact while one process, holding the lock, makes or reuses it. Made by `open_artifact`."""

    def __init__(self, folder: Path, stage: str, config: Mapping[str, Any], inputs: Mapping[str, Any], cure: str) -> None:
        self.folder = folder
        self._cure = cure
        self.stage = stage
        self.config: dict[str, Any] = json.loads(canonical_json(config))  # as it will be read back: a tuple is a list
        self.inputs: dict[str, Any] = json.loads(canonical_json(inputs))
        self.key = artifact_key(stage, self.config, self.inputs)
        self.finished: Manifest | None = None
        self.damage: list[str] = []
        self._started_at = _now()
        self._started_s = time.monotonic()

    def begin(self) -> None:
        """Take up finished or half-done work of the same key, or refuse a folder that holds anything else."""
        if (self.folder / _MANIFEST).exists():
            manifest = _own_manifest(self.folder)
            self.refuse_other(manifest.stage, manifest.key, manifest.config, manifest.inputs)
            self.damage = _damaged_files(self.folder, manifest)
            if not self.damage:
                self.finished = manifest
                self.drop_work()  # a kill may have come between the manifest and this
                return
        elif (self.folder / _STARTED).exists():
            started = _read_started(self.folder)
            self.refuse_other(started.stage, started.key, started.config, started.inputs)
            self._started_at = started.started_at
            _drop_leftovers(self.folder)
        started = _Started(stage=self.stage, key=self.key, config=self.config, inputs=self.inputs, started_at=self._started_at)
        write_json(self.folder / _STARTED, started.model_dump())
        (self.folder / _MANIFEST).unlink(missing_ok=True)  # only now: a folder with neither of the two would no longer count as ours

    def refuse_other(self, stage: str, key: str, config: Mapping[str, Any], inputs: Mapping[str, Any]) -> None:
        """Compare with what the folder holds.

        Raises:
            StaleArtifactError: It is something else; the message names the fields that differ.
        """
        if key == self.key:
            return
        if stage != self.stage:
            message = f"{self.folder} holds an artifact of the stage '{stage}', not '{self.stage}': choose another --out"
            raise StaleArtifactError(message, self.folder)
        differing = _differing_fields(config, self.config) + _differing_fields(inputs, self.inputs)
        named = "; ".join(differing) or "the format version"
        message = f"{self.folder} was made with other settings ({named}): {self._cure}"
        raise StaleArtifactError(message, self.folder)

    def describe_damage(self) -> list[str]:
        """A line for the user for every damaged file of a finished artifact, which is why it is being made again."""
        return [f"{self.folder}: {name} is missing or damaged and is made again" for name in self.damage]

    def chunks(self) -> dict[int, Path]:
        """Finished chunks by number. One whose content does not match its name's hash is removed, so that it is made again."""
        intact, damaged = find_chunks(self.folder)
        for path in damaged:
            self.damage.append(f"{CHUNKS}/{path.name}")
            path.unlink(missing_ok=True)
        return intact

    def write_chunk(self, number: int, table: pa.Table) -> Path:
        """Store one finished piece of work; after this returns it survives a kill."""
        return store_chunk(self.folder, number, table)

    def write_table(self, name: str, table: pa.Table) -> None:
        """Write one of the artifact's Parquet files."""
        write_table(self.folder / name, table)

    def finish(self, *, counts: Mapping[str, int], details: Mapping[str, Any], files: Iterable[str] | None = None) -> Manifest:
        """Hash the files, write the manifest, drop the chunks. From now on the artifact is finished.

        Args:
            counts: What was kept and what was not.
            details: What the stage wants to tell.
            files: Names of the artifact's files; default: all in the folder.
        """
        manifest = Manifest(
            schema_version=SCHEMA_VERSION,
            stage=self.stage,
            key=self.key,
            config=self.config,
            inputs=self.inputs,
            files=_file_records(self.folder, files),
            counts=dict(counts),
            details=dict(details),
            versions=versions(),
            machine=_machine(),
            started_at=self._started_at,
            finished_at=_now(),
            wall_s=round(time.monotonic() - self._started_s, 3),
        )
        write_json(self.folder / _MANIFEST, manifest.model_dump())  # not pydantic's JSON mode, which makes a NaN null without a word
        self.drop_work()
        self.finished = manifest
        return manifest

    def drop_work(self) -> None:
        """Remove what only unfinished work needs."""
        with output_guard(self.folder):
            shutil.rmtree(self.folder / CHUNKS, ignore_errors=True)
            (self.folder / _STARTED).unlink(missing_ok=True)


@contextmanager
def open_artifact(folder: Path, *, stage: str, config: Mapping[str, Any], inputs: Mapping[str, Any], cure: str = _CURE) -> Iterator[ArtifactFolder]:
    """Lock ``folder`` and hand out the artifact in it: finished (``.finished`` is its manifest), half done, or new.

    Args:
        folder: Output folder; created where missing.
        stage: Name of the stage that makes the artifact.
        config: Every setting, in canonical JSON types.
        inputs: Hashes of every input, likewise.
        cure: What the user can do where the folder holds the artifact of other settings.

    Raises:
        OutputLockedError: Another process is writing the folder.
        StaleArtifactError: The folder holds an artifact of other settings or inputs.
        UnusableOutputError: The folder cannot be written, or holds something that is not ours.
    """
    output_folder(folder)
    _refuse_foreign(folder)
    with lock_folder(folder):
        artifact = ArtifactFolder(folder, stage, config, inputs, cure)
        artifact.begin()
        yield artifact


@dataclass(frozen=True, slots=True)
class JoinedArtifact:
    """An artifact that another process, which holds the lock, is making: chunks can be added, nothing is removed or finished. Made by `join_artifact`.

    Attributes:
        folder: The artifact's folder.
        finished: Its manifest, where it was finished before this process came.
    """

    folder: Path
    finished: Manifest | None

    def chunks(self) -> dict[int, Path]:
        """Finished chunks by number. A damaged one is left to the process that holds the lock."""
        return find_chunks(self.folder)[0]

    def write_chunk(self, number: int, table: pa.Table) -> Path:
        """Store one finished piece of work; after this returns it survives a kill."""
        return store_chunk(self.folder, number, table)


def join_artifact(folder: Path, *, stage: str, config: Mapping[str, Any], inputs: Mapping[str, Any]) -> JoinedArtifact:
    """Join work that another process has begun with `open_artifact`, without its lock.

    Args:
        folder: The artifact's folder.
        stage: Name of the stage that makes the artifact.
        config: Every setting, as the other process gave it.
        inputs: Hashes of every input, likewise.

    Raises:
        UnreadableInputError: Nothing was begun there.
        StaleArtifactError: What was begun there has other settings or inputs.
    """
    wanted = ArtifactFolder(folder, stage, config, inputs, _CURE)
    if (folder / _STARTED).is_file():
        started = _read_started(folder)
        wanted.refuse_other(started.stage, started.key, started.config, started.inputs)
        return JoinedArtifact(folder, None)
    if not (folder / _MANIFEST).is_file():
        message = f"{folder}: no work was begun there that this process could join: start the one that finishes it first"
        raise UnreadableInputError(message)
    manifest = _own_manifest(folder)
    wanted.refuse_other(manifest.stage, manifest.key, manifest.config, manifest.inputs)
    return JoinedArtifact(folder, manifest)


@contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Be the one process that writes ``folder``; the kernel gives the lock back when the process ends, however it ends.

    Raises:
        OutputLockedError: Another process is writing it.
        UnusableOutputError: The folder cannot be written.
    """
    path = folder / _LOCK
    with output_guard(path):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        with output_guard(path):
            _take_lock(descriptor, folder)
        yield
    finally:
        os.close(descriptor)


def _take_lock(descriptor: int, folder: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        owner = os.read(descriptor, 200).decode("utf-8", "replace").strip() or "unknown"
        message = f"another process ({owner}) is writing {folder}: wait until it ends, or stop it"
        raise OutputLockedError(message) from error
    os.ftruncate(descriptor, 0)
    os.write(descriptor, f"pid {os.getpid()} on {socket.gethostname()}".encode())


def _refuse_foreign(folder: Path) -> None:
    """Refuse a folder with other people's files, before anything (the lock too) is written into it."""
    names = {entry.name for entry in folder.iterdir()}
    if names & {_MANIFEST, _STARTED}:
        return
    if any(not name.startswith(".") and not _is_ours(folder / name) for name in names):
        message = f"{folder} is not empty and holds nothing of ours: choose a new or empty --out folder"
        raise UnusableOutputError(message)


def _drop_leftovers(folder: Path) -> None:
    """Remove the temporary files and folders of a killed process; the lock says that no other one is at work."""
    with output_guard(folder):
        for path in folder.glob(".tmp-*"):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def _read_started(folder: Path) -> _Started:
    try:
        return _Started.model_validate(read_json(folder / _STARTED))
    except (ValidationError, DamagedArtifactError) as error:
        message = f"{folder / _STARTED} cannot be understood: choose another --out, or delete that folder first"
        raise UnusableOutputError(message) from error


def _own_manifest(folder: Path) -> Manifest:
    try:
        return read_manifest(folder)
    except DamagedArtifactError as error:
        message = f"{folder} holds a {_MANIFEST} that is damaged or not ours: choose another --out, or delete that folder first"
        raise UnusableOutputError(message) from error


def read_manifest(folder: Path) -> Manifest:
    """Manifest of a finished artifact.

    Raises:
        UnreadableInputError: The folder or its manifest is missing: nothing was made there, or the work is not finished.
        DamagedArtifactError: The manifest cannot be understood.
    """
    path = folder / _MANIFEST
    if not path.is_file():
        state = "its work is not finished: run the command that was making it again" if (folder / _STARTED).exists() else "it holds no manifest.json"
        message = f"{folder} is not a finished artifact ({state})" if folder.is_dir() else f"{folder}: no such folder"
        raise UnreadableInputError(message)
    try:
        return Manifest.model_validate(read_json(path))
    except ValidationError as error:
        message = f"{path} is not a manifest this version understands ({error.error_count()} problems): if this is the right folder, make it again"
        raise DamagedArtifactError(message) from error


def read_artifact(folder: Path, stage: str) -> Manifest:
    """Manifest of a finished artifact whose files were all verified against it.

    Raises:
        UnreadableInputError: No finished artifact there, or one of another stage or format version.
        DamagedArtifactError: A file is missing or changed; the message names it.
    """
    manifest = read_manifest(folder)
    if manifest.schema_version != SCHEMA_VERSION:
        message = (
            f"{folder} has the format version {manifest.schema_version}, and this program reads {SCHEMA_VERSION}: make it again with this program"
        )
        raise UnreadableInputError(message)
    if manifest.stage != stage:
        message = f"{folder} holds an artifact of the stage '{manifest.stage}', and one of '{stage}' is needed"
        raise UnreadableInputError(message)
    if damaged := _damaged_files(folder, manifest):
        message = f"{folder}: {', '.join(damaged)} missing or changed since the manifest was written: run the command that made the folder again"
        raise DamagedArtifactError(message)
    return manifest


def _file_records(folder: Path, files: Iterable[str] | None) -> dict[str, FileRecord]:
    if files is None:
        found = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
        files = [path.as_posix() for path in found if not any(part.startswith(".") for part in path.parts)]
    skip = {_MANIFEST, _STARTED}
    return {
        name: FileRecord(sha256=hash_file(folder / name), size_bytes=(folder / name).stat().st_size)
        for name in sorted(files)
        if name not in skip and not name.startswith(f"{CHUNKS}/")
    }


def _is_ours(path: Path) -> bool:
    """Whether ``path`` is an artifact, or a folder of nothing but artifacts (a comparison keeps its scores inside)."""
    if not path.is_dir():
        return False
    if any((path / name).exists() for name in (_MANIFEST, _STARTED, _LOCK)):
        return True
    entries = list(path.iterdir())
    return bool(entries) and all(_is_ours(entry) for entry in entries)


def _damaged_files(folder: Path, manifest: Manifest) -> list[str]:
    return [
        name
        for name, record in manifest.files.items()
        if not (folder / name).is_file() or (folder / name).stat().st_size != record.size_bytes or hash_file(folder / name) != record.sha256
    ]


def _differing_fields(there: Mapping[str, Any], here: Mapping[str, Any], prefix: str = "") -> list[str]:
    found: list[str] = []
    for name in sorted({*there, *here}):
        old, new = there.get(name, _ABSENT), here.get(name, _ABSENT)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            found.extend(_differing_fields(old, new, f"{prefix}{name}."))
        elif _shown(old) != _shown(new):
            entry = f"{prefix}{name}: {_short(_shown(old))} there, {_short(_shown(new))} here"
            found.append(entry if entry.isprintable() else repr(entry)[1:-1])  # a line break in a value must not break the message
    return found


def _shown(value: object) -> str:
    """Canonical JSON, in which true and 1, and 1 and 1.0, are as different as they are in the key."""
    return "nothing" if value is _ABSENT else canonical_json(value)


def _short(text: str) -> str:
    limit = 40
    return text if len(text) <= limit else f"{text[: limit - 1]}…"
