"""The scores artifact on disk: schema, nulls, and what comes back."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lmdissect.errors import DamagedArtifactError, UnreadableInputError
from lmdissect.formats.scores import read_scores
from lmdissect.store import open_artifact
from score_tables import ScoredText, save_scores

NAN = float("nan")
TEXTS = [
    ScoredText("d1", "original", "one two three", (NAN, -2.0, -3.0)),
    ScoredText("d1", "casual", "", ()),
    ScoredText("d2", "original", "é", (NAN,)),
    ScoredText("d2", "casual", "four five six", (-1.0, -0.5)),
]


def test_what_was_written_comes_back(tmp_path: Path) -> None:
    table = save_scores(tmp_path / "s", TEXTS, key_terms={"d1": ["two", "three"]})
    assert table.document_ids == ["d1", "d1", "d2", "d2"]
    assert table.variants == ["original", "casual", "original", "casual"]
    assert table.texts == [text.text for text in TEXTS]
    assert table.rows == {("d1", "original"): 0, ("d1", "casual"): 1, ("d2", "original"): 2, ("d2", "casual"): 3}
    assert table.factors == {"casual": "style"}
    assert table.key_terms == {"d1": ["two", "three"]}
    assert table.num_tokens.tolist() == [3, 0, 1, 3]
    assert table.num_scored.tolist() == [2, 0, 0, 2]
    assert table.num_scored_bytes.tolist() == [10, 0, 0, 9]
    assert table.truncated.tolist() == [False, False, False, True]
    np.testing.assert_array_equal(table.logprob_nats, [-5.0, NAN, NAN, -1.5])
    assert table.token_offsets.tolist() == [0, 3, 3, 4, 6]
    np.testing.assert_array_equal(table.token_logprob_nats, np.array([NAN, -2, -3, NAN, -1, -0.5], np.float32))
    assert table.token_logprob_nats.dtype == np.float32
    assert [table.texts[0][table.token_char_start[i] : table.token_char_end[i]] for i in range(3)] == ["one", " two", " three"]
    assert (table.model, table.tokenizer) == ("base", "words")


def test_columns_are_the_documented_ones(tmp_path: Path) -> None:
    save_scores(tmp_path / "s", TEXTS)
    documents = pq.read_table(tmp_path / "s" / "document_scores.parquet")
    assert documents.column_names == ["document_id", "variant", "num_tokens", "num_scored", "num_scored_bytes", "truncated", "logprob_nats"]
    assert documents["logprob_nats"].to_pylist() == [-5.0, None, None, -1.5]
    assert documents.schema.field("logprob_nats").type == pa.float64()
    tokens = pq.read_table(tmp_path / "s" / "token_scores.parquet")
    assert tokens.column_names == ["document_id", "variant", "position", "token_id", "char_start", "char_end", "logprob_nats"]
    assert tokens["logprob_nats"].to_pylist() == [None, -2.0, -3.0, None, -1.0, -0.5]  # null, never 0 and never NaN
    assert tokens.schema.field("logprob_nats").type == pa.float32()
    assert tokens["position"].to_pylist() == [0, 1, 2, 0, 0, 1]
    assert tokens["document_id"].to_pylist() == ["d1"] * 3 + ["d2"] * 3
    texts = pq.read_table(tmp_path / "s" / "texts.parquet")
    assert texts.column_names == ["document_id", "variant", "factor", "text", "key_terms"]
    assert texts["factor"].to_pylist() == [None, "style", None, "style"]


def test_no_text_at_all(tmp_path: Path) -> None:
    table = save_scores(tmp_path / "s", [])
    assert table.token_offsets.tolist() == [0]
    assert table.rows == {}


def test_many_tokens_span_row_groups(tmp_path: Path) -> None:
    """Parquet cuts a table into row groups of about a million rows, each with its own dictionary of ids."""
    length = 70_000
    text = "x " * length
    texts = [ScoredText(f"d{number}", "original", text.strip(), np.full(length, -1.0 - number)) for number in range(16)]
    table = save_scores(tmp_path / "s", texts)
    assert pq.ParquetFile(tmp_path / "s" / "token_scores.parquet").num_row_groups > 1
    assert table.token_offsets.tolist() == [length * number for number in range(17)]
    assert [float(table.token_logprob_nats[table.tokens(row)].mean()) for row in range(16)] == [-1.0 - number for number in range(16)]


def test_other_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UnreadableInputError, match="no such folder"):
        read_scores(tmp_path / "nothing")
    with open_artifact(tmp_path / "other", stage="shift", config={}, inputs={}) as artifact:
        artifact.finish(counts={}, details={})
    with pytest.raises(UnreadableInputError, match="'shift'"):
        read_scores(tmp_path / "other")


def test_a_missing_table_is_named(tmp_path: Path) -> None:
    save_scores(tmp_path / "s", TEXTS)
    (tmp_path / "s" / "token_scores.parquet").unlink()
    with pytest.raises(DamagedArtifactError, match=r"token_scores\.parquet"):
        read_scores(tmp_path / "s")
