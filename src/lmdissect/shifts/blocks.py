"""Bootstrap and sign-flip test for many documents, in blocks.

The plain way costs R D K multiplications and R D random numbers: 1.5e11 multiplications for 100,000 documents, 150 columns and 10,000 draws, and 1e9 random
numbers for every set of columns that is drawn by itself. Here the documents are put at random into B blocks of about m = 1,000. For each block N = 1,000
resamples of its own documents are made, as sums (one product of N x m by m x K). A draw takes one resample of every block, chosen at random, and adds them up:
B additions instead of D. There are N^B different draws, so 10,000 of them hardly ever meet the same one.

*Bootstrap.* With v the values less their mean over all documents, T_b the sum of block b and T_bn that of its resample n:

    S_r = sum_b [ sqrt(N / (N - 1)) (T_bn(r,b) - mean_n T_bn)  +  g_rb T_b / sqrt(m_b) ],     g_rb ~ N(0, 1),     mean*_r = mean + S_r / D

1. A block's resamples are centred on their own mean, which has the expectation T_b: else their chance offset would move the whole interval by 1/sqrt(N) standard errors.
   sqrt(N / (N - 1)) gives back the spread that centring takes.
2. Resampling inside blocks holds the block totals fixed: the variance is SS_within, sum_b sum_d in b (v_d - T_b / m_b)^2, where the plain bootstrap has SS_total. The
   rest is SS_between = sum_b T_b^2 / m_b, about one part in m; the second term adds exactly that, for all columns together, so covariances agree too.
3. What is left: the variance is estimated from N B resampled blocks, a relative error of sqrt(2 / (N B)), under the sqrt(2 / R) of R plain draws as long as N B > R;
   the third cumulant is too small by about 3 parts in m.

Where a column lacks documents, v is 0 there, and the number of documents present is resampled as a further column: mean* = mean + S_r / count*_r.

*Sign-flip test.* Signs are independent from document to document, so blocks leave nothing out: T_bn is the sum of the block's values under N random sets of
signs, and each chosen one gets another random sign for the whole block, which makes the distribution symmetric exactly.

Shape letters: D documents, K quantities, R draws, B blocks, N resamples of a block.
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from lmdissect.shifts.resampling import Floats

__all__ = ["BLOCKED_FROM", "blocked_means", "blocked_sign_flip_p_values"]

BLOCKED_FROM = 20_000
"""Documents from which on blocks are used: twenty blocks. Below, the plain way takes seconds."""

_BLOCK_DOCUMENTS = 1_000
_RESAMPLES = 1_000
_DRAWS_AT_ONCE = 1_000


def blocked_means(
    values_DK: Floats, num_draws: int, rng: np.random.Generator, *, block_documents: int = _BLOCK_DOCUMENTS, num_resamples: int = _RESAMPLES
) -> Floats:
    """Means of resampled documents, shape (R, K), as `bootstrap_means` gives them; all columns share each draw.

    Args:
        values_DK: One row per document; NaN where a quantity is not defined for a document.
        num_draws: R.
        rng: Where the draws come from.
        block_documents: m.
        num_resamples: N.
    """
    num_documents, num_columns = values_DK.shape
    means_K, counts_K, patterns, pattern_K = _present(values_DK)
    extra = len(patterns)
    sums_RK = np.zeros((num_draws, num_columns + extra))
    for rows in _blocks(num_documents, block_documents, rng):
        values = values_DK[rows] - means_K
        present = ~np.isnan(values)
        block = np.concatenate([np.where(present, values, 0.0), present[:, patterns] - counts_K[patterns] / num_documents], axis=1)
        resampled = _resampled_sums(block, num_resamples, rng)
        chosen = rng.integers(0, num_resamples, size=num_draws)
        between = rng.standard_normal(num_draws)
        total = block.sum(axis=0) / np.sqrt(len(rows))
        for start in range(0, num_draws, _DRAWS_AT_ONCE):
            part = slice(start, start + _DRAWS_AT_ONCE)
            sums_RK[part] += resampled[chosen[part]] + between[part, None] * total
    counts_RK = counts_K + (sums_RK[:, num_columns:][:, pattern_K] if extra else 0.0)
    means_RK: Floats = means_K + sums_RK[:, :num_columns] / counts_RK
    return means_RK


def _present(values_DK: Floats) -> tuple[Floats, Floats, npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Means and counts of the columns, one column of each pattern of missing documents, and each column's pattern. No patterns where nothing is missing."""
    counts_K = np.empty(values_DK.shape[1])
    means_K = np.empty(values_DK.shape[1])
    first: dict[bytes, int] = {}
    pattern_K = np.zeros(values_DK.shape[1], dtype=np.int64)
    for column in range(values_DK.shape[1]):
        values_D = values_DK[:, column]
        present_D = ~np.isnan(values_D)
        counts_K[column] = present_D.sum()
        means_K[column] = values_D[present_D].mean()
        pattern_K[column] = list(first).index(key) if (key := np.packbits(present_D).tobytes()) in first else len(first)
        first.setdefault(key, column)
    if (counts_K == len(values_DK)).all():
        return means_K, counts_K, np.empty(0, dtype=np.int64), pattern_K
    return means_K, counts_K, np.asarray(list(first.values()), dtype=np.int64), pattern_K


