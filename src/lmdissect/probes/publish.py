"""A probe folder on the Hugging Face hub: pushed as one commit of our files alone, pulled at one commit and verified.

    push: card, probes.yaml, import_report.json, data/, accepted/ and audit.parquet, in one commit: the repository shows the old set or the new one
    pull: the same names and no others, into a temporary folder; hashes are checked before it is renamed into place

The token comes from HF_TOKEN or from the hub's own login, and is never printed or stored. Absolute paths in descriptions are cut to file names before they
leave the machine; so are those that lead upwards. A pulled folder gets a card of its own making: the published one is not checked by any hash.
"""

import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NoReturn

from lmdissect.errors import LmdissectError, RunFailedError, StaleArtifactError, UnreadableInputError, UnusableOutputError, UserInputError
from lmdissect.probes.card import REPOSITORY_PLACEHOLDER, hide_folders, write_card
from lmdissect.probes.collection import Collection
from lmdissect.probes.description import PROBES_FILE, ProbesFile, damaged_files, data_file, read_description, recorded_files, write_description
from lmdissect.probes.folder import REPORT_FILE, add_probe_folder, describe_texts, hash_content, verify_probe_folder
from lmdissect.probes.identity import probe_fingerprint
from lmdissect.records import ProbeSet
from lmdissect.store import output_folder, output_guard, read_json, replace_folder, write_json

if TYPE_CHECKING:
    from huggingface_hub import DatasetInfo, HfApi

__all__ = ["PULLED_FILE", "PulledSet", "PushedSet", "StagedSet", "pull_probe_set", "push_probe_set", "stage_probe_set"]

PULLED_FILE = "pulled.json"
"""Where a pulled folder came from: repository, revision asked for, commit."""

_CARD_FILE = "README.md"
_OUR_FILES = re.compile(r"README\.md|probes\.yaml|import_report\.json|audit\.parquet|(?:data|accepted)/\w+\.parquet", re.ASCII)
_NEW_REPOSITORY = frozenset({".gitattributes", _CARD_FILE})
_REFERENCE = re.compile(r"(?P<name>[\w-][\w.-]*/[\w-][\w.-]*)(?:@(?P<revision>[\w][\w./-]*))?", re.ASCII)
_TOKEN = re.compile(r"hf_\w+")
_MAIN = "main"
_SHOWN_ERROR_CHARS = 200
_LOGIN = "set HF_TOKEN, or log in with `hf auth login`"


@dataclass(frozen=True, slots=True)
class StagedSet:
    """What a push would send: file names in the repository, with the local files and their sizes."""

    files: Mapping[str, Path]
    size_bytes: int
    licence: str | None
    audited: bool


@dataclass(frozen=True, slots=True)
class PushedSet:
    """Outcome of a push: where it went, and whether anything changed there."""

    url: str
    commit: str
    changed: bool


@dataclass(frozen=True, slots=True)
class PulledSet:
    """Outcome of a pull."""

    repository: str
    commit: str
    outcome: Literal["written", "reused"]


@contextmanager
def stage_probe_set(folder: Path, repository: str, *, licence: str | None = None) -> Iterator[StagedSet]:
    """The files that a push of ``folder`` sends; those that are changed for it lie in a temporary folder while the context lasts.

    Changed are: the card (names the repository, and the licence), `probes.yaml` and `import_report.json` (paths of their maker cut to file names: in sources,
    names of writers, and settings of the audit).

    Args:
        folder: A folder of ours.
        repository: ``owner/name``.
        licence: Terms of the texts, or None for those the folder records.

    Raises:
        UnreadableInputError: It is no folder of ours, or damaged.
        UserInputError: ``repository`` is not of the form ``owner/name``.
    """
    if not (folder / PROBES_FILE).is_file():
        message = f"{folder}: no probe folder of ours (no {PROBES_FILE}); write one with `lmdissect probes import`"
        raise UnreadableInputError(message)
    match = _REFERENCE.fullmatch(repository)
    if match is None or match["revision"]:
        message = f"'{repository}' is no repository: write owner/name; a branch goes into --revision"
        raise UserInputError(message)
    probes = verify_probe_folder(folder)
    with tempfile.TemporaryDirectory(prefix="lmdissect-push-") as name:
        files = {data_file(entry.split): folder / data_file(entry.split) for entry in probes.variants}
        files |= {file: folder / file for file in (probes.audit.files if probes.audit is not None else {})}
        _check_names(files, folder)
        files |= _stage_descriptions(folder, Path(name), probes, repository, licence)
        size_bytes = sum(path.stat().st_size for path in files.values())
        yield StagedSet(dict(sorted(files.items())), size_bytes, licence or probes.licence, probes.audit is not None)


