"""Two scores folders in, every table out: on disk, complete, reusable, and refused where something does not fit."""

import csv
import re
import time
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lmdissect.errors import MismatchedScoresError, NothingToDoError, StaleArtifactError, UnreadableInputError
from lmdissect.formats.shift_tables import CSV_TABLES, TABLES, read_shift_tables
from lmdissect.progress import LineProgress
from lmdissect.shifts import ShiftConfig, measure_shifts
from lmdissect.store import Manifest
from score_tables import ScoredText, documents_from_gains, save_scores

CONFIG = ShiftConfig(num_draws=200)
NAN = float("nan")

SHIFT_COLUMNS = [
    "base_model",
    "tuned_model",
    "factor",
    "variant",
    "reference",
    "normalization",
    "estimate",
    "ci_low",
    "ci_high",
    "level",
    "ci_method",
    "p_value",
    "p_holm",
    "num_documents",
    "base_contrast",
    "tuned_contrast",
    "gain",
    "share",
    "share_ci_low",
    "share_ci_high",
]
DOCUMENTED_COLUMNS = {
    "shifts": SHIFT_COLUMNS,
    "losses": [
        "variant",
        "factor",
        "num_documents",
        "num_tokens",
        "num_bytes",
        "base_loss_nats",
        "tuned_loss_nats",
        "base_nats_per_byte",
        "tuned_nats_per_byte",
        "base_perplexity",
        "tuned_perplexity",
    ],
    "gains": ["variant", "factor", "normalization", "num_documents", "estimate", "ci_low", "ci_high", "p_value"],
    "position": [
        "variant",
        "factor",
        "document_set",
        "bin_start",
        "bin_end",
        "num_documents",
        "base_contrast",
        "tuned_contrast",
        "estimate",
        "ci_low",
        "ci_high",
        "gain",
        "gain_ci_low",
        "gain_ci_high",
    ],
    "cumulative": ["variant", "factor", "position", "share", "ci_low", "ci_high", "num_documents"],
    "fact_tokens": [
        "variant",
        "selection",
        "statistic",
        "num_documents",
        "num_original_tokens",
        "num_variant_tokens",
        "base_contrast",
        "tuned_contrast",
        "estimate",
        "ci_low",
        "ci_high",
        "p_value",
    ],
    "interactions": ["variant", "first_variant", "second_variant", "normalization", "num_documents", "estimate", "ci_low", "ci_high", "p_value"],
    "examples": ["document_id", "variant", "text", "shift", "char_start", "char_end", "base_logprob_nats", "tuned_logprob_nats"],
    "documents": ["document_id", "variant", "normalization", "base_value", "tuned_value", "truncated", "kept_words", "text_hash"],
}
NULLABLE = {
    "kept_words",
    "factor",
    "share",
    "share_ci_low",
    "share_ci_high",
    "shift",
    "base_loss_nats",
    "tuned_loss_nats",
    "base_perplexity",
    "tuned_perplexity",
}
VARIANTS = ("original", "nonbiomedical", "casual", "counterfactual", "paraphrase", "nonbiomedical_casual")


def _rich(num_documents: int = 14, seed: int = 0) -> tuple[list[ScoredText], list[ScoredText]]:
    """Documents of different lengths, six variants, words that partly agree, and numbers that differ."""
    rng = np.random.default_rng(seed)
    base, tuned = [], []
    for d in range(num_documents):
        length = int(rng.integers(6, 24))
        for variant in VARIANTS:
            swap = {"counterfactual": 5, "paraphrase": 3, "casual": 1}.get(variant, 2)
            words = [f"w{n}" if variant == "original" or n % swap else f"{variant}{d}" for n in range(length)]
            words[1] = str(10 * d + len(variant))
            scores = rng.normal(-3.0, 0.7, length)
            gain = 0.4 if variant in {"original", "paraphrase"} else 0.1
            base.append(ScoredText(f"d{d}", variant, " ".join(words), scores))
            tuned.append(ScoredText(f"d{d}", variant, " ".join(words), scores + rng.normal(gain, 0.1, length)))
    return base, tuned


def _measure(
    tmp_path: Path, base: list[ScoredText], tuned: list[ScoredText], *, config: ShiftConfig = CONFIG, **options: Any
) -> tuple[Manifest, dict[str, list[dict[str, Any]]]]:
    save_scores(tmp_path / "base", base)
    save_scores(tmp_path / "tuned", tuned, model="tuned", **options)
    measure_shifts(tmp_path / "base", tmp_path / "tuned", config, tmp_path / "shifts")
    return read_shift_tables(tmp_path / "shifts")


