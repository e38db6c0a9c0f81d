"""What a study report says beside its numbers: methods, sources, limits."""

from collections.abc import Sequence

from lmdissect.factors import CONTROL
from lmdissect.report.findings import HEADLINE_RULE
from lmdissect.report.study.content import StudyContent, group_rows
from lmdissect.report.text import join_words
from lmdissect.wording import format_level

__all__ = ["SOURCES", "limits", "methods"]

_SEVERAL = 2
_MOST_NAMES = 6

SOURCES: Sequence[tuple[str, str]] = (
    (
        "The decomposition, the variants, and the analyses over data size, position, capacity, independence and mixture",
        "Xiao Zhang and Ji Wu. Dissecting learning and forgetting in language model finetuning. ICLR 2024.",
    ),
    (
        "Bootstrap intervals",
        "Bradley Efron. Better bootstrap confidence intervals. Journal of the American Statistical Association 82 (1987), 171\u2013185.",
    ),
    (
        "Permutation p-values that are never 0",
        "Belinda Phipson and Gordon K. Smyth. Permutation p-values should never be zero. Statistical Applications in Genetics and Molecular Biology 9 (2010), 39.",
    ),
    (
        "Adjusted p-values",
        "Sture Holm. A simple sequentially rejective multiple test procedure. Scandinavian Journal of Statistics 6 (1979), 65\u201370.",
    ),
    (
        "Degrees of freedom where seeds and documents are crossed",
        "Franklin E. Satterthwaite. An approximate distribution of estimates of variance components. Biometrics Bulletin 2 (1946), 110\u2013114.",
    ),
    ("Colours", "Masataka Okabe and Kei Ito. Color universal design (2008)."),
)
"""What was taken from whom."""


def methods(content: StudyContent) -> list[str]:
    """The method in a page, for a paper's appendix."""
    level = format_level(content.level)
    return [
        (
            "A text is seen as determined by its topic, its style and its facts. A variant is the same document with one of these factors changed; the control is "
            "a paraphrase that changes none. Every text is scored by the model before finetuning (base) and after (tuned): the log-probability of each token given "
            "those before it, in nats."
        ),
        (
            "The gain of a text is its log-likelihood per token under the tuned model less that under the base model. The shift of a factor is the gain of the "
            "original less the gain of the variant, averaged over documents. A shift above 0 says that finetuning moved the model towards the original\u2019s value "
            "of the factor, one below 0 that it moved away. The net shift is the gain of the control less the gain of the variant: the same, with what rewriting "
            "alone does taken off."
        ),
        (
            f"Documents are the unit. With one training seed, intervals ({level}) come from a paired bootstrap over documents, and the test is a paired sign-flip "
            "permutation test of the mean. With two seeds or more, seeds are crossed with documents: variance components of both, a t interval with Satterthwaite "
            "degrees of freedom. p-values are adjusted by Holm\u2019s method over all variants of one reference, unit and point. A statement says that a factor moved "
            "only where its interval leaves out 0 and its adjusted p is small enough; else it says that this is not shown."
        ),
        HEADLINE_RULE,
        (
            "The share of a factor is its mean shift divided by the mean gain on the same documents; it is left out where the interval of that gain covers 0. Shares "
            "need not add up to 100 %."
        ),
    ]


def limits(content: StudyContent) -> list[str]:
    """What the numbers cannot say."""
    lines = [
        (
            "Variants are written by a language model or a person. Whatever they change beyond their factor is counted as that factor; the control bounds this, it does "
            "not remove it, and a control by another writer than the variants\u2019 bounds it less."
        ),
        "A shift is a change of preference measured by likelihood. It is not a test of what a model can do with the knowledge.",
        "Probe documents may have been part of a base model\u2019s pretraining; the look for probes in the finetuning corpus cannot see that.",
        "Not shown is not the same as zero: the interval says how large a shift could have been missed.",
    ]
    return [*lines, *_control_limits(content), *_seed_limits(content)]


def _control_limits(content: StudyContent) -> list[str]:
    """Probe sets without a control."""
    rows = content.tables["estimates"]
    known = list(dict.fromkeys(row["probes"] for row in rows))
    controlled = {row["probes"] for row in rows if CONTROL in (row["factor"], row["reference"])}
    bare = [probes for probes in known if probes not in controlled]
    if (known and len(bare) == len(known)) or (not known and content.control is None):
        return ["These probes have no control: what the writer of the variants does to every shift is unknown here."]
    return [f"{_listed(bare)} without a control: what the writer of the variants does to every shift on it is unknown here."] if bare else []


def _seed_limits(content: StudyContent) -> list[str]:
    """Points with one training seed, by experiment."""
    points = group_rows(content.tables["runs"], "experiment", "point", "probes")
    single = [key for key, rows in points.items() if len({row["seed"] for row in rows}) < _SEVERAL]
    if len(single) == len(points):
        return ["One training seed: the intervals are over documents, for these training runs alone; another seed could give other numbers."]
    if not single:
        return []
    names = []
    for experiment in dict.fromkeys(key[0] for key in single):
        alone = list(dict.fromkeys(point for name, point, _ in single if name == experiment))
        every = {point for name, point, _ in points if name == experiment}
        names.append(experiment if len(alone) == len(every) else f"{experiment} ({_listed(alone)})")
    said = f"One training seed in {_listed(names)}: the intervals there are over documents, for these training runs alone; another seed could give other numbers."
    return [said]


def _listed(names: Sequence[str]) -> str:
    shown = [str(name) for name in names[:_MOST_NAMES]]
    return join_words([*shown, f"{len(names) - _MOST_NAMES} more"]) if len(names) > _MOST_NAMES else join_words(shown)