def _check_names(files: Mapping[str, Path], folder: Path) -> None:
    for name, path in files.items():
        if _OUR_FILES.fullmatch(name) is None or path.is_symlink():
            message = f"{folder}/{PROBES_FILE}: names the file {name!r}, which is not one a probe folder holds; write the folder anew"
            raise UnreadableInputError(message)


def _stage_descriptions(folder: Path, temporary: Path, probes: ProbesFile, repository: str, licence: str | None) -> dict[str, Path]:
    """Write card, `probes.yaml` and import report as they are published."""
    collection = Collection()
    add_probe_folder(collection, folder, probes)
    published = _as_published(probes, licence)
    probe_set = describe_texts(collection, published, published.source, {})
    if (published.licence, published.variants) != (probes.licence, probes.variants):
        published = published.model_copy(update={"content_hash": hash_content(probe_set)})
    write_description(temporary, published)
    _write_card(temporary, probe_set, published, repository)
    names = [PROBES_FILE, _CARD_FILE]
    if (folder / REPORT_FILE).is_file():
        write_json(temporary / REPORT_FILE, _without_folders(read_json(folder / REPORT_FILE)))
        names.append(REPORT_FILE)
    return {name: temporary / name for name in names}


def _as_published(probes: ProbesFile, licence: str | None) -> ProbesFile:
    """``probes`` without the folders of its maker, under the licence given."""
    variants = [
        entry.model_copy(update={"generator": _without_folders(entry.generator), "audit": _without_folders(entry.audit)}) for entry in probes.variants
    ]
    audit = None if probes.audit is None else probes.audit.model_copy(update={"settings": _without_folders(probes.audit.settings)})
    update = {"source": hide_folders(probes.source), "licence": licence or probes.licence, "variants": variants, "audit": audit}
    return probes.model_copy(update=update)


def _write_card(folder: Path, probe_set: ProbeSet, probes: ProbesFile, repository: str) -> None:
    splits = {entry.variant: entry.split for entry in probes.variants}
    write_card(folder / _CARD_FILE, probe_set, splits, recorded_files(probes), audited=probes.audit is not None)
    card = (folder / _CARD_FILE).read_text(encoding="utf-8").replace(REPOSITORY_PLACEHOLDER, repository)
    (folder / _CARD_FILE).write_text(card, encoding="utf-8")


def _without_folders(value: object) -> object:
    """JSON ``value`` with the paths in its strings, names of fields among them, cut to file names."""
    if isinstance(value, str):
        return hide_folders(value)
    if isinstance(value, list):
        return [_without_folders(entry) for entry in value]
    return {hide_folders(name): _without_folders(entry) for name, entry in value.items()} if isinstance(value, dict) else value


