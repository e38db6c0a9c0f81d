"""The cloze artifact: terms, each with the text before it and the strings that compete for its place, and what two models make of them.

    terms.parquet         one row per term: term_id, document_id, variant, kind, selections, context, true_term, other_term, distractors, copied, context_cut,
                          text_hash
    cloze.parquet, .csv   the table `cloze` of `lmdissect.formats.study_tables`
    scores/base, tuned*   scores artifacts of every context + candidate; `document_id` is the term's id, `variant` the candidate's name

`details` holds: base_model, tuned_models (one per training seed), probes, settings, left_out (reason to number of terms), unavailable (as in a study), level.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import pyarrow as pa

from lmdissect.factors import ORIGINAL
from lmdissect.records import ProbeSet, ProbeText
from lmdissect.store import Manifest, read_artifact, read_table

__all__ = ["OTHER", "STAGE", "ClozeTerm", "candidate_texts", "read_cloze", "term_table"]

STAGE = "cloze"
OTHER = "other"
"""Name of the text that ends in the counterfactual's term; the one with the true term is `original`."""

_DISTRACTOR = "distractor"
_SCHEMA = pa.schema(
    [
        ("term_id", pa.string()),
        ("document_id", pa.string()),
        ("variant", pa.string()),
        ("kind", pa.string()),
        ("selections", pa.list_(pa.string())),
        ("context", pa.string()),
        ("true_term", pa.string()),
        ("other_term", pa.string()),
        ("distractors", pa.list_(pa.string())),
        ("copied", pa.bool_()),
        ("context_cut", pa.bool_()),
        ("text_hash", pa.string()),
    ]
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClozeTerm:
    """One place of an original, and what could stand there.

    Attributes:
        term_id: ``document#number``: the document id of its texts in the scores.
        document_id: The document.
        variant: The variant that has another term in this place; ``original`` for a listed key term, which is compared with distractors alone.
        kind: number, named, key_term or words: distractors are of the same kind.
        selections: Selections that it was drawn for (see `lmdissect.formats.study_tables`, table cloze).
        context: The original's text before the term, up to and including the space.
        true_term: What stands there.
        other_term: What the variant has instead, or None.
        distractors: Terms of other documents.
        copied: Whether every content word of the true term, or of the other one, stands in the context already: it can be copied.
        context_cut: Whether the original has more text before the term than ``context``.
        text_hash: SHA-256 (hex) of the original, by which a study knows whose document it is.
    """

    term_id: str
    document_id: str
    variant: str
    kind: str
    selections: tuple[str, ...]
    context: str
    true_term: str
    other_term: str | None
    distractors: tuple[str, ...]
    copied: bool
    context_cut: bool
    text_hash: str

    @property
    def candidates(self) -> dict[str, str]:
        """Name and text of every candidate, the true term first."""
        other = {} if self.other_term is None else {OTHER: self.other_term}
        return {ORIGINAL: self.true_term, **other, **{f"{_DISTRACTOR}_{number}": text for number, text in enumerate(self.distractors, start=1)}}


def candidate_texts(terms: Sequence[ClozeTerm], source: str) -> ProbeSet:
    """Context + candidate, for every term and candidate, as a probe set for the scoring stage."""
    texts = [ProbeText(term.term_id, name, term.context + text) for term in terms for name, text in term.candidates.items()]
    names = dict.fromkeys(text.variant for text in texts if text.variant != ORIGINAL)
    return ProbeSet(texts=tuple(texts), factors=dict.fromkeys(names, "factual"), source=source)


def term_table(terms: Sequence[ClozeTerm]) -> pa.Table:
    """The terms as a table."""
    return pa.Table.from_pylist([asdict(term) for term in terms], schema=_SCHEMA)


def read_cloze(folder: Path) -> tuple[Manifest, tuple[ClozeTerm, ...], list[dict[str, Any]]]:
    """Manifest, terms and rows of the table `cloze` of a cloze artifact, verified.

    Raises:
        UnreadableInputError: No finished cloze artifact there.
        DamagedArtifactError: A file is missing or changed.
    """
    manifest = read_artifact(folder, STAGE)
    terms = tuple(_term(row) for row in read_table(folder / "terms.parquet").to_pylist())
    return manifest, terms, read_table(folder / "cloze.parquet").to_pylist()


def _term(row: Mapping[str, Any]) -> ClozeTerm:
    values = {field.name: row[field.name] for field in fields(ClozeTerm)}
    return ClozeTerm(**{**values, "selections": tuple(values["selections"]), "distractors": tuple(values["distractors"])})