def test_tables_on_disk_are_the_documented_ones(tmp_path: Path) -> None:
    manifest, tables = _measure(tmp_path, *_rich())
    assert set(tables) | {"documents"} == set(TABLES) == set(DOCUMENTED_COLUMNS)
    assert set(manifest.files) == {f"{name}.parquet" for name in TABLES} | {f"{name}.csv" for name in CSV_TABLES}
    for name, columns in DOCUMENTED_COLUMNS.items():
        table = pq.read_table(tmp_path / "shifts" / f"{name}.parquet")
        assert table.column_names == columns, name
        assert table.num_rows > 0, name
        for column in set(columns) - NULLABLE:
            assert table[column].null_count == 0, (name, column)
        for field in table.schema:
            if pa.types.is_floating(field.type):
                values = table[field.name].drop_null().to_numpy()
                assert np.isfinite(values).all(), (name, field.name)


def test_csv_holds_what_parquet_holds(tmp_path: Path) -> None:
    _measure(tmp_path, *_rich())
    for name in CSV_TABLES:
        rows = pq.read_table(tmp_path / "shifts" / f"{name}.parquet").to_pylist()
        with (tmp_path / "shifts" / f"{name}.csv").open(encoding="utf-8", newline="") as stream:
            reader = csv.DictReader(stream)
            assert reader.fieldnames == DOCUMENTED_COLUMNS[name]
            found = list(reader)
        assert len(found) == len(rows)
        for text, row in zip(found, rows, strict=True):
            for column, value in row.items():
                if value is None:
                    assert text[column] == ""
                else:
                    assert type(value)(text[column]) == value, (name, column)


def test_shift_rows_are_variants_by_reference_by_normalization(tmp_path: Path) -> None:
    _, tables = _measure(tmp_path, *_rich())
    keys = [(row["normalization"], row["variant"], row["reference"]) for row in tables["shifts"]]
    order = ("nonbiomedical", "casual", "counterfactual", "paraphrase", "nonbiomedical_casual")
    expected = [
        (normalization, variant, reference)
        for normalization in ("token", "byte", "document")
        for variant in order
        for reference in (("original",) if variant == "paraphrase" else ("original", "control"))
    ]
    assert keys == expected
    assert {row["variant"]: row["factor"] for row in tables["shifts"]} == {
        "nonbiomedical": "topic",
        "casual": "style",
        "counterfactual": "factual",
        "paraphrase": "control",
        "nonbiomedical_casual": "topic+style",
    }


def test_losses_are_pooled_never_means_of_means(tmp_path: Path) -> None:
    base = [
        ScoredText("d1", "original", "a", (-1.0,)),
        ScoredText("d2", "original", "bb cc dd", (NAN, -4.0, -6.0)),
        ScoredText("d3", "original", "e f", (-2.0, -3.0)),
        ScoredText("d1", "casual", "x", (-2.0,)),
        ScoredText("d2", "casual", "y", (-4.0,)),
    ]
    tuned = [ScoredText(text.document_id, text.variant, text.text, [score / 2 for score in text.logprob_nats]) for text in base]
    manifest, tables = _measure(tmp_path, base, [text for text in tuned if text.document_id != "d3"])
    original, casual = tables["losses"]
    assert (original["variant"], original["num_documents"], original["num_tokens"], original["num_bytes"]) == ("original", 2, 3, 7)
    assert original["base_loss_nats"] == pytest.approx(11 / 3)  # a mean of means would be (1 + 5) / 2
    assert original["tuned_loss_nats"] == pytest.approx(5.5 / 3)
    assert original["base_nats_per_byte"] == pytest.approx(11 / 7)
    assert original["base_perplexity"] == pytest.approx(np.exp(11 / 3))  # the exponential of the mean
    assert casual["base_loss_nats"] == pytest.approx(3.0)
    assert manifest.details["num_dropped"] == 1