def push_probe_set(
    staged: StagedSet, repository: str, *, private: bool = False, revision: str | None = None, message: str | None = None, api: "HfApi | None" = None
) -> PushedSet:
    """Send a probe set to a dataset repository of the hub, as one commit; the repository and the branch are created where they are missing.

    What is there already and equal is not sent again, so a push that was cut off is simply repeated. Files of an earlier set of ours that this one does not
    have are deleted by the same commit; its history stays.

    Args:
        staged: What `stage_probe_set` gives.
        repository: ``owner/name``.
        private: Create the repository as a private one; an existing one stays as it is.
        revision: Branch, or None for the main one.
        message: Of the commit.
        api: The hub's client, or None for one with the endpoint and the token of the environment.

    Raises:
        UserInputError: No token, a wrong one, or one that may not write there.
        UnusableOutputError: The repository holds something that is no probe set of ours.
        RunFailedError: The hub cannot be reached or answers with an error; run it again.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete  # noqa: PLC0415 - slow to load

    client = _client(api)
    if not _has_token(client):
        reason = f"no Hugging Face token, and pushing needs one that may write: {_LOGIN}"
        raise UserInputError(reason)
    with _hub_errors(repository, "push to"):
        client.create_repo(repository, repo_type="dataset", private=private or None, exist_ok=True)
        there, has_branch = _begin(client, repository, revision)
        names = {sibling.rfilename for sibling in there.siblings or ()}
        _refuse_others(repository, names)
        if revision is not None and not has_branch:
            client.create_branch(repository, repo_type="dataset", branch=revision, revision=there.sha, exist_ok=True)
        stale = sorted(name for name in names if _OUR_FILES.fullmatch(name) and name not in staged.files)
        additions = [CommitOperationAdd(path_in_repo=name, path_or_fileobj=path) for name, path in staged.files.items()]
        commit = client.create_commit(
            repository,
            [*additions, *(CommitOperationDelete(path_in_repo=name) for name in stale)],
            repo_type="dataset",
            revision=revision,
            parent_commit=there.sha,
            commit_message=message or "Publish a probe set",
        )
    return PushedSet(f"{client.endpoint}/datasets/{repository}", commit.oid, commit.oid != there.sha)


def _begin(client: "HfApi", repository: str, revision: str | None) -> "tuple[DatasetInfo, bool]":
    """What the push changes, and whether its branch is there: a new branch begins where the main one stands, and is made when nothing speaks against it."""
    from huggingface_hub.errors import RevisionNotFoundError  # noqa: PLC0415 - slow to load

    try:
        return client.dataset_info(repository, revision=revision), True
    except RevisionNotFoundError:
        if revision in (None, _MAIN):
            raise
        return client.dataset_info(repository), False


def _refuse_others(repository: str, names: set[str]) -> None:
    if PROBES_FILE not in names and not names <= _NEW_REPOSITORY:
        strange = sorted(names - _NEW_REPOSITORY)
        message = f"{repository} holds files and no probe set of ours ({strange[0]} and others, no {PROBES_FILE}): choose another repository"
        raise UnusableOutputError(message)


def pull_probe_set(reference: str, folder: Path, *, api: "HfApi | None" = None) -> PulledSet:
    """Fetch a probe set from the hub, at one commit, verified.

    Only files with the names of ours are fetched, whatever else the repository holds. The commit stands in `pulled.json`.

    Args:
        reference: ``owner/name``, or ``owner/name@revision`` for a branch, tag or commit.
        folder: Where to write it.
        api: The hub's client, or None for one with the endpoint and the token of the environment.

    Raises:
        UserInputError: ``reference`` has another form, or the token may not read it.
        UnreadableInputError: No such repository or revision, not reachable, no probe set of ours, or not what its `probes.yaml` says.
        StaleArtifactError: ``folder`` holds another probe set.
        UnusableOutputError: ``folder`` holds something else, or cannot be written.
    """
    match = _REFERENCE.fullmatch(reference)
    if match is None:
        message = f"'{reference}' is no repository: write owner/name or owner/name@revision"
        raise UserInputError(message)
    client, folder = _client(api), folder.resolve()
    repository, revision = match["name"], match["revision"]
    with _hub_errors(reference, "pull"):
        commit = client.dataset_info(repository, revision=revision).sha
        if commit is None:
            _refuse_reference(reference, "the hub names no commit")
        listed = [entry.path for entry in client.list_repo_tree(repository, repo_type="dataset", recursive=True, revision=commit)]
        names = sorted(name for name in listed if _OUR_FILES.fullmatch(name))
        if PROBES_FILE not in names:
            _refuse_reference(reference, f"no probe set of ours (no {PROBES_FILE}); read it with `lmdissect probes import {reference}`")
        snapshot = Path(client.snapshot_download(repository, repo_type="dataset", revision=commit, allow_patterns=names))
    output_folder(folder.parent)
    with output_guard(folder):
        temporary = Path(tempfile.mkdtemp(prefix=".tmp-", dir=folder.parent))
        try:
            for name in names:
                (temporary / name).parent.mkdir(exist_ok=True)
                shutil.copyfile(snapshot / name, temporary / name)
            _verify_pulled(reference, temporary, names)
            _write_card_anew(temporary, repository)
            write_json(temporary / PULLED_FILE, {"repository": repository, "revision": revision, "commit": commit})
            if _holds_same(folder, temporary):
                return PulledSet(repository, commit, "reused")
            replace_folder(temporary, folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return PulledSet(repository, commit, "written")


def _refuse_reference(reference: str, reason: str) -> NoReturn:
    message = f"{reference}: {reason}"
    raise UnreadableInputError(message)


def _verify_pulled(reference: str, folder: Path, names: list[str]) -> None:
    """Check every file against `probes.yaml`, and that against the texts."""
    probes = read_description(folder)
    named = {data_file(entry.split) for entry in probes.variants} | set(probes.audit.files if probes.audit is not None else ())
    if not named <= set(names):
        _refuse_reference(
            reference, f"{PROBES_FILE} names the file {min(named - set(names))!r}, which is not there; ask its publisher to push it again"
        )
    if damaged := damaged_files(folder, probes):
        _refuse_reference(reference, f"{', '.join(damaged)} not as {PROBES_FILE} says; ask its publisher to push it again")
    for name in set(names) - named:
        if name.endswith(".parquet"):
            (folder / name).unlink()  # of no split: nobody vouches for it
    collection = Collection()
    add_probe_folder(collection, folder, probes)
    if probe_fingerprint(describe_texts(collection, probes, reference, {})) != probes.fingerprint:
        _refuse_reference(reference, f"its texts are not those that {PROBES_FILE} names by its fingerprint; ask its publisher to push it again")


def _write_card_anew(folder: Path, repository: str) -> None:
    """Put a card of ours in the place of the published one: its header decides which files `datasets` opens, and no hash vouches for it."""
    probes = read_description(folder)
    collection = Collection()
    add_probe_folder(collection, folder, probes)
    _write_card(folder, describe_texts(collection, probes, probes.source, {}), probes, repository)


def _holds_same(folder: Path, pulled: Path) -> bool:
    """Whether ``folder`` holds what was pulled, intact; False where nothing, or a damaged copy of it, is in the way."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    if not (folder / PROBES_FILE).is_file():
        message = f"{folder} is there and holds no probe set of ours (no {PROBES_FILE}): choose a new or empty --out folder"
        raise UnusableOutputError(message)
    if (folder / PROBES_FILE).read_bytes() != (pulled / PROBES_FILE).read_bytes():
        message = f"{folder} holds another probe set, or another version of this one: choose another --out, or delete that folder first"
        raise StaleArtifactError(message)
    same = not damaged_files(folder, read_description(folder))
    if same:
        shutil.copyfile(pulled / PULLED_FILE, folder / PULLED_FILE)
    return same


