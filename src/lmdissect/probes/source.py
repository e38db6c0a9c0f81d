"""Where a probe set can be read from."""

import re
from collections.abc import Mapping
from pathlib import Path

from lmdissect.errors import NothingToDoError, UserInputError
from lmdissect.factors import ORIGINAL, resolve_factors
from lmdissect.probes.collection import Collection
from lmdissect.probes.folder import PROBES_FILE, ProbesFile, read_probe_folder
from lmdissect.probes.hub import add_hub_folder, add_hub_id, is_hub_id
from lmdissect.probes.layouts import add_control_row, add_row
from lmdissect.probes.rows import ROW_SUFFIXES, read_rows, row_suffix
from lmdissect.records import ProbeSet

__all__ = ["read_probe_set"]

_FACTOR = re.compile(r"[a-z0-9_+-]+")


def read_probe_set(source: str, *, factors: Mapping[str, str] | None = None, control: str | None = None) -> ProbeSet:
    """Read originals and variants, paired by document id, from any form probe sets are found in.

    Records that cannot be used are set aside in ``ProbeSet.rejected`` with place and reason; texts are kept exactly as given.

    Args:
        source: Our folder; a folder or Hugging Face dataset id (``owner/name``, ``@revision``) with one split per variant; the paper's JSON list;
            natural pairs as JSON lines; or long-form JSON lines, CSV or Parquet with the columns document_id, variant and text. Text files may be
            gzip-compressed.
        factors: Factor of variants (name to factor); wins over what the set and the built-in mapping say.
        control: File with rewrites that change nothing (fields id, original_corpus, paraphrase_corpus), taken as the variant ``paraphrase`` where
            id and original agree with the set.

    Raises:
        UnreadableInputError: The source is missing, broken as a whole, or of no form we read.
        NothingToDoError: No usable text is in it.
        UserInputError: A factor is not a word, a variant has none, or the control has no rewrite of any document.
    """
    given = _checked_factors(factors or {})
    collection = Collection()
    probes = _collect(collection, source, given)
    if control is not None:
        before = len(collection.texts)
        for row in read_rows(Path(control), collection.rejecter(control)):
            add_control_row(collection, control, row)
        if len(collection.texts) == before:
            first = f" (first: {collection.rejected[-1].reason})" if collection.rejected else ""
            message = f"{control}: no rewrite in it belongs to {source}: ids and originals must agree{first}"
            raise UserInputError(message)
    texts = collection.texts
    if not texts:
        first = f"; first: {collection.rejected[0].record}: {collection.rejected[0].reason}" if collection.rejected else ""
        message = f"{source}: no usable text in it ({len(collection.rejected)} records set aside{first})"
        raise NothingToDoError(message)
    entries = {entry.variant: entry for entry in probes.variants} if probes is not None else {}
    recorded = {name: entry.factor for name, entry in entries.items() if entry.factor is not None}
    return ProbeSet(
        texts=texts,
        factors=resolve_factors(dict.fromkeys(text.variant for text in texts), {**recorded, **given}),
        source=source if control is None else f"{source} with the control {control}",
        rejected=tuple(collection.rejected),
        generators={name: entry.generator for name, entry in entries.items() if entry.generator is not None},
        prompt_hashes={name: entry.prompt_hash for name, entry in entries.items() if entry.prompt_hash is not None},
        audits={name: entry.audit for name, entry in entries.items() if entry.audit is not None},
        metadata=collection.metadata,
    )


def _checked_factors(factors: Mapping[str, str]) -> dict[str, str]:
    for variant, factor in factors.items():
        if variant == ORIGINAL:
            message = f"'{ORIGINAL}' is what variants are compared with and has no factor: leave out {ORIGINAL}={factor}"
            raise UserInputError(message)
        if _FACTOR.fullmatch(factor) is None:
            message = f"factor {factor!r} of variant '{variant}' is not a word of a-z, 0-9, _, + and -: write for example {variant}=style"
            raise UserInputError(message)
    return dict(factors)


def _collect(collection: Collection, source: str, factors: Mapping[str, str]) -> ProbesFile | None:
    """Take all texts of ``source``; what `probes.yaml` says, where there is one."""
    path = Path(source)
    if path.is_dir():
        if (path / PROBES_FILE).is_file():
            return read_probe_folder(collection, path)
        add_hub_folder(collection, path, factors)
    elif path.exists() or not is_hub_id(source) or row_suffix(path) in ROW_SUFFIXES or path.parent.is_dir():  # a misspelt local path is no hub id
        for row in read_rows(path, collection.rejecter(source)):
            add_row(collection, source, row, factors)
    else:
        add_hub_id(collection, source, factors)
    return None
