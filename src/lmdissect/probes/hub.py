"""Probe sets in hub layout, one split per variant: folders as they lie on a disk, and Hugging Face dataset ids."""

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from lmdissect.errors import LmdissectError, UnreadableInputError
from lmdissect.plain_yaml import parse_yaml
from lmdissect.probes.collection import Collection
from lmdissect.probes.layouts import add_split_row
from lmdissect.probes.rows import ROW_SUFFIXES, Row, read_rows, row_suffix

__all__ = ["add_hub_folder", "add_hub_id", "is_hub_id"]

_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w.-]+(@[\w./-]+)?")
_SHARD = re.compile(r"-\d{5}-of-\d{5}.*$")
_NOT_DATA = frozenset({"import_report.json", "dataset_infos.json"})


def is_hub_id(source: str) -> bool:
    """Whether ``source`` has the form ``owner/name`` or ``owner/name@revision``."""
    return _HUB_ID.fullmatch(source) is not None


def add_hub_folder(collection: Collection, folder: Path, factors: Mapping[str, str]) -> None:
    """Take the texts of a folder in hub layout.

    The splits are those of the ``configs:`` header of its README.md; without one, the files in it and in its ``data`` folder, each named after
    its split (``casual.jsonl``, ``data/casual-00000-of-00001.parquet``).

    Raises:
        UnreadableInputError: The folder holds no split, or a file of one cannot be read.
    """
    if (folder / "dataset_dict.json").is_file():
        add_hub_id(collection, str(folder), factors)
        return
    splits = _listed_splits(folder) or _named_splits(folder)
    if not splits:
        message = f"{folder}: holds no probes.yaml, no README.md with a configs header, and no file named after a variant; check the path"
        raise UnreadableInputError(message)
    for split, path in splits:
        source = str(path)
        for row in read_rows(path, collection.rejecter(source)):
            add_split_row(collection, source, split, row, factors)


def _listed_splits(folder: Path) -> list[tuple[str, Path]]:
    """Splits and files of the README's header, in its order."""
    configs = _header(folder / "README.md").get("configs")
    named = [config for config in configs if isinstance(config, dict)] if isinstance(configs, list) else []
    chosen = next((config for config in named if config.get("default") or config.get("config_name") == "default"), named[0] if named else None)
    entries = chosen.get("data_files") if chosen is not None else None
    found: list[tuple[str, Path]] = []
    for entry in entries if isinstance(entries, list) else []:
        if isinstance(entry, dict) and isinstance(entry.get("split"), str):
            patterns = entry.get("path")
            for pattern in patterns if isinstance(patterns, list) else [patterns]:
                found.extend((entry["split"], path) for path in _matching(folder, str(pattern)))
    return found


def _matching(folder: Path, pattern: str) -> list[Path]:
    """Files inside ``folder`` that the pattern of a header names; the header may not reach outside."""
    message = f"{folder}/README.md: its configs header names {pattern!r}, and no such file lies in the folder; mend the header"
    if Path(pattern).is_absolute() or ".." in Path(pattern).parts:
        raise UnreadableInputError(message)
    paths = sorted(path for path in folder.glob(pattern) if path.is_file())
    if not paths:
        raise UnreadableInputError(message)
    return paths


def _header(readme: Path) -> Mapping[str, object]:
    """YAML header of a dataset card; empty where there is none."""
    if not readme.is_file():
        return {}
    try:
        text = readme.read_text(encoding="utf-8")
        parts = re.split(r"^---[ \t]*\r?\n", text, maxsplit=2, flags=re.MULTILINE)
        header = parse_yaml(parts[1]) if len(parts) == 3 and not parts[0].strip() else None
    except (ValueError, OSError) as error:
        message = f"{readme}: its YAML header cannot be read ({' '.join(str(error).split())}); mend or remove it"
        raise UnreadableInputError(message) from error
    return header if isinstance(header, dict) else {}


def _named_splits(folder: Path) -> list[tuple[str, Path]]:
    paths = sorted(path for part in (folder, folder / "data") for path in part.glob("*") if path.is_file())
    data = [path for path in paths if row_suffix(path) in ROW_SUFFIXES and path.name not in _NOT_DATA and not path.name.startswith(".")]
    return [(_SHARD.sub("", path.name.split(".")[0]), path) for path in data]


def add_hub_id(collection: Collection, source: str, factors: Mapping[str, str]) -> None:
    """Take the texts of a Hugging Face dataset, ``owner/name`` or ``owner/name@revision``, or of a folder its ``save_to_disk`` wrote.

    Raises:
        UnreadableInputError: There is no such dataset, or it cannot be fetched and is not in the cache.
    """
    for split, rows in _load_splits(source).items():
        for row in rows:
            add_split_row(collection, source, split, row, factors)


def _load_splits(source: str) -> dict[str, Iterator[Row]]:
    import datasets  # noqa: PLC0415 - takes seconds to load

    name, _, revision = source.partition("@")
    try:
        loaded = datasets.load_from_disk(source) if Path(source).is_dir() else datasets.load_dataset(name, revision=revision or None)
    except LmdissectError:  # Ctrl-C
        raise
    except Exception as error:  # the hub's client raises errors of many libraries, all of which mean the same here
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        what = "cannot be read as a saved dataset" if Path(source).is_dir() else "no such file or folder, and not to be had as a Hugging Face dataset"
        offline = " (HF_HUB_OFFLINE is set)" if os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"} else ""
        message = f"{source}: {what}{offline}: {reason}; check the name or the connection"
        raise UnreadableInputError(message) from error
    return {str(split): _numbered(loaded[split]) for split in loaded}


def _numbered(rows: "Iterator[Mapping[str, object]]") -> Iterator[Row]:
    for number, fields in enumerate(rows, start=1):
        yield Row(f"row {number}", fields)
