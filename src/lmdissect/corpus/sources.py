"""What a corpus is made from: which kind of source each argument is, in which order they count, and their hashes.

The order of the arguments never matters. Files named as NLM names them (`pubmed26n1275.xml.gz`) come by year and number, so that update files follow the
baseline; then other files and hub datasets, by name.
"""

import os
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lmdissect.corpus.checksums import checked_hash
from lmdissect.corpus.folder import corpus_shards
from lmdissect.corpus.pubmed import is_pubmed_xml
from lmdissect.corpus.read import check_name, distinct_labels
from lmdissect.corpus.rows import ROW_FORMATS, row_format
from lmdissect.errors import LmdissectError, UnreadableInputError
from lmdissect.progress import Progress, SilentProgress
from lmdissect.store import fingerprint

__all__ = ["HUB_PREFIX", "HubDataset", "Source", "find_sources", "parse_hub"]

HUB_PREFIX = "hub:"
_HUB_FORM = f"{HUB_PREFIX}OWNER/NAME[@REVISION][:[CONFIG/]SPLIT]"
_HUB = re.compile(r"hub:(?P<name>[^@:]+)(@(?P<revision>[\w./-]+))?(:((?P<config>[^/:]+)/)?(?P<split>[^/:]+))?")
_NLM_NAME = re.compile(r"(?:pubmed|medline)(\d\d)n(\d+)\.xml(?:\.gz)?")
_DEFAULT_CONFIG = "default"
_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class HubDataset:
    """One split of a Hugging Face dataset; ``name`` is a hub id or a folder."""

    name: str
    revision: str | None
    config: str | None
    split: str


@dataclass(frozen=True, slots=True)
class Source:
    """One file, or one split of a hub dataset.

    Attributes:
        kind: `pubmed` (citations with versions), `rows` (a file of records) or `hub`.
        location: Path, or the argument of a hub dataset with its revision pinned.
        label: Its name in ids and messages; no two sources have the same.
        sha256: Hash of the file; of a hub dataset its revision.
        size_bytes: Size of the file; 0 of a hub dataset.
    """

    kind: Literal["pubmed", "rows", "hub"]
    location: str
    label: str
    sha256: str
    size_bytes: int


def find_sources(arguments: Sequence[str], progress: Progress | None = None) -> list[Source]:
    """Sources that the arguments name, in the order in which they count, hashed.

    A folder that `lmdissect corpus` made stands for its files (`DIR#train` for those of one split). A file with an `.md5` beside it is checked.
    A file or dataset that is named twice, whatever the spelling, counts once.

    Raises:
        UnreadableInputError: A file is missing, of no known form, or does not match its `.md5`; or a hub dataset cannot be reached.
        DamagedArtifactError: A file of a corpus folder is missing or changed.
    """
    hubs = [_hub_source(argument) for argument in sorted(set(arguments)) if argument.startswith(HUB_PREFIX)]
    paths = _distinct_files([argument for argument in arguments if not argument.startswith(HUB_PREFIX)])
    kinds = [_kind(path) for path in paths]
    hashes = _hash_all(paths, progress or SilentProgress())
    labels = distinct_labels([path.absolute() for path in paths])
    files = [
        Source(kind, str(path), label, sha256, path.stat().st_size) for path, kind, label, sha256 in zip(paths, kinds, labels, hashes, strict=True)
    ]
    return [*sorted(files, key=_order), *_distinct_hubs(hubs)]


def _distinct_files(arguments: Sequence[str]) -> list[Path]:
    """Each file once, however often and by whatever path it is named."""
    found: dict[Path, Path] = {}
    for argument in sorted(arguments):
        check_name(Path(argument))
        shards = corpus_shards(Path(argument))
        for path in shards if shards is not None else [Path(argument)]:
            found.setdefault(path.resolve(), path)
    return list(found.values())