def test_identical_models_pass_their_check(tmp_path: Path) -> None:
    base, _ = _rich()
    save_scores(tmp_path / "base", base)
    measure_shifts(tmp_path / "base", tmp_path / "base", CONFIG, tmp_path / "shifts")
    manifest, tables = read_shift_tables(tmp_path / "shifts")
    assert all(row["estimate"] == 0.0 and row["p_value"] == 1.0 and row["share"] is None for row in tables["shifts"])
    assert all(row["estimate"] == 0.0 for name in ("gains", "position", "fact_tokens", "interactions") for row in tables[name])
    assert tables["cumulative"] == []
    check = manifest.details["checks"]["identical models give shifts of exactly 0"]
    assert check == {"passed": True, "text": "the two models are identical; every shift is exactly 0"}


def test_identical_models_with_other_scores_fail_their_check(tmp_path: Path) -> None:
    base, tuned = _rich()
    manifest, _ = _measure(tmp_path, base, tuned, weights="base")
    assert manifest.details["checks"]["identical models give shifts of exactly 0"]["passed"] is False


def test_unequal_conditions_are_told(tmp_path: Path) -> None:
    base, tuned = _rich()
    manifest, _ = _measure(tmp_path, base, tuned, config=CONFIG)
    assert manifest.details["checks"]["scored under equal conditions"]["passed"] is True
    save_scores(tmp_path / "bf16", tuned, model="tuned", config={"dtype": "bfloat16"})
    measure_shifts(tmp_path / "base", tmp_path / "bf16", CONFIG, tmp_path / "other")
    check = read_shift_tables(tmp_path / "other")[0].details["checks"]["scored under equal conditions"]
    assert check["passed"] is False
    assert "bfloat16" in check["text"]


def test_variants_are_described(tmp_path: Path) -> None:
    """Headline: net where the variant keeps under half of the original's words and there is a control."""
    texts = []
    for d in range(4):
        rewrites = {"original": "a b c d", "casual": "a x y z", "counterfactual": "a b c 5", "paraphrase": "w x y z"}
        texts += [
            ScoredText(f"d{d}", variant, f"{words} {d}", (-1.0,) * (5 if (variant, d) != ("casual", 3) else 2)) for variant, words in rewrites.items()
        ]
    manifest, _ = _measure(tmp_path, texts, texts)
    found = manifest.details["variants"]
    assert {name: details["kept_words_median"] for name, details in found.items()} == {"casual": 0.4, "counterfactual": 0.8, "paraphrase": 0.2}
    assert {name: details["headline_reference"] for name, details in found.items()} == {
        "casual": "control",
        "counterfactual": "original",
        "paraphrase": "original",
    }
    assert {name: details["num_truncated"] for name, details in found.items()} == {"casual": 1, "counterfactual": 0, "paraphrase": 0}
    assert {details["num_documents"] for details in found.values()} == {4}


def test_what_was_dropped_is_counted_and_named(tmp_path: Path) -> None:
    base, tuned = documents_from_gains({"original": [0.1] * 5, "casual": [0.0] * 3})
    manifest, tables = _measure(tmp_path, base, tuned)
    assert manifest.counts == {"documents": 5, "variants": 1, "dropped_texts": 2}
    assert manifest.details["dropped"] == [
        {"variant": "casual", "document_id": name, "reason": "the document has no such variant"} for name in ("d3", "d4")
    ]
    assert {row["num_documents"] for row in tables["shifts"]} == {3}


def test_other_tokenizers_leave_bytes_and_say_what_is_missing(tmp_path: Path) -> None:
    manifest, tables = _measure(tmp_path, *_rich(), tokenizer="other")
    assert manifest.details["tokenizers_equal"] is False
    for name in ("shifts", "gains", "interactions"):
        assert {row["normalization"] for row in tables[name]} == {"byte"}
    for name in ("position", "cumulative", "fact_tokens", "examples"):
        assert tables[name] == []
    assert {row["base_loss_nats"] for row in tables["losses"]} == {None}
    assert all(row["base_nats_per_byte"] > 0 for row in tables["losses"])
    said = {entry["table"] for entry in manifest.details["unavailable"] if "tokenizers differ" in entry["reason"]}
    assert said == {"shifts", "position", "cumulative", "fact_tokens", "examples"}


def test_cut_texts_are_no_part_of_a_loss_per_byte_under_other_tokenizers(tmp_path: Path) -> None:
    texts = [ScoredText(f"d{number}", variant, "four words of text", (-1.0,) * 4) for number in range(3) for variant in ("original", "casual")]
    texts[0] = ScoredText("d0", "original", "four words of text", (-9.0, -9.0))  # the limit cut it, elsewhere for each tokenizer
    _, tables = _measure(tmp_path, texts, texts, tokenizer="other")
    losses = {row["variant"]: row for row in tables["losses"]}
    assert (losses["original"]["num_documents"], losses["casual"]["num_documents"]) == (2, 3)
    assert losses["original"]["base_nats_per_byte"] == losses["casual"]["base_nats_per_byte"]


