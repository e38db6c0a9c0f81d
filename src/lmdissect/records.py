"""Frozen records that cross a stage border. One meaning per name; units end a name."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = [
    "NORMALIZATIONS",
    "AuditResult",
    "Document",
    "ExplorerSource",
    "FactorShift",
    "ProbeSet",
    "ProbeText",
    "RejectedRecord",
    "StudyGap",
    "StudyRun",
    "TextScores",
    "UnavailableRow",
    "Verdict",
    "WriterMatch",
]

NORMALIZATIONS = ("token", "byte", "document")
"""l/n, l/b and l of method.md, in nats per token, per byte and per document; in the order in which they are shown."""

WriterMatch: TypeAlias = Literal[
    "same writer and prompt frame", "same writer, prompts not recorded", "same writer, another prompt frame", "another writer", "not recorded"
]
"""How a variant's writer and prompt compare with the control's."""


@dataclass(frozen=True, slots=True)
class Document:
    """One text of a training corpus.

    Attributes:
        document_id: Unique within its corpus.
        text: The text itself.
        other_ids: Further ids it goes by: its PMID beside an archive's own id.
    """

    document_id: str
    text: str
    other_ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RejectedRecord:
    """One input record that was set aside: where it stood and why. Rejections are counted and named, never silent."""

    source: str
    record: str
    reason: str


@dataclass(frozen=True, slots=True)
class ProbeText:
    """One text of a probe set: an original or a variant of the document ``document_id``."""

    document_id: str
    variant: str
    text: str


@dataclass(frozen=True, slots=True)
class ProbeSet:
    """Originals and variants, paired by document id.

    Attributes:
        texts: All texts, in input order; (document_id, variant) is unique.
        factors: Factor of every variant name but ``original``, in report order.
        source: Where the set was read from, in the user's words.
        rejected: Records that were set aside while reading.
        generators: Who wrote each variant, where the set records it (variant name to a free text).
        prompt_hashes: Hash of the prompt frame each variant was written with, where known. Two variants with equal generator and prompt hash
            share their writer.
        instruction_hashes: Hash of what each variant's writer was told beyond the frame (instruction, what must stay, examples), where known.
        audits: Summary of the audit of each variant, where there was one: its keys are those of `AuditResult.summaries`. Texts that an audit
            rejected are not in ``texts``.
        licence: Terms under which the texts may be passed on, in the words of whoever made the set; None where not stated.
        metadata: Further fields of a document (document id to ``keywords``, a list of strings, and ``answer``, a string), where known.
    """

    texts: tuple[ProbeText, ...]
    factors: Mapping[str, str]
    source: str
    rejected: tuple[RejectedRecord, ...] = ()
    generators: Mapping[str, str] = field(default_factory=dict)
    prompt_hashes: Mapping[str, str] = field(default_factory=dict)
    instruction_hashes: Mapping[str, str] = field(default_factory=dict)
    audits: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    licence: str | None = None
    metadata: Mapping[str, Mapping[str, object]] = field(default_factory=dict)

    def by_variant(self) -> dict[str, dict[str, str]]:
        """Texts as ``{variant: {document_id: text}}``, variants in input order."""
        table: dict[str, dict[str, str]] = {}
        for text in self.texts:
            table.setdefault(text.variant, {})[text.document_id] = text.text
        return table


@dataclass(frozen=True, slots=True)
class Verdict:
    """What an audit says of one variant text.

    Attributes:
        document_id: Its document.
        variant: Its variant.
        accepted: Whether it keeps to every rule of its variant.
        reasons: The rules it broke, each in one line; empty where it was accepted.
        measures: What was measured of the pair, by name; a quantity that could not be measured is absent.
    """

    document_id: str
    variant: str
    accepted: bool
    reasons: tuple[str, ...]
    measures: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class AuditResult:
    """Outcome of the audit of a probe set.

    Attributes:
        verdicts: One for every variant text whose document has an original, in the order of the set.
        summaries: For every audited variant a mapping of JSON types: num_texts, num_accepted, acceptance_rate, rejected_by_rule (measure to number of
            texts that broke its rule), not_measured (names of measures whose rules could not be applied), medians (measure to median).
        settings: What decided: rules by variant, rules_of_any (variants that had the rules for any factor), rules_hash, similarity model, judge; JSON types.
    """

    verdicts: tuple[Verdict, ...]
    summaries: Mapping[str, Mapping[str, object]]
    settings: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class TextScores:
    """Token scores of one text under one model.

    All arrays have shape (n,) for the n kept tokens of the text (a token limit may keep fewer than there are).

    Attributes:
        token_id: Vocabulary ids of the text's own tokens (no prefix).
        char_start: First character each token covers, as an index into the text.
        char_end: One past the last character each token covers.
        logprob_nats: float32 log-probability of each token given its context; NaN marks a token without a score (the first token where the
            model gets no prefix). NaN is never stored: on disk it is null.
        num_tokens: Tokens of the whole text, before a limit.
        num_scored: Tokens with a score, n(x).
        num_scored_bytes: UTF-8 bytes of the text that the scored tokens cover, b(x).
        truncated: Whether a token limit cut the text.
    """

    token_id: npt.NDArray[np.int32]
    char_start: npt.NDArray[np.int32]
    char_end: npt.NDArray[np.int32]
    logprob_nats: npt.NDArray[np.float32]
    num_tokens: int
    num_scored: int
    num_scored_bytes: int
    truncated: bool

    @property
    def total_logprob_nats(self) -> float:
        """l(x): sum of the scores, added up in float64."""
        return float(np.nansum(self.logprob_nats.astype(np.float64)))


@dataclass(frozen=True, slots=True, kw_only=True)
class FactorShift:
    """One row of the shift table: how far finetuning moved one factor. Columns as in docs/file-formats.md."""

    base_model: str
    tuned_model: str
    factor: str
    variant: str
    reference: str
    normalization: str
    estimate: float
    ci_low: float
    ci_high: float
    level: float
    ci_method: str
    p_value: float
    p_holm: float
    num_documents: int
    base_contrast: float
    tuned_contrast: float
    gain: float
    share: float | None
    share_ci_low: float | None
    share_ci_high: float | None


@dataclass(frozen=True, slots=True)
class UnavailableRow:
    """A number that could not be computed, and why. Listed in the manifest, never written as an empty estimate."""

    table: str
    variant: str
    reference: str
    normalization: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyRun:
    """One tuned model against its base on one probe set, as a study sees it.

    Attributes:
        experiment: Name of the experiment it belongs to.
        point: Label of its varied settings, without the seed; runs of one point differ in the training seed alone.
        fields: Varied settings by dotted name, in JSON types; None for an absent one (full finetuning).
        seed: Training seed.
        probes: Name of the probe set.
        base_model: The base model as the user named it.
        tuned_model: The tuned model, likewise.
        training_documents: Documents it was trained on, where known.
        num_target_tokens: Tokens it was trained on, where known.
        training_corpus: Which corpus, where known.
        step: Optimiser step at which it was measured on its way; None at the end.
        writers: Who wrote each variant, where known.
        natural: Whether the variants are natural texts, written by people.
        shift_folder: Its shift artifact.
        base_scores: Scores artifact of the base, where it is kept.
        tuned_scores: Scores artifact of the tuned model, where it is kept.
    """

    experiment: str
    point: str
    fields: Mapping[str, Any]
    seed: int
    probes: str
    base_model: str
    tuned_model: str
    training_documents: int | None = None
    num_target_tokens: int | None = None
    training_corpus: str | None = None
    step: int | None = None
    writers: Mapping[str, str] = field(default_factory=dict)
    natural: bool = False
    shift_folder: Path
    base_scores: Path | None = None
    tuned_scores: Path | None = None


@dataclass(frozen=True, slots=True)
class StudyGap:
    """Something that a study could not compute, and why. Listed in its manifest, never written as an empty estimate.

    ``variant`` is ``all`` where the reason holds for all of them.
    """

    table: str
    experiment: str
    point: str
    probes: str
    variant: str
    reason: str


@dataclass(frozen=True, slots=True)
class ExplorerSource:
    """The run whose texts a report shows token by token: scores of the base and of the tuned model on the same texts, and what to call it."""

    base_scores: Path
    tuned_scores: Path
    label: str
