"""Token scores of two models -> factor shifts with intervals and tests. Numpy only; torch is never loaded here.

Read in this order: `pairs` (what is compared with what), `resampling` (intervals and tests), `estimate` (contrast, shift, gain, share), then the refinements
`position`, `fact_tokens`, `interactions`; `measure` puts them into one artifact.
"""

from lmdissect.shifts.config import ShiftConfig
from lmdissect.shifts.estimate import estimate_gains, estimate_shifts
from lmdissect.shifts.measure import ShiftSummary, measure_shifts
from lmdissect.shifts.pairs import PairedScores, pair_scores
from lmdissect.shifts.resampling import bootstrap_means, confidence_interval, holm, sign_flip_p_values

__all__ = [
    "PairedScores",
    "ShiftConfig",
    "ShiftSummary",
    "bootstrap_means",
    "confidence_interval",
    "estimate_gains",
    "estimate_shifts",
    "holm",
    "measure_shifts",
    "pair_scores",
    "sign_flip_p_values",
]