def _distinct_hubs(sources: Sequence[Source]) -> list[Source]:
    """Each split of a dataset once: one at a revision, and one at none that stands at the same, are the same."""
    found: dict[tuple[str, str, str, str], Source] = {}
    for source in sorted(sources, key=lambda source: source.label):
        dataset = parse_hub(source.location)
        name = str(Path(dataset.name).resolve()) if Path(dataset.name).is_dir() else dataset.name
        found.setdefault((name, source.sha256, dataset.config or _DEFAULT_CONFIG, dataset.split), source)
    return list(found.values())


def _order(source: Source) -> tuple[int, int, int, str, str]:
    """NLM's files by year and number, other citations next, and then the rest, each by name."""
    found = _NLM_NAME.fullmatch(Path(source.location).name) if source.kind == "pubmed" else None
    if found is not None:
        return 0, int(found[1]), int(found[2]), source.label, source.sha256
    return 1 if source.kind == "pubmed" else 2, 0, 0, source.label, source.sha256


def _kind(path: Path) -> Literal["pubmed", "rows"]:
    if not path.is_file():
        message = f"{path}: no such file" + (", but a folder that holds no corpus: name its files" if path.is_dir() else "; check the path")
        raise UnreadableInputError(message)
    if row_format(path) is not None:
        return "rows"
    if is_pubmed_xml(path) or path.name.lower().removesuffix(".gz").endswith(".xml"):  # a damaged XML file is named with its place when it is read
        return "pubmed"
    message = f"{path}: neither PubMed XML nor one of {', '.join(ROW_FORMATS)} (the text ones also .gz); check the file, or convert it"
    raise UnreadableInputError(message)


def _hash_all(paths: Sequence[Path], progress: Progress) -> list[str]:
    total = sum(path.stat().st_size for path in paths)
    hashes: list[str] = []
    with progress.task("checking files", total // _MIB, "MiB") as task, ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as threads:
        try:
            for path, found in zip(paths, threads.map(checked_hash, paths), strict=True):
                hashes.append(found)
                task.advance(path.stat().st_size // _MIB)
        except BaseException:
            threads.shutdown(wait=False, cancel_futures=True)
            raise
    return hashes


def parse_hub(argument: str) -> HubDataset:
    """``hub:allenai/c4@REVISION:en/validation`` in its parts; without a split it is ``train``.

    Raises:
        UnreadableInputError: It has another form.
    """
    found = _HUB.fullmatch(argument)
    if found is None:
        message = f"{argument}: not of the form {_HUB_FORM}"
        raise UnreadableInputError(message)
    return HubDataset(found["name"], found["revision"], found["config"], found["split"] or "train")


def _hub_source(argument: str) -> Source:
    check_name(Path(argument))
    dataset = parse_hub(argument)
    place = f":{dataset.config}/{dataset.split}" if dataset.config else f":{dataset.split}"
    if Path(dataset.name).is_dir():
        files = sorted(path for path in Path(dataset.name).rglob("*") if path.is_file() and not path.name.startswith("."))
        for path in files:
            check_name(path)
        digest = fingerprint([[path.relative_to(dataset.name).as_posix(), checked_hash(path)] for path in files])
        return Source("hub", argument, f"{HUB_PREFIX}{dataset.name}{place}", digest, 0)
    revision = _pinned_revision(dataset)
    asked = f"@{dataset.revision}" if dataset.revision is not None else ""
    return Source("hub", f"{HUB_PREFIX}{dataset.name}@{revision}{place}", f"{HUB_PREFIX}{dataset.name}{asked}{place}", revision, 0)


def _pinned_revision(dataset: HubDataset) -> str:
    """The commit that the dataset stands at, so that a run that is resumed reads the same records."""
    from huggingface_hub import HfApi  # noqa: PLC0415 - slow to load

    try:
        return str(HfApi().dataset_info(dataset.name, revision=dataset.revision).sha)
    except LmdissectError:  # Ctrl-C
        raise
    except Exception as error:  # the hub's client raises errors of many libraries, all of which mean the same here
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        message = (
            f"{HUB_PREFIX}{dataset.name}: no such folder, and not to be had as a Hugging Face dataset: {reason}; check the name or the connection"
        )
        raise UnreadableInputError(message) from error
