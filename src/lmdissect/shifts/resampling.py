"""Intervals and tests over documents. The unit is the document: tokens of one document are not independent.

Shape letters: D documents, K quantities measured on every document, R draws.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr, ndtri

__all__ = ["Floats", "bootstrap_means", "confidence_interval", "holm", "sign_flip_p_values"]

Floats = npt.NDArray[np.float64]

_DRAWN_VALUES = 4_000_000  # indices or signs held at once: bounds the memory whatever D and R are


def bootstrap_means(values_DK: Floats, num_draws: int, rng: np.random.Generator) -> Floats:
    """Means of resampled documents; all columns share each draw, so differences and ratios of columns keep their pairing.

        mean*_rk = sum_d w_rd v_dk / sum_d w_rd,   w_r ~ multinomial(D, 1/D), sums over the documents where v_dk is not NaN

    Args:
        values_DK: One row per document; NaN where a quantity is not defined for a document.
        num_draws: R.
        rng: Where the draws come from.

    Returns:
        Shape (R, K). NaN where a draw holds no document with that quantity.
    """
    num_documents = len(values_DK)
    present_DK = ~np.isnan(values_DK)
    filled_DK = np.where(present_DK, values_DK, 0.0)
    everywhere = bool(present_DK.all())
    means_RK = np.empty((num_draws, values_DK.shape[1]))
    step = max(1, _DRAWN_VALUES // num_documents)
    for start in range(0, num_draws, step):
        size = min(step, num_draws - start)
        drawn = rng.integers(0, num_documents, size=(size, num_documents)) + np.arange(size)[:, None] * num_documents
        weights = np.bincount(drawn.ravel(), minlength=size * num_documents).reshape(size, num_documents).astype(np.float64)
        totals = np.float64(num_documents) if everywhere else weights @ present_DK
        with np.errstate(invalid="ignore", divide="ignore"):
            means_RK[start : start + size] = (weights @ filled_DK) / totals
    return means_RK


def confidence_interval(values_D: Floats, means_R: Floats, level: float, method: str) -> tuple[float, float, str]:
    """Bootstrap interval of a mean.

    ``percentile``: quantiles of the resampled means. ``bca``: the same at quantiles corrected for bias z0 and acceleration a,

        z0 = Phi^-1(share of resampled means below the estimate, ties half)
        a  = sum_d u_d^3 / (6 (sum_d u_d^2)^1.5),   u_d = v_d - mean   (the jackknife of a mean)

    Where every document has the same value, all resampled means lie on one side, or bias and skew are so strong that the correction has no finite
    value, BCa is undefined; the percentile interval is given instead and the returned method says so.

    Args:
        values_D: The documents' values, without NaN.
        means_R: Their resampled means.
        level: For example 0.95.
        method: ``bca`` or ``percentile``.

    Returns:
        Low end, high end, method used.

    Source: Efron (1987), "Better bootstrap confidence intervals", JASA 82.
    """
    tail = (1.0 - level) / 2.0
    quantiles = np.array([tail, 1.0 - tail])
    used = method
    if method == "bca":
        corrected = _bca_quantiles(values_D, means_R, quantiles)
        used = "bca" if corrected is not None else "percentile (bca undefined)"
        quantiles = quantiles if corrected is None else corrected
    low, high = np.quantile(means_R, quantiles)
    return float(low), float(high), used


def _bca_quantiles(values_D: Floats, means_R: Floats, quantiles: Floats) -> Floats | None:
    mean = values_D.mean()
    deviations = values_D - mean
    spread = float((deviations**2).sum())
    below = float(((means_R < mean) + 0.5 * (means_R == mean)).mean())
    if np.ptp(values_D) == 0.0 or spread == 0.0 or not 0.0 < below < 1.0:
        return None
    bias = ndtri(below)
    acceleration = float((deviations**3).sum()) / (6.0 * spread**1.5)
    shifted = bias + ndtri(quantiles)
    if (acceleration * shifted >= 1.0).any():
        return None
    return np.asarray(ndtr(bias + shifted / (1.0 - acceleration * shifted)), dtype=np.float64)


def sign_flip_p_values(values_DK: Floats, num_draws: int, rng: np.random.Generator) -> Floats:
    """Paired permutation test of "the mean is 0": under it every document's value could have had the other sign.

        p_k = (b_k + 1) / (R + 1),   b_k = number of sign-flipped means at least as far from 0 as the observed one

    Args:
        values_DK: One row per document, NaN where a quantity is not defined for a document.
        num_draws: R.
        rng: Where the signs come from.

    Returns:
        Two-sided p-values, shape (K,). 1.0 where every value is 0.
    """
    filled_DK = np.nan_to_num(values_DK)
    observed = np.abs(filled_DK.sum(axis=0))
    tolerance = 1.0 - 1e-12  # the observed arrangement itself must count as at least as far, whatever the order of summation
    num_documents = len(filled_DK)
    exceeding = np.zeros(filled_DK.shape[1], dtype=np.int64)
    step = max(1, _DRAWN_VALUES // num_documents)
    for start in range(0, num_draws, step):
        signs = rng.integers(0, 2, size=(min(step, num_draws - start), num_documents), dtype=np.int8).astype(np.float64) * 2.0 - 1.0
        exceeding += (np.abs(signs @ filled_DK) >= observed * tolerance).sum(axis=0)
    p_values: Floats = ((exceeding + 1.0) / (num_draws + 1.0)).astype(np.float64)
    return p_values


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment: p_(i) becomes max over j <= i of (m - j + 1) p_(j), at most 1.

    Source: Holm (1979), "A simple sequentially rejective multiple test procedure", Scand. J. Statist. 6.
    """
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for rank, index in enumerate(order):
        highest = max(highest, (len(p_values) - rank) * p_values[index])
        adjusted[index] = min(1.0, highest)
    return adjusted
