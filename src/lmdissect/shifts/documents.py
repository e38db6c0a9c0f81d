"""The table `documents` of a shift artifact: what both models make of every text, from which a study of many runs is computed."""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from lmdissect.alignment import kept_word_share
from lmdissect.factors import ORIGINAL
from lmdissect.formats.shift_tables import SCHEMAS
from lmdissect.shifts.pairs import PairedScores
from lmdissect.shifts.resampling import Floats
from lmdissect.store import hash_text

__all__ = ["document_table", "kept_word_shares"]

_HASH_DIGITS = 16


def kept_word_shares(paired: PairedScores) -> dict[str, Floats]:
    """Share of the original's words that each document's variant keeps: ``[variant]`` -> shape (D,), NaN where there is no such text."""
    table = paired.base
    shares = {variant: np.full(len(paired.documents), np.nan) for variant in paired.factors}
    for variant, shares_D in shares.items():
        for number, document_id in enumerate(paired.documents):
            row = table.rows.get((document_id, variant))
            if row is not None:
                shares_D[number] = kept_word_share(table.texts[table.rows[document_id, ORIGINAL]], table.texts[row])
    return shares


def document_table(paired: PairedScores, kept_words: Mapping[str, Floats]) -> pa.Table:
    """One row per text and normalization that has a value under both models.

    Args:
        paired: The scores.
        kept_words: ``[variant]`` -> shape (D,), as `kept_word_shares` gives it.
    """
    parts: list[pa.Table] = []
    document_ids = np.asarray(paired.documents, dtype=object)
    for variant in (ORIGINAL, *paired.factors):
        hashes = np.asarray([_hash(paired, document_id, variant) for document_id in paired.documents], dtype=object)
        kept_D = kept_words.get(variant)
        for normalization in paired.normalizations:
            base_D, tuned_D = paired.base_values[normalization][variant], paired.tuned_values[normalization][variant]
            here = ~np.isnan(base_D + tuned_D)
            count = int(here.sum())
            columns = {
                "document_id": document_ids[here].tolist(),
                "variant": [variant] * count,
                "normalization": [normalization] * count,
                "base_value": base_D[here],
                "tuned_value": tuned_D[here],
                "truncated": paired.truncated[variant][here],
                "kept_words": [None] * count if kept_D is None else kept_D[here],
                "text_hash": hashes[here].tolist(),
            }
            parts.append(pa.table(columns, schema=SCHEMAS["documents"]))
    return pa.concat_tables(parts)


def _hash(paired: PairedScores, document_id: str, variant: str) -> str | None:
    row = paired.base.rows.get((document_id, variant))
    return None if row is None else hash_text(paired.base.texts[row])[:_HASH_DIGITS]
