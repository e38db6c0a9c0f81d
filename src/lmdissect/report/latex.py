"""The shift table for a paper: LaTeX with booktabs, one table per normalization."""

from collections.abc import Iterator

from lmdissect.factors import CONTROL, ORIGINAL
from lmdissect.records import FactorShift
from lmdissect.report.content import ReportContent, Variant
from lmdissect.report.findings import HEADLINE_RULE, factor_noun, run_sentence
from lmdissect.report.text import REPLACEMENT, clean_text
from lmdissect.wording import UNITS, format_estimate, format_p, format_share

__all__ = ["escape_latex", "write_latex"]

_ESCAPES = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    # After the end of a row, a bracket or a star would be read as an argument of the row break.
    "[": "{[}",
    "]": "{]}",
    "*": "{*}",
    "\u2212": "$-$",
    "\u2013": "--",
    "\u00a0": "~",
    "\n": " ",
    "\t": " ",
    REPLACEMENT: "?",
}


def escape_latex(text: str) -> str:
    """``text`` as LaTeX that prints it and does nothing else."""
    return "".join(_ESCAPES.get(character, character) for character in clean_text(text))


def write_latex(content: ReportContent) -> str:
    """The whole file: comments on how to include it, then the tables."""
    lines = [r"% Needs \usepackage{booktabs}; include with \input{tables.tex}."]
    for normalization in content.normalizations():
        lines += ["", *_table_lines(content, normalization)]
    return "\n".join(lines) + "\n"


def _table_lines(content: ReportContent, normalization: str) -> Iterator[str]:
    caption = (
        f"Shift in {UNITS[normalization]} from {content.base_model} to {content.tuned_model}. Positive: towards the originals\u2019 value of the factor. "
        f"{run_sentence(content)} {HEADLINE_RULE}"
    )
    yield from (r"\begin{table}", r"\centering\small", rf"\caption{{{escape_latex(caption)}}}", rf"\label{{tab:shifts-{normalization}}}")
    yield from (r"\begin{tabular}{llrlrlrl}", r"\toprule")
    yield r"& & & \multicolumn{2}{c}{Against the original} & \multicolumn{2}{c}{Net of the control} & \\"
    yield r"\cmidrule(lr){4-5}\cmidrule(lr){6-7}"
    yield r"Factor & Variant & $n$ & Shift & $p_\mathrm{Holm}$ & Shift & $p_\mathrm{Holm}$ & Share \\"
    yield r"\midrule"
    for variant in content.variants:
        cells = [factor_noun(variant.factor), variant.name, *_numbers(content, variant, normalization)]
        yield " & ".join(escape_latex(cell) for cell in cells) + r" \\"
    yield from (r"\bottomrule", r"\end{tabular}", r"\end{table}")


def _numbers(content: ReportContent, variant: Variant, normalization: str) -> list[str]:
    own = content.shifts.get((variant.name, ORIGINAL, normalization))
    net = content.shifts.get((variant.name, CONTROL, normalization))
    chosen = net if net is not None and variant.headline_reference == CONTROL else own
    count = str(chosen.num_documents) if chosen is not None else "\u2013"
    return [count, *_pair(content, own), *_pair(content, net), _share(chosen)]


def _pair(content: ReportContent, row: FactorShift | None) -> list[str]:
    if row is None:
        return ["\u2013", "\u2013"]
    return [format_estimate(row.estimate, row.ci_low, row.ci_high, content.decimals[row.normalization]), format_p(row.p_holm)]


def _share(row: FactorShift | None) -> str:
    if row is None or row.share is None or row.share_ci_low is None or row.share_ci_high is None:
        return "\u2013"
    return format_share(row.share, row.share_ci_low, row.share_ci_high)
