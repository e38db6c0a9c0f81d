"""Where a probe set can be read from."""

import re
from collections.abc import Mapping
from pathlib import Path

from lmdissect.errors import NothingToDoError, UserInputError
from lmdissect.factors import ORIGINAL
from lmdissect.probes.audited import rejected_texts
from lmdissect.probes.collection import Collection
from lmdissect.probes.description import PROBES_FILE, ProbesFile
from lmdissect.probes.folder import add_probe_folder, describe_texts, verify_probe_folder
from lmdissect.probes.hub import add_hub_folder, add_hub_id, is_hub_id
from lmdissect.probes.layouts import add_control_row, add_row
from lmdissect.probes.rows import ROW_SUFFIXES, read_rows, row_suffix
from lmdissect.records import ProbeSet

__all__ = ["MADE_PROBES", "probe_folder", "read_probe_set"]

MADE_PROBES = "probes"
"""Where `lmdissect rewrite` puts the probe set inside its output folder."""

_FACTOR = re.compile(r"[a-z0-9_+-]+")


def read_probe_set(source: str, *, factors: Mapping[str, str] | None = None, control: str | None = None, include_rejected: bool = False) -> ProbeSet:
    """Read originals and variants, paired by document id, from any form probe sets are found in.

    Records that cannot be used are set aside in ``ProbeSet.rejected`` with place and reason; texts are kept exactly as given.

    Args:
        source: Our folder; a folder or Hugging Face dataset id (``owner/name``, ``@revision``) with one split per variant; the paper's JSON list;
            natural pairs as JSON lines; or long-form JSON lines, CSV or Parquet with the columns document_id, variant and text. Text files may be
            gzip-compressed.
        factors: Factor of variants (name to factor); wins over what the set and the built-in mapping say.
        control: File with rewrites that change nothing (fields id, original_corpus, paraphrase_corpus), taken as the variant ``paraphrase`` where
            id and original agree with the set.
        include_rejected: Take the texts too that the set's audit rejected (an audit or a human review wants them); the audit may then be damaged.

    Raises:
        UnreadableInputError: The source is missing, broken as a whole, or of no form we read.
        NothingToDoError: No usable text is in it.
        UserInputError: A factor is not a word, a variant has none, or the control has no rewrite of any document.
    """
    given = _checked_factors(factors or {})
    collection = Collection()
    probes = _collect(collection, source, given, include_rejected=include_rejected)
    if control is not None:
        before = len(collection.texts)
        for row in read_rows(Path(control), collection.rejecter(control)):
            add_control_row(collection, control, row)
        if len(collection.texts) == before:
            first = f" (first: {collection.rejected[-1].reason})" if collection.rejected else ""
            message = f"{control}: no rewrite in it belongs to {source}: ids and originals must agree{first}"
            raise UserInputError(message)
    if not collection.texts:
        first = f"; first: {collection.rejected[0].record}: {collection.rejected[0].reason}" if collection.rejected else ""
        message = f"{source}: no usable text in it ({len(collection.rejected)} records set aside{first})"
        raise NothingToDoError(message)
    return describe_texts(collection, probes, source if control is None else f"{source} with the control {control}", given)


def probe_folder(source: str) -> Path | None:
    """The probe folder of ours that ``source`` names: itself, or the one inside a rewriting run's folder; None for anything else."""
    candidates = (Path(source), Path(source) / MADE_PROBES)
    return next((path for path in candidates if (path / PROBES_FILE).is_file()), None)


def _checked_factors(factors: Mapping[str, str]) -> dict[str, str]:
    for variant, factor in factors.items():
        if variant == ORIGINAL:
            message = f"'{ORIGINAL}' is what variants are compared with and has no factor: leave out {ORIGINAL}={factor}"
            raise UserInputError(message)
        if _FACTOR.fullmatch(factor) is None:
            message = f"factor {factor!r} of variant '{variant}' is not a word of a-z, 0-9, _, + and -: write for example {variant}=style"
            raise UserInputError(message)
    return dict(factors)


def _collect(collection: Collection, source: str, factors: Mapping[str, str], *, include_rejected: bool) -> ProbesFile | None:
    """Take all texts of ``source``; what `probes.yaml` says, where there is one."""
    path = probe_folder(source) or Path(source)
    if path.is_dir():
        if (path / PROBES_FILE).is_file():
            probes = verify_probe_folder(path, with_audit=not include_rejected)
            add_probe_folder(collection, path, probes, without=() if include_rejected else rejected_texts(path))
            return probes
        add_hub_folder(collection, path, factors)
    elif path.exists() or not is_hub_id(source) or row_suffix(path) in ROW_SUFFIXES or path.parent.is_dir():  # a misspelt local path is no hub id
        for row in read_rows(path, collection.rejecter(source)):
            add_row(collection, source, row, factors)
    else:
        add_hub_id(collection, source, factors)
    return None
