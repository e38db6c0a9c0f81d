"""LaTeX: names are printed, never run."""
# ruff: noqa: RUF001 - the report prints true minus signs

import re
from pathlib import Path

import pytest

from lmdissect.report.latex import escape_latex, write_latex
from unit.report.shift_artifact import Details, Tables, build_content, keep_variants


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("a_b & c%", r"a\_b \& c\%"),
        (r"\input{/etc/passwd}", r"\textbackslash{}input\{/etc/passwd\}"),
        ("$x^2$ #1 ~", r"\$x\textasciicircum{}2\$ \#1 \textasciitilde{}"),
        ("[1]*", "{[}1{]}{*}"),
        ("−0.064", "$-$0.064"),
        ("a\nb\x00", "a b?"),
        ('<a>|"', r"\textless{}a\textgreater{}\textbar{}\textquotedbl{}"),
    ],
)
def test_special_characters_are_escaped(text: str, escaped: str) -> None:
    assert escape_latex(text) == escaped


def test_one_booktabs_table_per_normalization(tmp_path: Path) -> None:
    text = write_latex(build_content(tmp_path))
    assert text.count(r"\begin{table}") == text.count(r"\end{table}") == 3
    assert text.count(r"\toprule") == text.count(r"\bottomrule") == 3
    casual = next(line for line in text.splitlines() if line.startswith("style & casual"))
    assert casual == (
        r"style & casual & 80 & +0.065 {[}0.050, 0.080{]} & \textless{} 0.001 & +0.046 {[}0.034, 0.058{]} & \textless{} 0.001 & 22 \% {[}16, 28{]} \\"
    )
    rows = [line for line in text.splitlines() if re.search(r"[^\\]&", line) and "multicolumn" not in line]
    assert all(len(re.findall(r"(?<!\\)&", row)) == 7 for row in rows)


def test_hostile_names_cannot_leave_their_cell(tmp_path: Path) -> None:
    def change(tables: Tables, details: Details) -> None:
        keep_variants("casual")(tables, details)
        details["tuned_model"]["reference"] = r"a} \write18{rm} % \end{table} &"

    text = write_latex(build_content(tmp_path, change))
    assert r"\write18" not in text.replace(r"\textbackslash{}write18", "")
    assert text.count(r"\end{table}") == 3
