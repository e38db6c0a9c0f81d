"""Which point of a study cloze rows belong to: known by weights and texts, whatever the paths were called."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from lmdissect.formats.cloze_terms import ClozeTerm, read_cloze, term_table
from lmdissect.formats.study_tables import SCHEMAS, write_study_table
from lmdissect.pipeline.cloze_names import ClozeAnswers, name_cloze
from lmdissect.pipeline.gathering import gather_runs
from lmdissect.records import StudyRun
from lmdissect.shifts import measure_shifts
from lmdissect.store import hash_text, open_artifact
from score_tables import documents_from_gains, save_scores
from study_runs import CONFIG, save_run

GAINS = {"original": [0.3, 0.5], "casual": [0.1, 0.2]}
TEXTS = ["original0w0 original0w1 original0w2 original0w3", "original1w0 original1w1 original1w2 original1w3"]
"""The originals of `GAINS`, as `documents_from_gains` makes them."""


def _model(weights: str, reference: str, *, adapter: str | None = None) -> dict[str, Any]:
    return {"reference": reference, "tokenizer": "words", "weights": weights, "config": "c", "adapter": adapter}


def _save_cloze(
    folder: Path,
    tuned: Sequence[dict[str, Any]],
    *,
    base: dict[str, Any] | None = None,
    texts: Sequence[str] = TEXTS,
    source: str = "data/probes.jsonl",
    level: float = 0.95,
    **named: str,
) -> Path:
    """A cloze artifact as `lmdissect cloze` leaves it; ``named``: what the user called experiment, point and probes."""
    labels = {"experiment": "cloze", "point": ", ".join(model["reference"] for model in tuned), "probes": source, **named}
    row = {**labels, "variant": "counterfactual", "selection": "number", "measure": "contrast", "is_headline": True, "estimate": 0.1}
    details = {
        "base_model": base or _model("base", "./models/base"),
        "tuned_models": list(tuned),
        "probes": source,
        "level": level,
        "unavailable": [{"variant": "rap", "reason": "no terms"}],
    }
    with open_artifact(folder, stage="cloze", config={"cloze": {}, **labels}, inputs={"n": 1}) as artifact:
        artifact.write_table("terms.parquet", term_table([_term(f"d{number}", text) for number, text in enumerate(texts)]))
        files = ["terms.parquet", *write_study_table(artifact, "cloze", pa.Table.from_pylist([row], schema=SCHEMAS["cloze"]))]
        artifact.finish(counts={}, details=details, files=files)
    return folder


def _term(document_id: str, text: str) -> ClozeTerm:
    return ClozeTerm(
        term_id=f"{document_id}#0",
        document_id=document_id,
        variant="counterfactual",
        kind="number",
        selections=("number",),
        context="context ",
        true_term="5",
        other_term="6",
        distractors=(),
        copied=False,
        context_cut=False,
        text_hash=hash_text(text),
    )


def _run(folder: Path, *, point: str, seed: int = 0, probes: str = "pubmed", **others: Any) -> StudyRun:
    """Its tuned model's weights are ``tuned E POINT SEED PROBES end``, whatever the run says that the model is called."""
    return replace(save_run(folder, GAINS, experiment="E", point=point, seed=seed, probes=probes, **others), tuned_model=f"runs/{point}")


def _tuned(point: str, seed: int = 0, probes: str = "pubmed", **others: Any) -> dict[str, Any]:
    return _model(f"tuned E {point} {seed} {probes} end", "/an/absolute/path, with a comma/t", **others)


def _named(folder: Path, runs: Sequence[StudyRun]) -> tuple[str, str, str]:
    rows, gaps = name_cloze(ClozeAnswers(*read_cloze(folder)), runs)
    names = [(row["experiment"], row["point"], row["probes"]) for row in rows]
    assert [(gap.experiment, gap.point, gap.probes) for gap in gaps] == names
    assert [(gap.table, gap.variant, gap.reason) for gap in gaps] == [("cloze", "rap", "no terms")]
    return names[0]


def test_a_model_is_known_by_its_weights_and_a_probe_set_by_its_texts(tmp_path: Path) -> None:
    runs = [_run(tmp_path, point="P"), _run(tmp_path, point="Q")]
    assert _named(_save_cloze(tmp_path / "c", [_tuned("Q")]), runs) == ("E", "Q", "pubmed")


