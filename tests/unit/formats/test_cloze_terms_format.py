"""Terms survive their file."""

from pathlib import Path

import pyarrow as pa
import pytest

from lmdissect.errors import DamagedArtifactError, UnreadableInputError
from lmdissect.formats.cloze_terms import STAGE, ClozeTerm, read_cloze, term_table
from lmdissect.formats.study_tables import SCHEMAS, write_study_table
from lmdissect.store import open_artifact

TERMS = tuple(
    ClozeTerm(
        term_id=f"d#{number}",
        document_id="d",
        variant="counterfactual" if other else "original",
        kind="named",
        selections=("changed", "named"),
        context="a “quoted”\n",
        true_term="Fe²⁺",
        other_term=other,
        distractors=("x", "y")[: number + 1],
        copied=bool(number),
        context_cut=False,
        text_hash="0f" * 32,
    )
    for number, other in enumerate(("Cu²⁺", None))
)


def _write(folder: Path) -> None:
    with open_artifact(folder, stage=STAGE, config={}, inputs={}) as artifact:
        artifact.write_table("terms.parquet", term_table(TERMS))
        files = write_study_table(artifact, "cloze", pa.Table.from_pylist([{"measure": "contrast", "estimate": 0.5}], schema=SCHEMAS["cloze"]))
        artifact.finish(counts={}, details={}, files=["terms.parquet", *files])


def test_round_trip(tmp_path: Path) -> None:
    _write(tmp_path / "cloze")
    _, terms, rows = read_cloze(tmp_path / "cloze")
    assert terms == TERMS
    assert [(row["measure"], row["estimate"], row["variant"]) for row in rows] == [("contrast", 0.5, None)]


def test_a_changed_file_is_not_read(tmp_path: Path) -> None:
    _write(tmp_path)
    (tmp_path / "terms.parquet").write_bytes(b"x")
    with pytest.raises(DamagedArtifactError, match=r"terms\.parquet"):
        read_cloze(tmp_path)


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(UnreadableInputError):
        read_cloze(tmp_path)
