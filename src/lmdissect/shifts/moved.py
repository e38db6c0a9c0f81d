"""Which documents and which tokens moved most.

    documents   mean over seeds of shift(s, d), sorted; the twenty largest and the twenty smallest of every variant
    tokens      r = sum of gains over all occurrences of a token string / number of occurrences, over the texts of one variant; strings in at least five
                documents; the twenty-five largest and the twenty-five smallest

Both are extremes of many noisy numbers: the largest of them are large partly by luck, and would be smaller in a repetition (the winner's curse). The
intervals of tokens are not adjusted for having been picked. The interval of r is over documents: percentiles of the resampled ratio for one seed; for
several, that of the crossed mean of r + (g(s, d) - r n(d)) / mean n (its linearised values).

Shape letters: S seeds, D documents, T token strings, R draws.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from lmdissect.factors import ORIGINAL
from lmdissect.shifts.config import ShiftConfig
from lmdissect.shifts.estimate import seeded_rng
from lmdissect.shifts.panel import Panel
from lmdissect.shifts.position_seeds import align_documents, linearised_ratio
from lmdissect.shifts.resampling import Floats, bootstrap_means
from lmdissect.shifts.run_tokens import RunTokens
from lmdissect.shifts.seeds import estimate_crossed

__all__ = ["MIN_TOKEN_DOCUMENTS", "NUM_MOVED_DOCUMENTS", "NUM_MOVED_TOKENS", "moved_document_rows", "moved_token_rows"]

NUM_MOVED_DOCUMENTS = 20
"""Documents listed at either end."""

NUM_MOVED_TOKENS = 25
"""Token strings listed in either direction."""

MIN_TOKEN_DOCUMENTS = 5
"""Fewest documents a token string must occur in."""


def moved_document_rows(panel: Panel) -> list[dict[str, Any]]:
    """Rows of the table `moved_documents`, without the point's own columns: per variant at its headline reference.

    ``rank`` is 1, 2, ... from the largest shift down, and -1, -2, ... from the smallest up; no document is in both.
    """
    rows: list[dict[str, Any]] = []
    normalization = panel.normalizations[0]
    gain_D = panel.gain[normalization][ORIGINAL].mean(axis=0)
    for variant, reference in panel.headline.items():
        shift_D = panel.shift(normalization, variant, reference).mean(axis=0)
        present = np.flatnonzero(~np.isnan(shift_D))
        order = present[np.argsort(-shift_D[present], kind="stable")]
        num_top = min(NUM_MOVED_DOCUMENTS, (len(order) + 1) // 2)
        num_bottom = min(NUM_MOVED_DOCUMENTS, len(order) - num_top)
        ranked = [(1 + number, int(order[number])) for number in range(num_top)]
        ranked += [(-1 - number, int(order[len(order) - 1 - number])) for number in range(num_bottom)]
        rows += [
            {
                "variant": variant,
                "factor": panel.factors[variant],
                "reference": reference,
                "normalization": normalization,
                "document_id": panel.document_ids[document],
                "rank": rank,
                "shift": float(shift_D[document]),
                "gain": float(gain_D[document]),
            }
            for rank, document in ranked
        ]
    return rows


def moved_token_rows(panel: Panel, tokens: Sequence[RunTokens], config: ShiftConfig) -> list[dict[str, Any]]:
    """Rows of the table `moved_tokens`, without the point's own columns, for the originals and every variant.

    Args:
        panel: The runs of the point.
        tokens: Their tokens, in the order of the panel's seeds.
        config: Level, draws and seed.
    """
    rows: list[dict[str, Any]] = []
    for variant in (ORIGINAL, *panel.factors):
        if all(variant in run.tokens for run in tokens):
            rows += _variant_rows(panel, variant, tokens, config)
    return rows


def _variant_rows(panel: Panel, variant: str, tokens: Sequence[RunTokens], config: ShiftConfig) -> list[dict[str, Any]]:
    first = tokens[0].tokens[variant]
    counted = _taking_part(panel, variant, tokens[0])
    num_strings = len(first.strings)
    num_documents = np.bincount(first.string[counted], minlength=num_strings)
    counts = np.bincount(first.string[counted], weights=first.count[counted], minlength=num_strings)
    totals = np.mean([_totals(panel, variant, run, first.strings) for run in tokens], axis=0)
    eligible = np.flatnonzero(num_documents >= MIN_TOKEN_DOCUMENTS)
    means = totals[eligible] / counts[eligible]
    order = eligible[np.argsort(-means, kind="stable")]
    mean_of = dict(zip(eligible.tolist(), means.tolist(), strict=True))
    chosen = [(string, "up", rank) for rank, string in enumerate(_head(order, mean_of, 1.0), 1)]
    chosen += [(string, "down", rank) for rank, string in enumerate(_head(order[::-1], mean_of, -1.0), 1)]
    intervals = _intervals(panel, variant, tokens, [string for string, _, _ in chosen], config)
    return [
        {
            "variant": variant,
            "token": first.strings[string],
            "direction": direction,
            "rank": rank,
            "num_occurrences": int(counts[string]),
            "num_documents": int(num_documents[string]),
            "estimate": mean_of[string],
            "ci_low": low,
            "ci_high": high,
        }
        for (string, direction, rank), (low, high) in zip(chosen, intervals, strict=True)
    ]


def _head(order: npt.NDArray[np.int64], mean_of: dict[int, float], sign: float) -> list[int]:
    return [string for string in order.tolist() if sign * mean_of[string] > 0][:NUM_MOVED_TOKENS]


def _taking_part(panel: Panel, variant: str, tokens: RunTokens) -> npt.NDArray[np.bool_]:
    """Pairs whose text takes part, shape (O,): the panel's documents, where every seed has scored this variant of theirs."""
    chosen: npt.NDArray[np.bool_] = _rows_of_documents(panel, variant, tokens)[tokens.tokens[variant].document] >= 0
    return chosen


