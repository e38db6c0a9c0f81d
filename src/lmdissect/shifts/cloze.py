"""Cloze scoring: how likely the true term is in its own context, against the counterfactual's and against terms of other documents.

    L_m(c)       = log p_m(c | context), the sum over the tokens of context + c that come after what all candidates of the term share
    contrast_m   = L_m(true term) - L_m(counterfactual's term)          log odds of true against false in the true context
    rank_m       = 1 + number of candidates with a larger L_m + half of the ties
    first_m      = 1 if no other candidate has as large an L_m, else 0

Per document the mean over its terms, and of these tuned - base: mean over documents, interval, test. A token that straddles the border between context and
term is counted for the term; the tokens in front of it are the same for every candidate, so that contrast and rank are exactly those of the whole texts.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from lmdissect.formats.cloze_terms import ClozeTerm
from lmdissect.formats.scores import ScoreTable
from lmdissect.formats.study_tables import SCHEMAS
from lmdissect.records import UnavailableRow
from lmdissect.shifts.config import ShiftConfig
from lmdissect.shifts.estimate import MIN_DOCUMENTS
from lmdissect.shifts.pairs import pair_scores
from lmdissect.shifts.resampling import Floats, holm
from lmdissect.shifts.seeds import estimate_crossed_each

__all__ = ["HEADLINE", "MEASURES", "ScoredTerm", "cloze_rows", "score_term"]

MEASURES = ("true_logprob", "other_logprob", "contrast", "true_rank", "true_first")
HEADLINE = ("contrast", "term", "all")
"""Measure, normalization and terms to read first: in the change of a log odds the lengths of the two terms, and whatever is the same under both models, cancel."""

_NORMALIZATIONS = ("term", "token")
_OF_ONE_TOKENIZER = ("true_logprob", "other_logprob")
"""What depends on where tokens end: given only where both models cut the texts alike."""

_COLUMNS = frozenset(SCHEMAS["cloze"].names)


@dataclass(frozen=True, slots=True)
class ScoredTerm:
    """A term's candidates under one model.

    Attributes:
        logprob_C: L of every candidate in nats, the true term first.
        num_tokens_C: Tokens that it is the sum of.
    """

    logprob_C: Floats
    num_tokens_C: npt.NDArray[np.int64]

    def measures(self, normalization: str, *, has_other: bool, ranked: bool) -> dict[str, float]:
        """Value of every measure that the term has.

        Args:
            normalization: ``term`` (sums) or ``token`` (sums / tokens).
            has_other: Whether the second candidate is the counterfactual's term.
            ranked: Whether the term has as many candidates as every ranked one.
        """
        value_C = self.logprob_C / self.num_tokens_C if normalization == "token" else self.logprob_C
        true, rest_C = value_C[0], value_C[1:]
        found = {"true_logprob": float(true)}
        if has_other:
            found |= {"other_logprob": float(rest_C[0]), "contrast": float(true - rest_C[0])}
        if ranked:
            found |= {
                "true_rank": 1.0 + float((rest_C > true).sum()) + 0.5 * float((rest_C == true).sum()),
                "true_first": float((rest_C < true).all()),
            }
        return found


def score_term(table: ScoreTable, term: ClozeTerm) -> ScoredTerm | None:
    """L of every candidate of ``term``; None where a counted token has no score or a text is longer than the model reads at once.

    In a text cut into windows, candidates of another length may be given another context.
    """
    tokens = [table.tokens(table.rows[term.term_id, name]) for name in term.candidates]
    max_input = table.manifest.details.get("max_input")
    num_prefix = len(table.manifest.details.get("prefix_ids") or ())
    if max_input is not None and max(part.stop - part.start for part in tokens) + num_prefix > max_input:
        return None
    first = min(_first_of_term(table, part, len(term.context)) for part in tokens)
    first = min(first, _num_shared([table.token_id[part] for part in tokens]))
    counted = [table.token_logprob_nats[part][first:].astype(np.float64) for part in tokens]
    if any(len(values) == 0 or np.isnan(values).any() for values in counted):
        return None
    return ScoredTerm(np.array([values.sum() for values in counted]), np.array([len(values) for values in counted]))


def _first_of_term(table: ScoreTable, tokens: slice, border: int) -> int:
    """Number of tokens that lie wholly before ``border``."""
    return int((table.token_char_end[tokens] <= border).sum())


def _num_shared(ids: Sequence[npt.NDArray[np.int32]]) -> int:
    """Number of leading tokens that all texts have in common."""
    shortest = min(len(found) for found in ids)
    differs = np.flatnonzero((np.stack([found[:shortest] for found in ids]) != ids[0][:shortest]).any(axis=0))
    return int(differs[0]) if len(differs) else shortest


def cloze_rows(
    base: ScoreTable, tuned: Sequence[ScoreTable], terms: Sequence[ClozeTerm], config: ShiftConfig, *, num_candidates: int
) -> tuple[list[dict[str, Any]], list[UnavailableRow], dict[str, int]]:
    """Rows of the table `cloze` but for the columns that name the point.

    Args:
        base: Scores of all contexts + candidates under the base model.
        tuned: The same under the tuned model; under several where training was repeated with other seeds, which are then crossed with documents.
        terms: The terms.
        config: Level, draws, seed.
        num_candidates: A rank is among so many; a term with fewer takes no part in ranks.

    Returns:
        Rows; what could not be computed; and how many terms took no part, or not in ranks, by reason.

    Raises:
        MismatchedScoresError: The tables were made of other texts or settings.
    """
    paired = [pair_scores(base, table) for table in tuned]
    alike = all(pair.tokenizers_equal for pair in paired)
    scored = [(term, [score_term(table, term) for table in (base, *tuned)]) for term in terms]
    usable = [_Measured(term, [under for under in found if under], num_candidates) for term, found in scored if None not in found]
    left_out = {
        "a token of the term has no score, or its context is longer than the model reads at once": len(terms) - len(usable),
        f"fewer than {num_candidates} candidates: not ranked": sum(not found.ranked for found in usable),
    }
    groups = list(_groups(usable, alike=alike))
    measured = [_documents(group) for group in groups]
    kept = [number for number, values in enumerate(measured) if len(values.document_ids) >= MIN_DOCUMENTS]
    unavailable = [
        UnavailableRow("cloze", group.variant, "original", group.normalization, f"{group.describe()}: fewer than {MIN_DOCUMENTS} documents")
        for number, group in enumerate(groups)
        if number not in set(kept)
    ]
    if not alike:
        reason = "the models' tokenizers differ: a term's tokens may begin at other characters, so only contrasts and ranks of sums are given"
        unavailable.append(UnavailableRow("cloze", "all", "original", "all", reason))
    rows = [_row(groups[number], measured[number], num_candidates) for number in kept]
    return (
        _with_estimates(rows, [measured[number] for number in kept], config),
        unavailable,
        {name: count for name, count in left_out.items() if count},
    )


class _Measured:
    """A term with its measures under the base model and every tuned one: ``values[normalization][measure]``, shape (1 + S,)."""

    def __init__(self, term: ClozeTerm, scored: Sequence[ScoredTerm], num_candidates: int) -> None:
        self.term = term
        self.ranked = len(scored[0].logprob_C) == num_candidates
        self.values: dict[str, dict[str, Floats]] = {}
        for normalization in _NORMALIZATIONS:
            found = [under.measures(normalization, has_other=term.other_term is not None, ranked=self.ranked) for under in scored]
            self.values[normalization] = {measure: np.array([values[measure] for values in found]) for measure in found[0]}


@dataclass(frozen=True, slots=True)
class _Group:
    """What a row is about, and its terms."""

    variant: str
    selection: str
    measure: str
    normalization: str
    which: str
    terms: list[_Measured]

    @property
    def is_headline(self) -> bool:
        """Never of listed key terms, which have nothing to contrast with: their log-probability rises with everything that makes the text likelier."""
        return (self.measure, self.normalization, self.which) == HEADLINE

    def describe(self) -> str:
        """For the list of what could not be computed."""
        return f"{self.selection}, {self.measure}, {self.which} terms"


def _groups(measured: Sequence[_Measured], *, alike: bool) -> Iterator[_Group]:
    """Every row that some term has a value for."""
    variants = dict.fromkeys(found.term.variant for found in measured)
    selections = dict.fromkeys(selection for found in measured for selection in found.term.selections)
    for variant, selection in itertools.product(variants, sorted(selections)):
        chosen = [found for found in measured if found.term.variant == variant and selection in found.term.selections]
        for normalization, measure in itertools.product(_NORMALIZATIONS if alike else _NORMALIZATIONS[:1], MEASURES):
            having = [found for found in chosen if measure in found.values[normalization]]
            if having and (alike or measure not in _OF_ONE_TOKENIZER):
                yield _Group(variant, selection, measure, normalization, "all", having)
                yield _Group(variant, selection, measure, normalization, "recalled", [found for found in having if not found.term.copied])


@dataclass(frozen=True, slots=True)
class _Documents:
    """Means over the terms of each document."""

    document_ids: Sequence[str]
    base_D: Floats
    tuned_SD: Floats


def _documents(group: _Group) -> _Documents:
    values: dict[str, list[Floats]] = {}
    for found in group.terms:
        values.setdefault(found.term.document_id, []).append(found.values[group.normalization][group.measure])
    means = [np.mean(of_terms, axis=0) for of_terms in values.values()]
    means_DM = np.stack(means) if means else np.empty((0, 2))
    return _Documents(list(values), means_DM[:, 0], means_DM[:, 1:].T)


def _row(group: _Group, documents: _Documents, num_candidates: int) -> dict[str, Any]:
    return {
        "variant": group.variant,
        "selection": group.selection,
        "measure": group.measure,
        "terms": group.which,
        "normalization": group.normalization,
        "is_headline": group.is_headline,
        "num_terms": len(group.terms),
        "num_candidates": num_candidates,
        "base_mean": float(documents.base_D.mean()),
        "tuned_mean": float(documents.tuned_SD.mean()),
    }


def _with_estimates(rows: Sequence[Mapping[str, Any]], documents: Sequence[_Documents], config: ShiftConfig) -> list[dict[str, Any]]:
    """The rows with interval and test; p-values adjusted by Holm over all rows of one measure, normalization and choice of terms."""
    numbers = {document_id: number for number, document_id in enumerate(dict.fromkeys(name for found in documents for name in found.document_ids))}
    columns = []
    for found in documents:
        change_SD = np.full((len(found.tuned_SD), len(numbers)), np.nan)
        change_SD[:, [numbers[name] for name in found.document_ids]] = found.tuned_SD - found.base_D
        columns.append(change_SD)
    filled = [{**row, **estimate.to_row()} for row, estimate in zip(rows, estimate_crossed_each(columns, config), strict=True)]
    families: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for row in filled:
        families.setdefault((row["measure"], row["normalization"], row["terms"]), []).append(row)
    for family in families.values():
        for row, p_holm in zip(family, holm([row["p_value"] for row in family]), strict=True):
            row["p_holm"] = p_holm
    return [{name: value for name, value in row.items() if name in _COLUMNS} for row in filled]
