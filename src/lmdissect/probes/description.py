"""What `probes.yaml` says of a probe set: the file whose rename makes a change of the folder take effect."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lmdissect.errors import UnreadableInputError
from lmdissect.plain_yaml import dump_yaml, read_yaml
from lmdissect.store import hash_file, write_text

__all__ = [
    "PROBES_FILE",
    "AuditEntry",
    "ProbesFile",
    "VariantEntry",
    "changed_files",
    "damaged_files",
    "data_file",
    "read_description",
    "recorded_files",
    "write_description",
]

PROBES_FILE = "probes.yaml"
_SCHEMA_VERSION: Literal[1] = 1


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class VariantEntry(_Frozen):
    """What `probes.yaml` says of one variant; null where it is not known."""

    variant: str
    split: str = Field(pattern=r"^\w+$", description="name of the split, and of its file data/SPLIT.parquet")
    sha256: str = Field(description="hash of that file")
    num_texts: int
    factor: str | None = Field(description="factor the variant changes; null for the original")
    prompt_hash: str | None
    instruction_hash: str | None = None
    generator: str | None = Field(description="who wrote it")
    audit: dict[str, Any] | None


class AuditEntry(_Frozen):
    """What `probes.yaml` says of an audit of the whole folder."""

    files: dict[str, str] = Field(description="audit.parquet and accepted/*.parquet with their hashes")
    settings: dict[str, Any] = Field(description="what decided: rules, similarity model, judge")


class ProbesFile(_Frozen):
    """Content of `probes.yaml`."""

    schema_version: Literal[1] = 1
    fingerprint: str = Field(description="hash of texts, pairing and factors")
    content_hash: str = Field(description="hash of everything that is stored but the import report")
    source: str
    licence: str | None = None
    variants: list[VariantEntry]
    audit: AuditEntry | None = None


def read_description(folder: Path) -> ProbesFile:
    """Content of a folder's `probes.yaml`.

    Raises:
        UnreadableInputError: It cannot be read, or was written by a newer version.
    """
    path = folder / PROBES_FILE
    try:
        content = read_yaml(path)
        version = content.get("schema_version") if isinstance(content, dict) else None
        if isinstance(version, int) and version > _SCHEMA_VERSION:
            message = f"{path} was written by a newer version of lmdissect (schema {version}): update lmdissect"
            raise UnreadableInputError(message)
        return ProbesFile.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        message = f"{path}: {where or 'content'}: {first['msg']}; mend it, or delete it to read the folder by its README.md"
        raise UnreadableInputError(message) from error
    except (ValueError, OSError, RecursionError) as error:
        message = f"{path} cannot be read ({' '.join(str(error).split())}); mend it, or delete it to read the folder by its README.md"
        raise UnreadableInputError(message) from error


def write_description(folder: Path, probes: ProbesFile) -> None:
    """Write `probes.yaml` atomically."""
    write_text(folder / PROBES_FILE, dump_yaml(probes.model_dump(mode="json")))


def data_file(split: str) -> str:
    """Name of the file that holds all texts of a split, as they were written."""
    return f"data/{split}.parquet"


def damaged_files(folder: Path, probes: ProbesFile, *, with_audit: bool = True) -> list[str]:
    """Names of files that are missing or not as they were written: the splits of `data/`, and the audit's files unless ``with_audit`` is off."""
    return changed_files(folder, recorded_files(probes, with_audit=with_audit))


def recorded_files(probes: ProbesFile, *, with_audit: bool = True) -> dict[str, str]:
    """Hash of every file of a probe folder, as `probes.yaml` has it: the splits of `data/`, and the audit's files unless ``with_audit`` is off."""
    splits = {data_file(entry.split): entry.sha256 for entry in probes.variants}
    return splits | (probes.audit.files if with_audit and probes.audit is not None else {})


def changed_files(folder: Path, recorded: Mapping[str, str]) -> list[str]:
    """Names of files that are missing or have another hash than the one recorded."""
    return [name for name, sha256 in recorded.items() if not (folder / name).is_file() or hash_file(folder / name) != sha256]
