"""A synthetic world in which topic, style and facts are separate by construction and every likelihood is exact: the instrument's known truth.

Read in this order: `grammar` (what a text is), `world` (a language model that knows the grammar, and its exact scores), `plants` (the base world and the
changes planted into it), `rewriting` (documents and their variants), `truth` (the exact expected shift), `tables` (exact scores as a scores artifact), `tallies`
(what many probe sets say of bias, coverage, leak and power) and `goals`.
"""

from lmdissect.calibration.config import CalibrationConfig
from lmdissect.calibration.goals import check_goals
from lmdissect.calibration.grammar import Floats, Grammar, TextBatch
from lmdissect.calibration.jobs import PARTS, Job, list_jobs
from lmdissect.calibration.plants import PLANTS, Plant, base_world, plant_world, resize_plant
from lmdissect.calibration.rewriting import FACTORS, VARIANTS, ProbeDraw, Rewriter, draw_corpus, draw_probes
from lmdissect.calibration.tables import make_score_table, probe_set_of, write_score_artifact
from lmdissect.calibration.tallies import TALLIES, tally_trials
from lmdissect.calibration.truth import expected_gain, expected_shift
from lmdissect.calibration.world import WorldModel

__all__ = [
    "FACTORS",
    "PARTS",
    "PLANTS",
    "TALLIES",
    "VARIANTS",
    "CalibrationConfig",
    "Floats",
    "Grammar",
    "Job",
    "Plant",
    "ProbeDraw",
    "Rewriter",
    "TextBatch",
    "WorldModel",
    "base_world",
    "check_goals",
    "draw_corpus",
    "draw_probes",
    "expected_gain",
    "expected_shift",
    "list_jobs",
    "make_score_table",
    "plant_world",
    "probe_set_of",
    "resize_plant",
    "tally_trials",
    "write_score_artifact",
]