@pytest.mark.parametrize(
    ("generators", "prompts", "expected"),
    [
        ({}, {}, "not recorded"),
        ({"casual": "a"}, {}, "not recorded"),
        ({"casual": "a", "paraphrase": "b"}, {}, "another writer"),
        ({"casual": "a", "paraphrase": "a"}, {"casual": "1"}, "same writer, prompts not recorded"),
        ({"casual": "a", "paraphrase": "a"}, {"casual": "1", "paraphrase": "2"}, "same writer, another prompt frame"),
        ({"casual": "a", "paraphrase": "a"}, {"casual": "1", "paraphrase": "1"}, "same writer and prompt frame"),
    ],
)
def test_a_variants_writer_is_compared_with_the_controls(tmp_path: Path, generators: dict[str, str], prompts: dict[str, str], expected: str) -> None:
    base, _ = documents_from_gains({"original": [0.1] * 3, "casual": [0.0] * 3, "paraphrase": [0.0] * 3})
    save_scores(tmp_path / "scores", base, generators=generators, prompt_hashes=prompts)
    measure_shifts(tmp_path / "scores", tmp_path / "scores", ShiftConfig(num_draws=100), tmp_path / "out")
    variants = read_shift_tables(tmp_path / "out")[0].details["variants"]
    assert variants["casual"]["writer_against_control"] == expected
    assert variants["paraphrase"]["writer_against_control"] is None


def test_examples_are_whole_documents_with_their_tokens(tmp_path: Path) -> None:
    base, tuned = _rich(40)
    _, tables = _measure(tmp_path, base, tuned, config=ShiftConfig(num_draws=200, num_examples=4))
    assert len(tables["examples"]) == 4 * len(VARIANTS)
    assert len({row["document_id"] for row in tables["examples"]}) == 4
    texts = {(text.document_id, text.variant): text for text in base}
    after = {(text.document_id, text.variant): text for text in tuned}
    for row in tables["examples"]:
        key = row["document_id"], row["variant"]
        assert row["text"] == texts[key].text
        assert row["base_logprob_nats"] == pytest.approx(list(texts[key].logprob_nats), abs=1e-6)
        assert row["tuned_logprob_nats"] == pytest.approx(list(after[key].logprob_nats), abs=1e-6)
        pieces = [row["text"][start:end] for start, end in zip(row["char_start"], row["char_end"], strict=True)]
        assert "".join(pieces) == row["text"]
        if row["variant"] == "original":
            assert row["shift"] is None
        else:
            gains = [
                np.mean(after[row["document_id"], v].logprob_nats) - np.mean(texts[row["document_id"], v].logprob_nats)
                for v in ("original", row["variant"])
            ]
            assert row["shift"] == pytest.approx(gains[0] - gains[1], abs=1e-5)


def test_half_of_the_examples_are_those_that_moved_most(tmp_path: Path) -> None:
    gains = {"original": [0.0] * 50, "casual": [5.0 if number in {7, 31} else 0.001 * number for number in range(50)]}
    _, tables = _measure(tmp_path, *documents_from_gains(gains), config=ShiftConfig(num_draws=200, num_examples=4))
    moved_most = {"d7", "d31", "d49", "d48", "d47"}  # a tenth of them
    assert len(moved_most & {row["document_id"] for row in tables["examples"]}) >= 2
    _, none = _measure(tmp_path / "none", *documents_from_gains(gains), config=ShiftConfig(num_draws=200, num_examples=0))
    assert none["examples"] == []


def test_an_unscored_first_token_stays_null_in_examples(tmp_path: Path) -> None:
    texts = [ScoredText(f"d{d}", v, f"{v} {d} words", (NAN, -1.0, -2.0)) for d in range(3) for v in ("original", "casual")]
    _, tables = _measure(tmp_path, texts, texts)
    assert all(row["base_logprob_nats"] == [None, -1.0, -2.0] for row in tables["examples"])


