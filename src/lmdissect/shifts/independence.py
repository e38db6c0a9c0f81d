"""What moves when the training corpus differs in one factor alone.

    cell         shift of one variant (at its headline reference) after training on one corpus: a row of the table `estimates`
    difference   shift(s, d) after training on a rewritten corpus - shift(s, d) after training on its originals, over the same documents and seeds

If factors are independent, training on casual rewrites changes the style shift and leaves the others where they were. Holm over all cells of one
experiment and probe set, and over all its differences.

Corpora of one source are named ``SOURCE: VARIANT``; a difference is taken against ``SOURCE: original``.

Shape letters: S seeds, D documents.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from lmdissect.factors import ORIGINAL
from lmdissect.records import StudyGap
from lmdissect.shifts.config import ShiftConfig
from lmdissect.shifts.estimate import MIN_DOCUMENTS
from lmdissect.shifts.panel import Panel
from lmdissect.shifts.resampling import Floats, holm
from lmdissect.shifts.seeds import estimate_crossed

__all__ = ["corpus_name", "independence_rows"]

_CORPUS_FIELDS = frozenset({"corpus.files", "corpus.probe_set", "corpus.variant", "corpus.control", "corpus.on_overlap"})
"""Settings that say what is trained on, and what is done about probes in it, which has no part in training."""

_SEPARATOR = ": "


def corpus_name(source: str, variant: str) -> str:
    """Name of a training corpus that is one variant of ``source``."""
    return f"{source}{_SEPARATOR}{variant}"


def independence_rows(
    panels: Sequence[Panel], estimates: Iterable[Mapping[str, Any]], config: ShiftConfig
) -> tuple[list[dict[str, Any]], list[StudyGap]]:
    """The table `independence`: nothing for experiments that train on one corpus.

    Args:
        panels: All points.
        estimates: Rows of the table `estimates`.
        config: Statistics.
    """
    rows_of: dict[tuple[str, str, str], list[Mapping[str, Any]]] = {}
    for row in estimates:
        if row["statistic"] == "shift" and row["is_headline"]:
            rows_of.setdefault((row["experiment"], row["point"], row["probes"]), []).append(row)
    rows: list[dict[str, Any]] = []
    gaps: list[StudyGap] = []
    for group in _matrices(panels):
        cells = [_cell(panel, row) for panel in group for row in rows_of.get((panel.experiment, panel.point, panel.probes), []) if _shown(panel, row)]
        differences: list[dict[str, Any]] = []
        for panel in group:
            baseline = _baseline(panel, group)
            if baseline is not None:
                found, missing = _differences(panel, baseline, config)
                differences += found
                gaps += missing
        rows += [*_with_holm(cells), *_with_holm(differences)]
    return rows, gaps


def _matrices(panels: Sequence[Panel]) -> list[list[Panel]]:
    """Panels that differ in the training corpus alone, where there are at least two corpora."""
    groups: dict[tuple[str, str, str], list[Panel]] = {}
    for panel in panels:
        if panel.step is None and panel.runs[0].training_corpus is not None:
            others = repr(sorted((name, repr(value)) for name, value in panel.fields.items() if name not in _CORPUS_FIELDS))
            groups.setdefault((panel.experiment, panel.probes, others), []).append(panel)
    return [group for group in groups.values() if len({panel.runs[0].training_corpus for panel in group}) > 1]


def _shown(panel: Panel, row: Mapping[str, Any]) -> bool:
    return bool(row["normalization"] == panel.normalizations[0])


def _cell(panel: Panel, row: Mapping[str, Any]) -> dict[str, Any]:
    names = ("variant", "factor", "reference", "num_seeds", "num_documents", "estimate", "ci_low", "ci_high", "p_value")
    return {**_labels(panel), "compared_with": None, **{name: row[name] for name in names}}


def _labels(panel: Panel) -> dict[str, Any]:
    return {"experiment": panel.experiment, "point": panel.point, "probes": panel.probes, "training_corpus": panel.runs[0].training_corpus}


def _baseline(panel: Panel, group: Sequence[Panel]) -> Panel | None:
    """The point that trained on the originals of the same source."""
    source, separator, variant = (panel.runs[0].training_corpus or "").rpartition(_SEPARATOR)
    if not separator or variant == ORIGINAL:
        return None
    return next((other for other in group if other.runs[0].training_corpus == corpus_name(source, ORIGINAL)), None)


def _differences(panel: Panel, baseline: Panel, config: ShiftConfig) -> tuple[list[dict[str, Any]], list[StudyGap]]:
    rows: list[dict[str, Any]] = []
    gaps: list[StudyGap] = []
    seeds = [seed for seed in panel.seeds if seed in baseline.seeds]
    documents = [name for name in panel.document_ids if name in set(baseline.document_ids)]
    lost = (len(panel.seeds) + len(baseline.seeds) - 2 * len(seeds), len(panel.document_ids) + len(baseline.document_ids) - 2 * len(documents))
    if any(lost):
        reason = f"difference to {baseline.runs[0].training_corpus}: {lost[0]} runs and {lost[1]} documents that only one of the two points has take no part"
        gaps.append(StudyGap("independence", panel.experiment, panel.point, panel.probes, "all", reason))
    for variant, reference in panel.headline.items():
        if variant not in baseline.factors or not seeds:
            continue
        here, there = (_chosen(point, variant, reference, seeds, documents) for point in (panel, baseline))
        present_D = ~(np.isnan(here).any(axis=0) | np.isnan(there).any(axis=0))
        if present_D.sum() < MIN_DOCUMENTS:
            reason = f"difference to {baseline.runs[0].training_corpus}: fewer than {MIN_DOCUMENTS} documents"
            gaps.append(StudyGap("independence", panel.experiment, panel.point, panel.probes, variant, reason))
            continue
        mean = estimate_crossed((here - there)[:, present_D], config)
        rows.append(
            {
                **_labels(panel),
                "training_corpus": f"{panel.runs[0].training_corpus} minus {baseline.runs[0].training_corpus}",
                "compared_with": baseline.runs[0].training_corpus,
                "variant": variant,
                "factor": panel.factors[variant],
                "reference": reference,
                "num_seeds": len(seeds),
                "num_documents": int(present_D.sum()),
                "estimate": mean.estimate,
                "ci_low": mean.ci_low,
                "ci_high": mean.ci_high,
                "p_value": mean.p_value,
            }
        )
    return rows, gaps


def _chosen(panel: Panel, variant: str, reference: str, seeds: Sequence[int], documents: Sequence[str]) -> Floats:
    place = {name: number for number, name in enumerate(panel.document_ids)}
    reference = reference if reference == "original" or panel.control is not None else "original"
    shift_SD = panel.shift(panel.normalizations[0], variant, reference)
    return shift_SD[np.ix_([panel.seeds.index(seed) for seed in seeds], [place[name] for name in documents])]


def _with_holm(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    adjusted = holm([row["p_value"] for row in rows])
    return [{**row, "p_holm": p_holm} for row, p_holm in zip(rows, adjusted, strict=True)]
