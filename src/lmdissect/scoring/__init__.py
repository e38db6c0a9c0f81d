"""Texts + model -> token scores: float32 log-probabilities, each token scored once. The only place with the log p formula is `logprobs`."""

from lmdissect.scoring.chunks import Shard
from lmdissect.scoring.config import ScoringConfig
from lmdissect.scoring.score import ScoringSummary, score_live_model, score_probe_set, score_texts, scores_key

__all__ = ["ScoringConfig", "ScoringSummary", "Shard", "score_live_model", "score_probe_set", "score_texts", "scores_key"]