def _rows_of_documents(panel: Panel, variant: str, tokens: RunTokens) -> npt.NDArray[np.int64]:
    """For every document of a run its place in the panel, -1 where it or its text under some seed is missing."""
    row_of = np.full(len(tokens.documents), -1, dtype=np.int64)
    scored_D = ~np.isnan(panel.gain[panel.normalizations[0]][variant][0])  # a number under every seed, or under none
    row_of[align_documents(panel, tokens)] = np.where(scored_D, np.arange(len(panel.document_ids)), -1)
    return row_of


def _totals(panel: Panel, variant: str, tokens: RunTokens, strings: Sequence[str]) -> Floats:
    """Summed gain of every string of ``strings``, in their order."""
    sums, counted = tokens.tokens[variant], _taking_part(panel, variant, tokens)
    own = np.bincount(sums.string[counted], weights=sums.gain[counted], minlength=len(sums.strings))
    place = {string: number for number, string in enumerate(sums.strings)}
    return np.asarray([own[place[string]] if string in place else 0.0 for string in strings], dtype=np.float64)


def _intervals(panel: Panel, variant: str, tokens: Sequence[RunTokens], strings: Sequence[int], config: ShiftConfig) -> list[tuple[float, float]]:
    if not strings:
        return []
    names = [tokens[0].tokens[variant].strings[string] for string in strings]
    gains_SDT, counts_DT = _by_document(panel, variant, tokens, names)
    if len(tokens) == 1:
        drawn_RK = bootstrap_means(np.concatenate([gains_SDT[0], counts_DT], axis=1), config.num_draws, seeded_rng(config, "moved tokens"))
        drawn_RT, counted_RT = drawn_RK[:, : len(names)], drawn_RK[:, len(names) :]
        ratios_RT = np.divide(drawn_RT, counted_RT, out=np.full_like(drawn_RT, np.nan), where=counted_RT > 0)
        tail = (1.0 - config.level) / 2.0
        low_T, high_T = np.nanquantile(ratios_RT, [tail, 1.0 - tail], axis=0)
        return list(zip(low_T.tolist(), high_T.tolist(), strict=True))
    found: list[tuple[float, float]] = []
    for number in range(len(names)):
        has_D = counts_DT[:, number] > 0
        gains_SD = gains_SDT[:, has_D, number]
        mean = estimate_crossed(linearised_ratio(gains_SD, np.broadcast_to(counts_DT[has_D, number], gains_SD.shape)), config)
        found.append((mean.ci_low, mean.ci_high))
    return found


def _by_document(panel: Panel, variant: str, tokens: Sequence[RunTokens], names: Sequence[str]) -> tuple[Floats, Floats]:
    """Summed gains, shape (S, D, T), and occurrences, shape (D, T), of some strings in the panel's documents."""
    gains_SDT = np.zeros((len(tokens), len(panel.document_ids), len(names)))
    counts_DT = np.zeros((len(panel.document_ids), len(names)))
    for number, run in enumerate(tokens):
        sums = run.tokens[variant]
        column_of = np.full(len(sums.strings), -1)
        place = {string: index for index, string in enumerate(sums.strings)}
        for column, name in enumerate(names):
            if name in place:
                column_of[place[name]] = column
        rows, columns = _rows_of_documents(panel, variant, run)[sums.document], column_of[sums.string]
        kept = (rows >= 0) & (columns >= 0)
        gains_SDT[number, rows[kept], columns[kept]] = sums.gain[kept]
        counts_DT[rows[kept], columns[kept]] = sums.count[kept]
    return gains_SDT, counts_DT