def _blocks(num_documents: int, block_documents: int, rng: np.random.Generator) -> Iterator[npt.NDArray[np.int64]]:
    """Documents in random blocks of almost equal size."""
    yield from np.array_split(rng.permutation(num_documents), max(1, num_documents // block_documents))


def _resampled_sums(block: Floats, num_resamples: int, rng: np.random.Generator) -> Floats:
    """Sums of N resamples of a block, centred on their own mean, with the spread that centring takes given back; shape (N, K)."""
    size = len(block)
    drawn = rng.integers(0, size, size=(num_resamples, size), dtype=np.int64) + np.arange(num_resamples)[:, None] * size
    weights = np.bincount(drawn.ravel(), minlength=num_resamples * size).reshape(num_resamples, size).astype(np.float64)
    sums = weights @ block
    centred: Floats = (sums - sums.mean(axis=0)) * np.sqrt(num_resamples / (num_resamples - 1))
    return centred


def blocked_sign_flip_p_values(
    values_DK: Floats, num_draws: int, rng: np.random.Generator, *, block_documents: int = _BLOCK_DOCUMENTS, num_resamples: int = _RESAMPLES
) -> Floats:
    """Paired permutation test of "the mean is 0", shape (K,), as `sign_flip_p_values` gives it.

    Args:
        values_DK: One row per document, NaN where a quantity is not defined for a document.
        num_draws: R.
        rng: Where the signs come from.
        block_documents: m.
        num_resamples: N.
    """
    observed = np.abs(np.nansum(values_DK, axis=0))
    sums_RK = np.zeros((num_draws, values_DK.shape[1]))
    for rows in _blocks(len(values_DK), block_documents, rng):
        signs = rng.integers(0, 2, size=(num_resamples, len(rows)), dtype=np.int8).astype(np.float64) * 2.0 - 1.0
        flipped = signs @ np.nan_to_num(values_DK[rows])
        chosen = rng.integers(0, num_resamples, size=num_draws)
        whole = rng.integers(0, 2, size=num_draws) * 2.0 - 1.0
        for start in range(0, num_draws, _DRAWS_AT_ONCE):
            part = slice(start, start + _DRAWS_AT_ONCE)
            sums_RK[part] += whole[part, None] * flipped[chosen[part]]
    tolerance = 1.0 - 1e-12  # the observed arrangement itself must count as at least as far, whatever the order of summation
    exceeding = (np.abs(sums_RK) >= observed * tolerance).sum(axis=0)
    p_values: Floats = (exceeding + 1.0) / (num_draws + 1.0)
    return p_values
