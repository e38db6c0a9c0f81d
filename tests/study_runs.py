"""Runs of a study made from numbers: score and shift artifacts on disk, through the real writers.

run = save_run(tmp_path, {"original": [0.3, 0.1], "casual": [0.1, 0.0]}, seed=1)
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lmdissect.records import StudyRun
from lmdissect.shifts import ShiftConfig, measure_shifts
from score_tables import ScoredText, documents_from_gains, save_scores

__all__ = ["CONFIG", "estimate_row", "save_run", "save_texts"]

CONFIG = ShiftConfig(num_draws=200)


def save_run(folder: Path, gains: Mapping[str, Sequence[float]], *, num_words: int = 4, **fields: Any) -> StudyRun:
    """A run whose gain per token is given: variant -> one gain per document. Arguments as `save_texts`."""
    return save_texts(folder, *documents_from_gains(gains, num_words=num_words), **fields)


def save_texts(
    folder: Path,
    base: Sequence[ScoredText],
    tuned: Sequence[ScoredText],
    *,
    experiment: str = "study",
    point: str = "size=10",
    seed: int = 0,
    probes: str = "probes",
    fields: Mapping[str, Any] | None = None,
    generators: Mapping[str, str] | None = None,
    key_terms: Mapping[str, Sequence[str]] | None = None,
    tokenizer: str = "words",
    keep_scores: bool = True,
    **others: Any,
) -> StudyRun:
    """A run whose scores are given; the base's are written once for all runs of one probe set.

    Args:
        folder: Where all runs of a test lie.
        base: Texts and their scores under the base.
        tuned: The same under the tuned model.
        experiment: Of the run, as all that follow.
        point: Its point.
        seed: Its seed.
        probes: Its probe set.
        fields: Its varied settings.
        generators: Who wrote each variant.
        key_terms: Key terms of documents.
        tokenizer: Hash of both models' tokenizer.
        keep_scores: Whether the study is told where the scores are.
        others: Further fields of `StudyRun`.
    """
    name = f"{experiment} {point} {seed} {probes} {others.get('step', 'end')}".replace("/", "-")
    base_scores, tuned_scores = folder / f"base {probes} {tokenizer}", folder / f"tuned {name}"
    shared: dict[str, Any] = {"generators": generators, "key_terms": key_terms, "tokenizer": tokenizer}
    if not base_scores.exists():
        save_scores(base_scores, base, **shared)
    save_scores(tuned_scores, tuned, model=f"tuned {name}", **shared)
    measure_shifts(base_scores, tuned_scores, CONFIG, folder / f"shift {name}")
    return StudyRun(
        experiment=experiment,
        point=point,
        fields=dict(fields or {}),
        seed=seed,
        probes=probes,
        base_model="base",
        tuned_model=f"tuned {name}",
        writers=dict(generators or {}),
        shift_folder=folder / f"shift {name}",
        base_scores=base_scores if keep_scores else None,
        tuned_scores=tuned_scores if keep_scores else None,
        **others,
    )


def estimate_row(**fields: Any) -> dict[str, Any]:
    """A row of the table `estimates`: a shift of +0.1 [0.05, 0.15] that moved, unless ``fields`` say otherwise."""
    row = {
        "experiment": "study",
        "point": "size=10",
        "probes": "probes",
        "fields": "{}",
        "statistic": "shift",
        "variant": "casual",
        "factor": "style",
        "reference": "original",
        "normalization": "token",
        "is_headline": True,
        "num_seeds": 1,
        "num_documents": 80,
        "estimate": 0.1,
        "ci_low": 0.05,
        "ci_high": 0.15,
        "ci_method": "bca",
        "p_value": 0.001,
        "p_holm": 0.002,
        "share": None,
        "share_ci_low": None,
        "share_ci_high": None,
    }
    assert set(fields) <= {*row, "axis", "group", "x", "x_label", "selection"}, fields
    return {**row, **fields}