def test_seeds_of_one_point_and_of_two(tmp_path: Path) -> None:
    runs = [_run(tmp_path, point=point, seed=seed) for point in ("P", "Q") for seed in (0, 1)]
    assert _named(_save_cloze(tmp_path / "c", [_tuned("P", 0), _tuned("P", 1)]), runs) == ("E", "P", "pubmed")
    both = [_tuned("P"), _tuned("Q")]
    assert _named(_save_cloze(tmp_path / "d", both), runs) == ("cloze", ", ".join(model["reference"] for model in both), "probes")


@pytest.mark.parametrize("change", [{"adapter": "of another training"}, {"config": "another"}, {"weights": "other weights"}])
def test_other_weights_or_another_adapter_are_another_model(tmp_path: Path, change: dict[str, Any]) -> None:
    runs, model = [_run(tmp_path, point="P")], _tuned("P")
    assert _named(_save_cloze(tmp_path / "c", [{**model, **change}]), runs)[0] == "cloze"
    other_base = {**_model("base", "base"), **change}
    assert _named(_save_cloze(tmp_path / "d", [model], base=other_base), runs)[0] == "cloze"


def test_of_two_probe_sets_the_one_with_the_texts(tmp_path: Path) -> None:
    """One model, measured on two probe sets with equal ids: the texts decide."""
    base, tuned = documents_from_gains({"general": GAINS["original"], "original": GAINS["casual"]})
    swapped = [[replace(text, variant={"general": "original", "original": "casual"}[text.variant]) for text in texts] for texts in (base, tuned)]
    for name, texts in zip(("base", "tuned"), swapped, strict=True):
        save_scores(tmp_path / "scores" / name, texts, model={"base": "base", "tuned": "tuned E P 0 pubmed end"}[name])
    measure_shifts(tmp_path / "scores" / "base", tmp_path / "scores" / "tuned", CONFIG, tmp_path / "general")
    run = _run(tmp_path, point="P")
    runs = [replace(run, probes="general", shift_folder=tmp_path / "general"), run]
    assert _named(_save_cloze(tmp_path / "c", [_tuned("P")], source="elsewhere/general.jsonl"), runs) == ("E", "P", "pubmed")
    assert _named(_save_cloze(tmp_path / "d", [_tuned("P")], texts=["nowhere", "no more"]), runs) == ("E", "P", "probes")
    (tmp_path / "general" / "documents.parquet").unlink()
    assert _named(tmp_path / "c", runs) == ("E", "P", "pubmed")


def test_names_that_the_user_gave_stay(tmp_path: Path) -> None:
    runs = [_run(tmp_path, point="P"), _run(tmp_path, point="Q")]
    assert _named(_save_cloze(tmp_path / "c", [_tuned("P")], experiment="E", point="mine"), runs) == ("E", "mine", "probes")
    assert _named(_save_cloze(tmp_path / "d", [_tuned("P")], experiment="E", point="P"), runs) == ("E", "P", "pubmed")
    assert _named(_save_cloze(tmp_path / "e", [_tuned("P")], probes="called so"), runs) == ("E", "P", "called so")


def test_gathered_with_the_runs(tmp_path: Path) -> None:
    """A comparison and a cloze of one model, each named by its own path."""
    run = _run(tmp_path, point="P", probes="pubmed")
    gathered = gather_runs([_save_cloze(tmp_path / "cloze", [_tuned("P")]), run.shift_folder])
    (compared,) = gathered.runs
    (row,) = gathered.cloze
    assert (row["experiment"], row["point"], row["probes"]) == (compared.experiment, compared.point, compared.probes)
    assert [(gap.point, gap.reason) for gap in gathered.gaps] == [(compared.point, "no terms")]


def test_a_cloze_of_another_level_or_of_a_point_that_has_one_is_left_out(tmp_path: Path) -> None:
    run = _run(tmp_path, point="P", probes="pubmed")
    folders = [_save_cloze(tmp_path / name, [_tuned("P")], level=level) for name, level in (("wide", 0.99), ("first", 0.95), ("second", 0.95))]
    gathered = gather_runs([*folders, run.shift_folder])
    assert len(gathered.cloze) == 1
    reasons = [gap.reason for gap in gathered.gaps if gap.variant == "all"]
    assert "its intervals are at 99 %, the study's at 95 %: measure it again with lmdissect cloze --level 0.95" in reasons[0]
    assert "another cloze folder of the same point" in reasons[1]
    assert len(gather_runs([*folders[:2], run.shift_folder], level=0.99).cloze) == 1
