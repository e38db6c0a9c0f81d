"""What moves when the training corpus differs in one factor alone.

    cell         shift of one variant (at its headline reference) after training on one corpus: a row of the table `estimates`
    difference   shift(s, d) after training on a rewritten corpus - shift(s, d) after training on its originals, over the same documents and seeds

If factors are independent, training on casual rewrites changes the style shift and leaves the others where they were. Holm over all cells of one
experiment and probe set, and over all its differences.

All numbers of one matrix are in one unit: per token, or per byte where some point of it has no numbers per token. A difference takes the same reference on both
sides: where the headline is net of the control, and the two points do not have the same control, both are taken against the original, and that is listed.

Corpora of one source are named ``SOURCE: VARIANT``; a difference is taken against ``SOURCE: original``.

Shape letters: S seeds, D documents.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from lmdissect.factors import CONTROL, ORIGINAL
from lmdissect.records import StudyGap
from lmdissect.shifts.config import ShiftConfig
from lmdissect.shifts.curves import shared_normalization
from lmdissect.shifts.estimate import MIN_DOCUMENTS
from lmdissect.shifts.panel import Panel
from lmdissect.shifts.resampling import Floats, holm
from lmdissect.shifts.seeds import estimate_crossed

__all__ = ["corpus_name", "independence_rows"]

_CORPUS_FIELDS = frozenset({"corpus.files", "corpus.probe_set", "corpus.variant", "corpus.control", "corpus.on_overlap"})
"""Settings that say what is trained on, and what is done about probes in it, which has no part in training."""

_SEPARATOR = ": "
_RAW = "original"


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
    families: dict[tuple[str, str], tuple[list[dict[str, Any]], list[dict[str, Any]]]] = {}
    gaps: list[StudyGap] = []
    for group in _matrices(panels):
        normalization = shared_normalization(group)
        cells, differences = families.setdefault((group[0].experiment, group[0].probes), ([], []))
        for panel in group:
            own = rows_of.get((panel.experiment, panel.point, panel.probes), [])
            cells += [_cell(panel, row) for row in own if row["normalization"] == normalization]
            found, missing = _against_originals(panel, group, normalization, config)
            differences += found
            gaps += missing
    rows = [row for cells, differences in families.values() for row in (*_with_holm(cells), *_with_holm(differences))]
    return rows, gaps


def _matrices(panels: Sequence[Panel]) -> list[list[Panel]]:
    """Panels that differ in the training corpus alone, where there are at least two corpora."""
    groups: dict[tuple[str, str, str], list[Panel]] = {}
    for panel in panels:
        if panel.step is None and panel.runs[0].training_corpus is not None:
            others = repr(sorted((name, repr(value)) for name, value in panel.fields.items() if name not in _CORPUS_FIELDS))
            groups.setdefault((panel.experiment, panel.probes, others), []).append(panel)
    return [group for group in groups.values() if len({panel.runs[0].training_corpus for panel in group}) > 1]


def _cell(panel: Panel, row: Mapping[str, Any]) -> dict[str, Any]:
    names = ("variant", "factor", "reference", "normalization", "num_seeds", "num_documents", "estimate", "ci_low", "ci_high", "p_value")
    return {**_labels(panel), "compared_with": None, **{name: row[name] for name in names}}


def _labels(panel: Panel) -> dict[str, Any]:
    return {"experiment": panel.experiment, "point": panel.point, "probes": panel.probes, "training_corpus": panel.runs[0].training_corpus}


def _against_originals(panel: Panel, group: Sequence[Panel], normalization: str, config: ShiftConfig) -> tuple[list[dict[str, Any]], list[StudyGap]]:
    """Differences to the point that trained on the originals of the same source; nothing for corpora that are no rewrites."""
    source, separator, rewrite = (panel.runs[0].training_corpus or "").rpartition(_SEPARATOR)
    if not separator or rewrite == ORIGINAL:
        return [], []
    wanted = corpus_name(source, ORIGINAL)
    baseline = next((other for other in group if other.runs[0].training_corpus == wanted), None)
    if baseline is None:
        return [], [_gap(panel, "all", wanted, "no such point that is otherwise alike")]
    return _differences(panel, baseline, normalization, config)


def _differences(panel: Panel, baseline: Panel, normalization: str, config: ShiftConfig) -> tuple[list[dict[str, Any]], list[StudyGap]]:
    corpus = str(baseline.runs[0].training_corpus)
    seeds = [seed for seed in panel.seeds if seed in baseline.seeds]
    if not seeds:
        return [], [_gap(panel, "all", corpus, "the two points have no training seed in common")]
    rows: list[dict[str, Any]] = []
    gaps: list[StudyGap] = []
    documents = [name for name in panel.document_ids if name in set(baseline.document_ids)]
    lost = (len(panel.seeds) + len(baseline.seeds) - 2 * len(seeds), len(panel.document_ids) + len(baseline.document_ids) - 2 * len(documents))
    if any(lost):
        gaps.append(_gap(panel, "all", corpus, f"{lost[0]} runs and {lost[1]} documents that only one of the two points has take no part"))
    for variant, headline in panel.headline.items():
        if variant not in baseline.factors:
            gaps.append(_gap(panel, variant, corpus, "that point has no such variant"))
            continue
        reference = headline
        if headline == CONTROL and (panel.control is None or panel.control != baseline.control):
            reference = _RAW
            gaps.append(
                _gap(panel, variant, corpus, "both are taken against the original: without one control for both points net shifts take no part")
            )
        here, there = (_chosen(point.shift(normalization, variant, reference), point, seeds, documents) for point in (panel, baseline))
        present_D = ~(np.isnan(here).any(axis=0) | np.isnan(there).any(axis=0))
        if present_D.sum() < MIN_DOCUMENTS:
            gaps.append(_gap(panel, variant, corpus, f"fewer than {MIN_DOCUMENTS} documents"))
            continue
        mean = estimate_crossed((here - there)[:, present_D], config)
        rows.append(
            {
                **_labels(panel),
                "training_corpus": f"{panel.runs[0].training_corpus} minus {corpus}",
                "compared_with": corpus,
                "variant": variant,
                "factor": panel.factors[variant],
                "reference": reference,
                "normalization": normalization,
                "num_seeds": len(seeds),
                "num_documents": int(present_D.sum()),
                "estimate": mean.estimate,
                "ci_low": mean.ci_low,
                "ci_high": mean.ci_high,
                "p_value": mean.p_value,
            }
        )
    return rows, gaps


def _gap(panel: Panel, variant: str, corpus: str, reason: str) -> StudyGap:
    return StudyGap("independence", panel.experiment, panel.point, panel.probes, variant, f"difference to {corpus}: {reason}")


def _chosen(shift_SD: Floats, panel: Panel, seeds: Sequence[int], documents: Sequence[str]) -> Floats:
    place = {name: number for number, name in enumerate(panel.document_ids)}
    return shift_SD[np.ix_([panel.seeds.index(seed) for seed in seeds], [place[name] for name in documents])]


def _with_holm(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    adjusted = holm([row["p_value"] for row in rows])
    return [{**row, "p_holm": p_holm} for row, p_holm in zip(rows, adjusted, strict=True)]
