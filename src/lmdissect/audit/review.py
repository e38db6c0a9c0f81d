"""What the ratings say: agreement question by question, how many variants people accept, and how far the automatic audit decides as they do."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np

from lmdissect.audit.agreement import CI_METHOD, Floats, compare_verdicts, majority, measure_agreement, wilson_interval
from lmdissect.audit.criteria import ACCEPT, CRITERIA
from lmdissect.audit.ratings import AGREEMENT_FILE, RATINGS_FILE, RatedPair, Ratings
from lmdissect.store import write_json, write_table

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["review_ratings", "write_review"]

_SCHEMA_VERSION = 1


def review_ratings(
    ratings: Ratings, verdicts: Mapping[tuple[str, str], bool] | None = None, *, num_draws: int = 10_000, level: float = 0.95, seed: int = 0
) -> dict[str, Any]:
    """Measure agreement.

    Args:
        ratings: What raters sent back.
        verdicts: Whether the automatic audit accepts a text, by (document id, variant); None where there was no audit.
        num_draws: Bootstrap draws of documents for the interval of alpha.
        level: Of all intervals.
        seed: Of the draws.

    Returns:
        JSON types. ``criteria``: one row a question over all variants (``variant`` null), and one for each where several are asked it. ``acceptance``: how many
        variants the majority of raters accepts. ``automatic``: the majority against the audit, or null.
    """
    variants: list[str | None] = [None, *ratings.sheet.tasks] if len(ratings.sheet.tasks) > 1 else [None]
    return {
        "schema_version": _SCHEMA_VERSION,
        "sheet": ratings.sheet.fingerprint,
        "num_pairs": len(ratings.sheet.pairs),
        "raters": [_rater_row(ratings, name, rated) for name, rated in ratings.by_rater.items()],
        "level": level,
        "ci_method": {"alpha": CI_METHOD, "shares": "Wilson"},
        "num_draws": num_draws,
        "seed": seed,
        "criteria": [
            _agreement_row(ratings, name, variant, num_draws=num_draws, level=level, seed=seed)
            for name in CRITERIA
            for variant in _askings(ratings, name)
        ],
        "acceptance": [_acceptance_row(ratings, variant, level) for variant in variants],
        "automatic": None if verdicts is None else [_automatic_row(ratings, verdicts, variant, level) for variant in variants],
        "rejected": [asdict(record) for record in ratings.rejected],
    }


def _askings(ratings: Ratings, criterion: str) -> list[str | None]:
    """None for all variants that a question is asked about, then each of them where there are several; nothing for a question that is not asked."""
    variants = [name for name, task in ratings.sheet.tasks.items() if criterion in task.criteria]
    return [None, *(variants if len(variants) > 1 else [])] if variants else []


def _rater_row(ratings: Ratings, name: str, rated: Sequence[RatedPair]) -> dict[str, Any]:
    complete = [pair for pair in rated if set(pair.answers) == set(ratings.sheet.tasks[pair.pair.variant].criteria)]
    seconds = [pair.seconds for pair in rated if pair.seconds is not None]
    return {"rater": name, "num_pairs": len(rated), "num_complete": len(complete), "median_seconds": median(seconds) if seconds else None}


def _agreement_row(ratings: Ratings, criterion: str, variant: str | None, *, num_draws: int, level: float, seed: int) -> dict[str, Any]:
    table, document_ids = _rating_table(ratings, criterion, variant)
    metric = CRITERIA[criterion].metric
    agreement = measure_agreement(table, document_ids, metric=metric, num_draws=num_draws, level=level, rng=np.random.default_rng(seed))
    return {"criterion": criterion, "question": CRITERIA[criterion].question, "variant": variant, **asdict(agreement)}


def _rating_table(ratings: Ratings, criterion: str, variant: str | None) -> tuple[Floats, list[str]]:
    """Values of the answers, one row a pair and one column a rater, NaN where there is none; and the document of each row."""
    pairs = [pair for pair in ratings.sheet.pairs if variant in (None, pair.variant)]
    rows = {pair.key: row for row, pair in enumerate(pairs)}
    table = np.full((len(pairs), len(ratings.by_rater)), np.nan)
    for column, rated in enumerate(ratings.by_rater.values()):
        for entry in rated:
            if entry.pair.key in rows and criterion in entry.answers:
                table[rows[entry.pair.key], column] = CRITERIA[criterion].answers[entry.answers[criterion]]
    return table, [pair.document_id for pair in pairs]


def _majorities(ratings: Ratings, variant: str | None) -> Iterator[tuple[tuple[str, str], bool | None]]:
    """(document id, variant) of every pair on which a rater decided, and what most of them say."""
    table, _ = _rating_table(ratings, ACCEPT, variant)
    pairs = [pair for pair in ratings.sheet.pairs if variant in (None, pair.variant)]
    for pair, values in zip(pairs, table, strict=True):
        given = values[~np.isnan(values)]
        if given.size:
            yield (pair.document_id, pair.variant), majority([bool(value) for value in given])


def _acceptance_row(ratings: Ratings, variant: str | None, level: float) -> dict[str, Any]:
    decided = [accepted for _, accepted in _majorities(ratings, variant)]
    settled = [accepted for accepted in decided if accepted is not None]
    return {"variant": variant, "num_tied": len(decided) - len(settled), **asdict(wilson_interval(sum(settled), len(settled), level))}


def _automatic_row(ratings: Ratings, verdicts: Mapping[tuple[str, str], bool], variant: str | None, level: float) -> dict[str, Any]:
    decided = list(_majorities(ratings, variant))
    both = [(accepted, verdicts[text]) for text, accepted in decided if text in verdicts]
    return {"variant": variant, "num_without_verdict": len(decided) - len(both), **asdict(compare_verdicts(both, level=level))}


def write_review(ratings: Ratings, review: Mapping[str, Any], folder: Path) -> None:
    """Write `ratings.parquet` (one row a rater, pair and question) and `agreement.json`.

    Raises:
        UnusableOutputError: The folder cannot be written.
        OutOfSpaceError: The disk is full.
    """
    write_table(folder / RATINGS_FILE, _ratings_table(ratings))
    write_json(folder / AGREEMENT_FILE, dict(review))


def _ratings_table(ratings: Ratings) -> "pa.Table":
    import pyarrow as pa  # noqa: PLC0415 - slow to load

    rows = [
        (rater, entry, name, answer)
        for rater, rated in ratings.by_rater.items()
        for entry in rated
        for name, answer in [*entry.answers.items(), *([] if entry.answers else [(None, None)])]  # a comment alone is a row too
    ]
    columns = {
        "document_id": pa.array([entry.pair.document_id for _, entry, _, _ in rows], pa.string()),
        "variant": pa.array([entry.pair.variant for _, entry, _, _ in rows], pa.string()),
        "factor": pa.array([ratings.sheet.tasks[entry.pair.variant].factor for _, entry, _, _ in rows], pa.string()),
        "rater": pa.array([rater for rater, _, _, _ in rows], pa.string()),
        "criterion": pa.array([name for _, _, name, _ in rows], pa.string()),
        "answer": pa.array([answer for _, _, _, answer in rows], pa.string()),
        "value": pa.array([_value(name, answer) for _, _, name, answer in rows], pa.int8()),
        "seconds": pa.array([entry.seconds for _, entry, _, _ in rows], pa.float64()),
        "comment": pa.array([entry.comment for _, entry, _, _ in rows], pa.string()),
    }
    return pa.table(columns)


def _value(criterion: str | None, answer: str | None) -> int | None:
    return None if criterion is None or answer is None else CRITERIA[criterion].answers[answer]
