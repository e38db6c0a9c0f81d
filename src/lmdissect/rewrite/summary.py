"""What a run made: outcomes on disk, counts, costs, and the probe set in it."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from lmdissect.factors import ORIGINAL
from lmdissect.recipes import Recipe
from lmdissect.records import Document, ProbeSet, ProbeText, RejectedRecord
from lmdissect.rewrite.asking import Asker, RewriteOutcome
from lmdissect.rewrite.prompt import instruction_hash, prompt_hash
from lmdissect.store import ArtifactFolder, fingerprint, hash_text

if TYPE_CHECKING:
    from lmdissect.rewrite.run import RewriteWork

__all__ = ["OUTCOMES_FILE", "STAGE", "RewriteSummary", "make_probe_set", "write_outcomes", "write_summary"]

STAGE = "rewrite"
OUTCOMES_FILE = "outcomes.parquet"

_SCHEMA = pa.schema(
    [
        ("document_id", pa.string()),
        ("variant", pa.string()),
        ("factor", pa.string()),
        ("outcome", pa.string()),
        ("text", pa.string()),
        ("attempts", pa.int32()),
        ("removed", pa.list_(pa.string())),
        ("detail", pa.string()),
        ("key", pa.string()),
        ("answered_by", pa.string()),
        ("input_tokens", pa.int64()),
        ("output_tokens", pa.int64()),
        ("cost_usd", pa.float64()),
    ]
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RewriteSummary:
    """Outcome of a run.

    Attributes:
        folder: Where everything is.
        outcomes: One for every (document, recipe), document by document.
        generator: Who wrote, and where, in one line.
        prompt_hash: Hash of the prompt frame.
        num_sent: Requests sent in this run, every try counted.
        num_capacity_refusals: How many of them met a server at capacity (429).
        input_tokens: Tokens of all prompts behind the outcomes, as far as the server said.
        output_tokens: Tokens of all answers, likewise.
        cost_usd: What the outcomes cost, in US dollars, over all runs; None where the price is not known.
        spent_usd: What everything in the ledger cost; None likewise.
    """

    folder: Path
    outcomes: tuple[RewriteOutcome, ...]
    generator: str
    prompt_hash: str
    num_sent: int
    num_capacity_refusals: int
    input_tokens: int
    output_tokens: int
    cost_usd: float | None
    spent_usd: float | None

    def counts(self) -> dict[str, dict[str, int]]:
        """Outcomes by variant: ``{variant: {outcome: number}}``, the most frequent first."""
        tables: dict[str, Counter[str]] = {}
        for outcome in self.outcomes:
            tables.setdefault(outcome.variant, Counter())[outcome.outcome.value] += 1
        return {variant: dict(table.most_common()) for variant, table in tables.items()}


def write_summary(work: "RewriteWork", outcomes: Sequence[RewriteOutcome], asker: Asker) -> RewriteSummary:
    """Write `outcomes.parquet` and, last, `manifest.json`.

    Raises:
        OutOfSpaceError: The disk is full.
    """
    costs = [outcome.cost_usd for outcome in outcomes if outcome.cost_usd is not None]
    summary = RewriteSummary(
        folder=work.folder,
        outcomes=tuple(outcomes),
        generator=work.generator.name if work.generator.is_free else f"{work.generator.name} at {work.generator.location}",
        prompt_hash=prompt_hash(structured=work.generator.structured),
        num_sent=asker.num_sent,
        num_capacity_refusals=asker.num_capacity_refusals,
        input_tokens=sum(outcome.input_tokens for outcome in outcomes),
        output_tokens=sum(outcome.output_tokens for outcome in outcomes),
        cost_usd=sum(costs) if work.price is not None else None,
        spent_usd=asker.spent_usd,
    )
    artifact = write_outcomes(work, outcomes)
    totals = Counter(outcome.outcome.value for outcome in outcomes)
    artifact.finish(
        counts={"documents": len(work.documents), "rewrites": len(outcomes), **dict(totals.most_common())},
        details=_details(work, summary),
        files=[OUTCOMES_FILE],
    )
    return summary


def write_outcomes(work: "RewriteWork", outcomes: Sequence[RewriteOutcome]) -> ArtifactFolder:
    """Write `outcomes.parquet`; gives the artifact that it belongs to, which is not finished by that.

    Raises:
        OutOfSpaceError: The disk is full.
    """
    artifact = ArtifactFolder(work.folder, STAGE, _settings(work), _inputs(work), cure="")
    artifact.write_table(OUTCOMES_FILE, _table(outcomes))
    return artifact


def make_probe_set(documents: Sequence[Document], recipes: Sequence[Recipe], summary: RewriteSummary, source: str) -> ProbeSet:
    """Originals and every rewrite whose outcome is ``ok``; the others are its rejected records.

    Args:
        documents: Originals, as they were given to the run.
        recipes: Recipes, likewise.
        summary: What the run made.
        source: Where the originals are from, in words.
    """
    texts = [ProbeText(document.document_id, ORIGINAL, document.text) for document in documents]
    texts += [ProbeText(outcome.document_id, outcome.variant, outcome.text) for outcome in summary.outcomes if outcome.text is not None]
    present = {text.variant for text in texts}
    written = [recipe for recipe in recipes if recipe.variant in present]
    return ProbeSet(
        texts=tuple(texts),
        factors={recipe.variant: recipe.factor for recipe in written},
        source=source,
        rejected=tuple(_rejected(outcome) for outcome in summary.outcomes if outcome.text is None),
        generators={recipe.variant: summary.generator for recipe in written},
        prompt_hashes={recipe.variant: summary.prompt_hash for recipe in written},
        instruction_hashes={recipe.variant: instruction_hash(recipe) for recipe in written},
    )


def _rejected(outcome: RewriteOutcome) -> RejectedRecord:
    detail = f" ({' '.join(outcome.detail.split())})" if outcome.detail else ""
    return RejectedRecord("rewriting", f"{outcome.document_id} as {outcome.variant}", f"{outcome.outcome.value}{detail}")


def _table(outcomes: Sequence[RewriteOutcome]) -> pa.Table:
    rows = [
        {**{name: getattr(outcome, name) for name in _SCHEMA.names}, "outcome": outcome.outcome.value, "removed": list(outcome.removed)}
        for outcome in outcomes
    ]
    return pa.Table.from_pylist(rows, schema=_SCHEMA)


def _settings(work: "RewriteWork") -> dict[str, Any]:
    return {
        **work.config.model_dump(mode="json"),
        "model": work.generator.name,
        "location": work.generator.location,
        "dialect": work.generator.dialect(),
        "prompt_hash": prompt_hash(structured=work.generator.structured),
    }


def _inputs(work: "RewriteWork") -> dict[str, Any]:
    documents: Mapping[str, str] = {document.document_id: hash_text(document.text) for document in work.documents}
    return {"documents": fingerprint(documents), "instructions": {recipe.variant: instruction_hash(recipe) for recipe in work.recipes}}


def _details(work: "RewriteWork", summary: RewriteSummary) -> dict[str, Any]:
    return {
        "outcomes": summary.counts(),
        "generator": summary.generator,
        "price": None
        if work.price is None
        else {"input_usd": work.price.input_usd, "output_usd": work.price.output_usd, "source": work.price.source},
        "cost_usd": summary.cost_usd,
        "spent_usd": summary.spent_usd,
        "input_tokens": summary.input_tokens,
        "output_tokens": summary.output_tokens,
        "requests_sent_in_last_run": summary.num_sent,
        "capacity_refusals_in_last_run": summary.num_capacity_refusals,
        "damaged_ledger_rows": work.ledger.num_damaged,
    }
