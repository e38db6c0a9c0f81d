"""The sections of a study report, in order: what each asks, its figures, its tables, and what it would need where it has none."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lmdissect.formats.study_tables import ANALYSES
from lmdissect.report.study import analyses, estimates
from lmdissect.report.study.charts import Chart
from lmdissect.report.study.content import Row, StudyContent
from lmdissect.report.study.statements import findings_first
from lmdissect.report.study.tables import StudyTable, build_tables

__all__ = ["Section", "build_sections"]


@dataclass(frozen=True, slots=True)
class Section:
    """One analysis.

    Attributes:
        name: Its name in `ANALYSES`, and its id on the page.
        title: Its heading.
        question: What it asks, in a sentence.
        statements: What may be said, findings first.
        charts: Its figures; a reader chooses one of them.
        tables: Its tables.
        need: What would have to be run for it; empty where there are rows.
    """

    name: str
    title: str
    question: str
    statements: Sequence[Row]
    charts: Sequence[Chart]
    tables: Sequence[StudyTable]
    need: str


@dataclass(frozen=True, slots=True)
class _Plan:
    title: str
    question: str
    need: str
    charts: Callable[[StudyContent], list[Chart]]


_PLANS = {
    "learned": _Plan(
        "What was learned",
        "On probes of the training domain: which factor's value did finetuning move the model towards?",
        "a run measured on probes of the training domain, with variants that change one factor each",
        lambda content: estimates.learned_charts(content, "learned"),
    ),
    "forgotten": _Plan(
        "What was forgotten",
        "On general probes: did the model lose knowledge, or did its prior over topic and style move away?",
        "a run measured on general probes (web text) beside those of the training domain",
        lambda content: estimates.learned_charts(content, "forgotten"),
    ),
    "curves": _Plan(
        "Along data, steps, rank and mixture",
        "How do gain and shifts grow with what was varied?",
        "an experiment that varies one field over two or more values, or runs measured on their way",
        estimates.curve_charts,
    ),
    "position": _Plan(
        "Where in the text",
        "At which token positions were gain and shifts made?",
        "runs whose token scores are kept, on texts of more than a few tokens",
        analyses.position_charts,
    ),
    "capacity": _Plan(
        "How much capacity each factor needs",
        "Which LoRA rank is enough to reach a given share of full finetuning\u2019s shift?",
        "an experiment that varies the LoRA rank and has full finetuning among its points",
        analyses.capacity_charts,
    ),
    "tempo": _Plan(
        "How rapidly each factor moved",
        "Where on a curve is half of the last shift reached?",
        "a curve over data size or steps whose last shift can be told from 0",
        analyses.tempo_charts,
    ),
    "independence": _Plan(
        "Independence of the factors",
        "What moves when the training corpus differs in one factor alone?",
        "runs trained on corpora that differ in one factor, measured on the same probes",
        estimates.independence_charts,
    ),
    "interactions": _Plan(
        "Interaction of topic and style",
        "Do two factors changed together move by the sum of what they move alone?",
        "a variant that changes two factors at once, beside the two that change one each",
        analyses.interaction_charts,
    ),
    "facts": _Plan(
        "Facts, on the words that changed",
        "On the tokens of the words that differ between original and counterfactual: did the model move towards the facts?",
        "a factual variant whose words can be aligned with the originals\u2019",
        analyses.fact_charts,
    ),
    "cloze": _Plan(
        "Key terms in their true context",
        "Given the original\u2019s context, did the true term gain on the counterfactual\u2019s?",
        "a factual variant, key terms or aligned words, and the cloze pass over them",
        analyses.cloze_charts,
    ),
    "natural": _Plan(
        "Natural pairs beside written ones",
        "Does style by pairs that people wrote agree with style by variants that a language model wrote?",
        "a probe set of natural pairs (technical text and plain-language summary by people)",
        analyses.natural_charts,
    ),
    "fingerprint": _Plan(
        "The rewriter\u2019s fingerprint",
        "How much does a shift come from who wrote the variants? The control changes nothing but the wording; its own shift should be 0.",
        "a control variant (a paraphrase that keeps topic, style and facts)",
        analyses.fingerprint_charts,
    ),
    "moved": _Plan(
        "What moved most",
        "Which documents and which tokens carry the change?",
        "runs whose token scores are kept",
        analyses.moved_charts,
    ),
}


def build_sections(content: StudyContent) -> list[Section]:
    """Every section, in report order, with or without rows."""
    sections = []
    for name in ANALYSES:
        plan = _PLANS[name]
        tables = build_tables(content, name)
        charts = [chart for chart in plan.charts(content) if any(series.marks for panel in chart.panels for series in panel.series)]
        statements = findings_first(content.statements(name))
        need = "" if charts or tables or statements else plan.need
        sections.append(Section(name, plan.title, plan.question, statements, charts, tables, need))
    return sections
