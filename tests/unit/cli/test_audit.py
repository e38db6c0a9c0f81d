"""`lmdissect audit` from the command line, without embeddings but for one test."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from lmdissect.probes import read_audit, read_probe_set
from lmdissect_cli import CliOutcome

ORIGINAL = "Halothane decreased the weight of 30 rats in the trial. The liver and the kidney were not affected by the drug."
CASUAL = "So they gave 30 rats halothane, and guess what? They got lighter! But hey, it didn't really do a thing to the liver or the kidney."
Run = Callable[..., CliOutcome]


@pytest.fixture
def probes(tmp_path: Path) -> Path:
    rows = []
    for number in range(4):
        rows.append({"document_id": str(number), "variant": "original", "text": ORIGINAL})
        rows.append({"document_id": str(number), "variant": "casual", "text": CASUAL.replace("30", "40") if number == 0 else CASUAL})
    path = tmp_path / "probes.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


def test_table_reasons_and_what_was_not_measured(probes: Path, run_cli: Run) -> None:
    outcome = run_cli("audit", str(probes), "--similarity", "off")
    assert outcome.code == 0
    assert "casual\tstyle\t4\t3\t75.0%\tnumbers_unaccounted 1" in outcome.out
    assert "NOT MEASURED for casual: language_kept, similarity" in outcome.out
    assert "rejected casual 0: numbers_unaccounted is 1, above 0: " in outcome.out
    assert "nothing written" in outcome.out


def test_fail_under_is_exit_1_and_only_below(probes: Path, run_cli: Run) -> None:
    assert run_cli("audit", str(probes), "--similarity", "off", "--fail-under", "0.75").code == 0
    outcome = run_cli("audit", str(probes), "--similarity", "off", "--fail-under", "0.8")
    assert outcome.code == 1
    assert "acceptance under 0.8: casual 75.0%" in outcome.err


def test_outcome_goes_into_the_folder_and_an_audit_starts_anew(probes: Path, tmp_path: Path, run_cli: Run) -> None:
    folder = tmp_path / "audited"
    assert run_cli("audit", str(probes), "--similarity", "off", "--out", str(folder)).code == 0
    assert len(read_probe_set(str(folder)).by_variant()["casual"]) == 3
    lenient = tmp_path / "rules.yaml"
    lenient.write_text("factors: {style: []}", encoding="utf-8")
    again = run_cli("audit", str(folder), "--similarity", "off", "--rules", str(lenient))
    assert f"outcome written: {folder}" in again.out
    assert len(read_probe_set(str(folder)).by_variant()["casual"]) == 4
    kept = read_audit(folder)
    assert kept is not None
    assert kept.summaries["casual"]["acceptance_rate"] == 1.0


def test_a_part_is_not_written_into_the_whole(probes: Path, tmp_path: Path, run_cli: Run) -> None:
    folder = tmp_path / "folder"
    assert run_cli("probes", "import", str(probes), "--out", str(folder)).code == 0
    assert "nothing written" in run_cli("audit", str(folder), "--similarity", "off", "--limit", "2").out
    assert read_audit(folder) is None


def test_json_has_everything(probes: Path, run_cli: Run) -> None:
    found = json.loads(run_cli("audit", str(probes), "--similarity", "off", "--json").out)
    assert found["summaries"]["casual"]["num_accepted"] == 3
    assert [(entry["document_id"], entry["variant"]) for entry in found["rejected"]] == [("0", "casual")]
    assert found["settings"]["similarity_model"] is None


def test_own_recipe_decides(probes: Path, tmp_path: Path, run_cli: Run) -> None:
    recipe = tmp_path / "recipes.yaml"
    body = "recipes:\n  - {variant: casual, factor: style, instruction: x, audit: [{measure: %s, maximum: 0.9, reason: shorter}]}\n"
    recipe.write_text(body % "length_ratio", encoding="utf-8")
    outcome = run_cli("audit", str(probes), "--similarity", "off", "--recipes", str(recipe))
    assert "casual\tstyle\t4\t0\t0.0%\tlength_ratio 4" in outcome.out
    recipe.write_text(body % "lenght_ratio", encoding="utf-8")
    outcome = run_cli("audit", str(probes), "--similarity", "off", "--recipes", str(recipe))
    assert outcome.code == 2
    assert "no measure 'lenght_ratio'; known are length_ratio" in outcome.err


def test_measures_are_listed_without_a_probe_set(run_cli: Run) -> None:
    outcome = run_cli("audit", "--measures")
    assert outcome.code == 0
    assert "numbers_unaccounted\t" in outcome.out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--similarity", "wheel:no-such-wheel"), "pip install no-such-wheel"),
        (("--rules", "missing.yaml"), "missing.yaml: cannot be read as rules"),
        (("--factor", "casual"), "--factor 'casual' is not NAME=VALUE"),
    ],
)
def test_bad_arguments_are_one_line(probes: Path, run_cli: Run, arguments: tuple[str, ...], says: str) -> None:
    outcome = run_cli("audit", str(probes), *arguments)
    assert outcome.code == 2
    assert says in outcome.err
    assert len(outcome.err.strip().splitlines()) == 1


def test_documents_cannot_steer_the_terminal(tmp_path: Path, run_cli: Run) -> None:
    path = tmp_path / "probes.jsonl"
    rows = [{"document_id": "a\u001b[2J", "variant": variant, "text": ORIGINAL} for variant in ("original", "casual")]
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    outcome = run_cli("audit", str(path), "--similarity", "off")
    assert "\u001b" not in outcome.out
    assert "rejected casual a\\u001b[2J" in outcome.out