def test_the_same_scores_give_the_same_tables(tmp_path: Path) -> None:
    _, first = _measure(tmp_path / "1", *_rich())
    _, second = _measure(tmp_path / "2", *_rich())
    assert first == second
    _, other = _measure(tmp_path / "3", *_rich(), config=ShiftConfig(num_draws=200, seed=1))
    assert [row["estimate"] for row in other["shifts"]] == [row["estimate"] for row in first["shifts"]]
    assert [row["ci_low"] for row in other["shifts"]] != [row["ci_low"] for row in first["shifts"]]


def test_finished_shifts_are_reused_and_say_so(tmp_path: Path) -> None:
    _measure(tmp_path, *_rich())
    stream = StringIO()
    summary = measure_shifts(tmp_path / "base", tmp_path / "tuned", CONFIG, tmp_path / "shifts", progress=LineProgress(stream))
    assert (summary.reused, summary.num_documents, summary.num_dropped) == (True, 14, 0)
    assert "reused" in stream.getvalue()


@pytest.mark.parametrize(
    ("change", "named"), [({"seed": 3}, "seed: 0 there, 3 here"), ({"level": 0.9}, "level: 0.95 there, 0.9 here"), ({"num_draws": 201}, "num_draws")]
)
def test_other_settings_are_refused_by_name(tmp_path: Path, change: dict[str, object], named: str) -> None:
    _measure(tmp_path, *_rich())
    with pytest.raises(StaleArtifactError, match=named):
        measure_shifts(tmp_path / "base", tmp_path / "tuned", CONFIG.model_copy(update=change), tmp_path / "shifts")
    cure = f"choose another --out; lmdissect shift --base {tmp_path / 'base'} --tuned {tmp_path / 'tuned'} --out DIR takes the scores"
    with pytest.raises(StaleArtifactError, match=re.escape(cure)):
        measure_shifts(tmp_path / "base", tmp_path / "tuned", CONFIG.model_copy(update=change), tmp_path / "shifts")


def test_a_damaged_table_is_named_and_made_again(tmp_path: Path) -> None:
    _measure(tmp_path, *_rich())
    (tmp_path / "shifts" / "gains.csv").unlink()
    stream = StringIO()
    measure_shifts(tmp_path / "base", tmp_path / "tuned", CONFIG, tmp_path / "shifts", progress=LineProgress(stream))
    assert f"{tmp_path / 'shifts'}: gains.csv is missing or damaged and is made again" in stream.getvalue()
    assert (tmp_path / "shifts" / "gains.csv").is_file()


def test_shifts_of_other_scores_are_refused(tmp_path: Path) -> None:
    """The same request scored again with another outcome (another machine, another version) is another input."""
    base, tuned = _rich()
    _measure(tmp_path, base, tuned)
    save_scores(
        tmp_path / "scored again", [ScoredText(t.document_id, t.variant, t.text, np.asarray(t.logprob_nats) - 1e-3) for t in tuned], model="tuned"
    )
    with pytest.raises(StaleArtifactError, match="tuned_scores"):
        measure_shifts(tmp_path / "base", tmp_path / "scored again", CONFIG, tmp_path / "shifts")


def test_nothing_is_written_where_nothing_can_be_compared(tmp_path: Path) -> None:
    save_scores(tmp_path / "base", [ScoredText("d", "original", "a b", (-1.0, -2.0))])
    with pytest.raises(NothingToDoError):
        measure_shifts(tmp_path / "base", tmp_path / "base", CONFIG, tmp_path / "shifts")
    assert not (tmp_path / "shifts").exists()
    save_scores(tmp_path / "other", [ScoredText("d", "original", "a c", (-1.0, -2.0))])
    with pytest.raises(MismatchedScoresError):
        measure_shifts(tmp_path / "base", tmp_path / "other", CONFIG, tmp_path / "shifts")
    with pytest.raises(UnreadableInputError, match="no such folder"):
        measure_shifts(tmp_path / "base", tmp_path / "missing", CONFIG, tmp_path / "shifts")


@pytest.mark.slow
def test_a_thousand_documents_take_seconds(tmp_path: Path) -> None:
    base, tuned = _rich(1000)
    save_scores(tmp_path / "base", base)
    save_scores(tmp_path / "tuned", tuned, model="tuned")
    started_s = time.monotonic()
    measure_shifts(tmp_path / "base", tmp_path / "tuned", ShiftConfig(num_draws=10_000), tmp_path / "shifts")
    assert time.monotonic() - started_s < 60
