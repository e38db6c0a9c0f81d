"""Documents -> variants, by an instruction-following language model.

Read in this order: `prompt` (what is asked), `generator` (who is asked) and its three kinds (`endpoint`, `local_model`, `scripted`), `ledger` (what is
never lost), `limiter` (how many at once), `judging` (is it a rewrite?), `asking` (one rewrite from prompt to outcome), `run` (all of them),
`questions` (what is no rewrite).
"""

from lmdissect.rewrite.asking import RewriteOutcome
from lmdissect.rewrite.batch_files import BatchExport, BatchImport, export_batch, import_batch
from lmdissect.rewrite.config import RewriteConfig
from lmdissect.rewrite.endpoint import ChatEndpoint
from lmdissect.rewrite.estimate import Estimate, estimate_run
from lmdissect.rewrite.generator import Generator
from lmdissect.rewrite.outcomes import Outcome
from lmdissect.rewrite.prices import Price, generator_price
from lmdissect.rewrite.questions import Question
from lmdissect.rewrite.run import AskedQuestions, RewriteWork, ask_questions, open_work, outcomes_as_they_stand, rewrite_documents
from lmdissect.rewrite.scripted import ScriptedGenerator
from lmdissect.rewrite.summary import RewriteSummary, make_probe_set

__all__ = [
    "AskedQuestions",
    "BatchExport",
    "BatchImport",
    "ChatEndpoint",
    "Estimate",
    "Generator",
    "Outcome",
    "Price",
    "Question",
    "RewriteConfig",
    "RewriteOutcome",
    "RewriteSummary",
    "RewriteWork",
    "ScriptedGenerator",
    "ask_questions",
    "estimate_run",
    "export_batch",
    "generator_price",
    "import_batch",
    "make_probe_set",
    "open_work",
    "outcomes_as_they_stand",
    "rewrite_documents",
]