def _client(api: "HfApi | None") -> "HfApi":
    from huggingface_hub import HfApi  # noqa: PLC0415 - slow to load

    return api if api is not None else HfApi(library_name="lmdissect")


def _has_token(client: "HfApi") -> bool:
    from huggingface_hub import get_token  # noqa: PLC0415 - slow to load

    return bool(client.token) if isinstance(client.token, str) else client.token is not False and get_token() is not None


@contextmanager
def _hub_errors(reference: str, action: Literal["push to", "pull"]) -> Iterator[None]:
    """Turn the errors of the hub's client into ours: one line, no token."""
    import httpx2  # noqa: PLC0415 - slow to load
    from huggingface_hub import errors  # noqa: PLC0415 - slow to load

    failed: type[LmdissectError] = RunFailedError if action == "push to" else UnreadableInputError
    try:
        yield
    except LmdissectError:
        raise
    except errors.OfflineModeIsEnabled as error:
        message = f"cannot {action} {reference}: HF_HUB_OFFLINE is set; unset it"
        raise failed(message) from error
    except errors.HFValidationError as error:
        message = f"'{reference}' is no repository of the hub: {_told(error)}"
        raise UserInputError(message) from error
    except errors.GatedRepoError as error:
        message = f"cannot {action} {reference}: its owner grants access one by one; ask for it on the hub's page, then {_LOGIN}"
        raise UserInputError(message) from error
    except errors.RevisionNotFoundError as error:
        message = f"cannot {action} {reference}: no such branch, tag or commit; check what stands after the @"
        raise UnreadableInputError(message) from error
    except errors.HfHubHTTPError as error:
        raise _http_error(reference, action, error.response.status_code, error, failed) from error
    except (httpx2.HTTPError, ConnectionError, TimeoutError, errors.LocalEntryNotFoundError) as error:
        message = f"cannot {action} {reference}: the hub cannot be reached ({_told(error)}); check the connection and run the same command again"
        raise failed(message) from error
    except (ValueError, RuntimeError, OSError) as error:
        status = _status_behind(error)
        if status is not None:
            raise _http_error(reference, action, status, error, failed) from error
        message = f"cannot {action} {reference}: {_told(error)}; run the same command again"
        raise failed(message) from error


def _http_error(reference: str, action: str, status: int, error: Exception, failed: type[LmdissectError]) -> LmdissectError:
    known: dict[int, tuple[type[LmdissectError], str]] = {
        401: (UserInputError, f"no such repository, or the token is missing or wrong; {_LOGIN}"),
        403: (UserInputError, "the token may not do that; use one with the right to write there"),
        404: (UnreadableInputError, f"no such repository, or a private one that the token may not see; check the name, or {_LOGIN}"),
        409: (failed, "somebody else is changing the repository; run the same command again"),
        412: (failed, "somebody else pushed to the repository meanwhile; run the same command again"),
    }
    kind, reason = known.get(status, (failed, f"{_told(error)}; run the same command again later"))
    return kind(f"cannot {action} {reference} (the hub says {status}): {reason}")


def _status_behind(error: BaseException) -> int | None:
    """HTTP status of the error that ``error`` was raised from, if there is one: uploads in threads wrap theirs."""
    from huggingface_hub import errors  # noqa: PLC0415 - slow to load

    cause = error.__cause__
    while cause is not None:
        if isinstance(cause, errors.HfHubHTTPError):
            return int(cause.response.status_code)
        cause = cause.__cause__
    return None


def _told(error: Exception) -> str:
    """An error's message on one line, short, and without the token or anything that looks like one."""
    from huggingface_hub import get_token  # noqa: PLC0415 - slow to load

    text = " ".join(str(error).split()) or type(error).__name__
    if token := get_token():
        text = text.replace(token, "…")
    text = _TOKEN.sub("hf_…", text)
    return text[:_SHOWN_ERROR_CHARS]
