"""Shift and gain by token position for a point whose runs differ in the seed: the bins of `position`, every document's value averaged over crossed seeds.

    share(t) = mean_sd C(t) / mean_sd C(end),   C(t) = summed token gains before t, original minus variant, of document d under seed s

The interval of a share is that of the mean of its linearised values, share(t) + (C(t) - share(t) C(end)) / mean C(end), which have the share as their mean.
A point with one seed has the rows of its run (`position`): an interval over documents, for this one training run.

Shape letters: S seeds, D documents, K bins.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from lmdissect.records import StudyGap
from lmdissect.shifts.config import ShiftConfig
from lmdissect.shifts.estimate import MIN_DOCUMENTS
from lmdissect.shifts.panel import Panel
from lmdissect.shifts.position import bin_edges, fixed_documents
from lmdissect.shifts.resampling import Floats
from lmdissect.shifts.run_tokens import RunTokens
from lmdissect.shifts.seeds import estimate_crossed

__all__ = ["align_documents", "cumulative_over_seeds", "linearised_ratio", "positions_of_one_run", "positions_over_seeds"]

_Row = dict[str, Any]


def align_documents(panel: Panel, tokens: RunTokens) -> npt.NDArray[np.int64]:
    """Where the panel's documents stand among a run's, shape (D,)."""
    place = {document_id: number for number, document_id in enumerate(tokens.documents)}
    return np.asarray([place[document_id] for document_id in panel.document_ids], dtype=np.int64)


def linearised_ratio(top_SD: Floats, bottom_SD: Floats) -> Floats:
    """Values whose mean is the ratio of two means, and whose spread is that of the ratio to first order (the delta method); shape (S, D)."""
    ratio = top_SD.mean() / bottom_SD.mean()
    values: Floats = ratio + (top_SD - ratio * bottom_SD) / bottom_SD.mean()
    return values


def positions_of_one_run(position: Iterable[_Row], cumulative: Iterable[_Row]) -> tuple[list[_Row], list[_Row]]:
    """Rows of the tables `positions` and `cumulative` for a point with one seed.

    Args:
        position: Rows of the table `position` of its run.
        cumulative: Rows of its table `cumulative`.
    """
    own = {"reference": "original", "num_seeds": 1}
    positions = [{**{name: value for name, value in row.items() if not name.endswith("_contrast")}, **own} for row in position]
    return positions, [{**row, **own} for row in cumulative]


def positions_over_seeds(panel: Panel, tokens: Sequence[RunTokens], config: ShiftConfig) -> tuple[list[dict[str, Any]], list[StudyGap]]:
    """Rows of the table `positions` for several seeds, without the point's own columns; and what is missing.

    Args:
        panel: The runs of the point.
        tokens: Their tokens, in the order of the panel's seeds.
        config: Level of the intervals.
    """
    rows: list[dict[str, Any]] = []
    gaps: list[StudyGap] = []
    places = [align_documents(panel, run) for run in tokens]
    for variant in panel.factors:
        if any(variant not in run.binned for run in tokens):
            gaps.append(_gap(panel, "positions", variant, "some seed has no such texts"))
            continue
        shift_SDK = _stacked([run.binned[variant].shift_DK[place] for run, place in zip(tokens, places, strict=True)])
        gain_SDK = _stacked([run.binned[variant].gain_DK[place] for run, place in zip(tokens, places, strict=True)])
        present_DK: npt.NDArray[np.bool_] = np.all(~np.isnan(shift_SDK), axis=0)
        fixed_D = fixed_documents(np.where(present_DK, 0.0, np.nan))
        for name, documents_D in (("all", np.ones(len(present_DK), dtype=bool)), ("fixed", fixed_D)):
            found = [
                _bin_row(panel, variant, name, number, shift_SDK[:, documents_D], gain_SDK[:, documents_D], config)
                for number in range(shift_SDK.shape[2])
            ]
            rows += [row for row in found if row is not None]
            if name == "fixed" and not any(found):
                gaps.append(_gap(panel, "positions", variant, "fixed: no bin is reached by 10 documents and a quarter of them"))
        gaps += [
            _gap(panel, "positions", variant, f"all, from position {bin_edges(number)[0]}: a single document has both texts there")
            for number in np.flatnonzero(present_DK.sum(axis=0) == 1).tolist()
        ]
    return rows, gaps


def _stacked(binned: Sequence[Floats]) -> Floats:
    """Bins of every seed, shape (S, D, K). A run has as many bins as its longest text needs; a text that all seeds have fits into those that all runs have."""
    num_bins = min(values_DK.shape[1] for values_DK in binned)
    return np.stack([values_DK[:, :num_bins] for values_DK in binned])


def _bin_row(
    panel: Panel, variant: str, document_set: str, number: int, shift_SDK: Floats, gain_SDK: Floats, config: ShiftConfig
) -> dict[str, Any] | None:
    shift_SD, gain_SD = shift_SDK[:, :, number], gain_SDK[:, :, number]
    present_D = ~np.isnan(shift_SD).any(axis=0)
    if present_D.sum() < MIN_DOCUMENTS or (document_set == "fixed" and not present_D.all()):
        return None
    shift, gain = (estimate_crossed(values[:, present_D], config) for values in (shift_SD, gain_SD))
    start, end = bin_edges(number)
    return {
        **_labels(panel, variant),
        "document_set": document_set,
        "bin_start": start,
        "bin_end": end,
        "num_documents": int(present_D.sum()),
        "estimate": shift.estimate,
        "ci_low": shift.ci_low,
        "ci_high": shift.ci_high,
        "gain": gain.estimate,
        "gain_ci_low": gain.ci_low,
        "gain_ci_high": gain.ci_high,
    }


def cumulative_over_seeds(panel: Panel, tokens: Sequence[RunTokens], config: ShiftConfig) -> tuple[list[dict[str, Any]], list[StudyGap]]:
    """Rows of the table `cumulative` for several seeds, without the point's own columns; a variant whose whole shift cannot be told from 0 has none."""
    rows: list[dict[str, Any]] = []
    gaps: list[StudyGap] = []
    places = [align_documents(panel, run) for run in tokens]
    for variant in panel.factors:
        if any(variant not in run.summed for run in tokens):
            continue  # named among the positions
        by_bin_SDK = _stacked([run.summed[variant][place] for run, place in zip(tokens, places, strict=True)])
        by_bin_SDK = by_bin_SDK[:, ~np.isnan(by_bin_SDK).any(axis=(0, 2))]
        if by_bin_SDK.shape[1] < MIN_DOCUMENTS:
            gaps.append(_gap(panel, "cumulative", variant, f"fewer than {MIN_DOCUMENTS} documents"))
            continue
        before_SDK = by_bin_SDK.cumsum(axis=2)
        whole = estimate_crossed(before_SDK[:, :, -1], config)
        if whole.ci_low <= 0.0 <= whole.ci_high:
            reason = f"the per-document shift's interval [{whole.ci_low:.4g}, {whole.ci_high:.4g}] covers 0: shares of it have no meaning"
            gaps.append(_gap(panel, "cumulative", variant, reason))
            continue
        for number in range(before_SDK.shape[2]):
            share = estimate_crossed(linearised_ratio(before_SDK[:, :, number], before_SDK[:, :, -1]), config)
            interval = {"share": share.estimate, "ci_low": share.ci_low, "ci_high": share.ci_high}
            rows.append({**_labels(panel, variant), "position": bin_edges(number)[1], "num_documents": before_SDK.shape[1], **interval})
    return rows, gaps


def _labels(panel: Panel, variant: str) -> dict[str, Any]:
    return {"variant": variant, "factor": panel.factors[variant], "reference": "original", "num_seeds": len(panel.seeds)}


def _gap(panel: Panel, table: str, variant: str, reason: str) -> StudyGap:
    return StudyGap(table, panel.experiment, panel.point, panel.probes, variant, reason)
