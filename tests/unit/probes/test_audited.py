"""An audit kept in a probe folder: rejected texts are left out wherever the set is read, nothing written is lost, and a kill leaves a readable set."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from typer.testing import CliRunner, Result

from lmdissect.cli.probes import app
from lmdissect.errors import DamagedArtifactError, OutputLockedError, UnreadableInputError
from lmdissect.pipeline.auditing import intact_audit
from lmdissect.probes import audited, probe_fingerprint, read_audit, read_probe_set, write_audit, write_probe_set
from lmdissect.records import AuditResult, ProbeSet, ProbeText, Verdict
from lmdissect.store import hash_file, lock_folder

PROBES = ProbeSet(
    texts=tuple(
        ProbeText(document_id, variant, f"{variant} of {document_id}") for document_id in ("1", "2", "3") for variant in ("original", "casual", "rap")
    ),
    factors={"casual": "style", "rap": "style"},
    source="somewhere",
    instruction_hashes={"rap": "77"},
    licence="CC0",
)
RULE = {"measure": "length_ratio", "minimum": 0.5, "maximum": None, "reason": "length"}


def _audit(rejected: set[tuple[str, str]], rule: str = "copied") -> AuditResult:
    verdicts = tuple(
        Verdict(*pair, accepted=pair not in rejected, reasons=(rule,) if pair in rejected else (), measures={"length_ratio": 1.5})
        for pair in ((text.document_id, text.variant) for text in PROBES.texts)
        if pair[1] != "original"
    )
    summaries = {}
    for variant in ("casual", "rap"):
        accepted = sum(verdict.accepted for verdict in verdicts if verdict.variant == variant)
        summaries[variant] = {
            "num_texts": 3,
            "num_accepted": accepted,
            "acceptance_rate": accepted / 3,
            "rejected_by_rule": {rule: 3 - accepted},
            "not_measured": [],
            "medians": {"length_ratio": 1.5},
        }
    return AuditResult(verdicts, summaries, {"rules": {"casual": [RULE], "rap": []}, "rules_hash": "ab"})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_probe_set(PROBES, tmp_path / "probes")
    return tmp_path / "probes"


def _pairs(folder: Path, **arguments: bool) -> set[tuple[str, str]]:
    return {(text.document_id, text.variant) for text in read_probe_set(str(folder), **arguments).texts}


EVERYTHING = {(text.document_id, text.variant) for text in PROBES.texts}


def test_rejected_texts_are_left_out_and_kept(folder: Path) -> None:
    before = {path: path.read_bytes() for path in (folder / "data").iterdir()}
    audit = _audit({("2", "casual"), ("3", "casual")})
    write_audit(folder, audit)
    assert _pairs(folder) == EVERYTHING - {("2", "casual"), ("3", "casual")}
    assert _pairs(folder, include_rejected=True) == EVERYTHING
    assert {path: path.read_bytes() for path in (folder / "data").iterdir()} == before
    assert read_audit(folder) == audit
    there = read_probe_set(str(folder))
    assert there.audits["casual"]["num_accepted"] == 1
    assert (there.licence, there.instruction_hashes) == ("CC0", {"rap": "77"})


def test_an_unaudited_folder_has_no_audit(folder: Path) -> None:
    assert read_audit(folder) is None
    assert read_probe_set(str(folder)).audits == {}


def test_datasets_opens_what_was_accepted_and_all_on_request(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import datasets

    write_audit(folder, _audit({("2", "casual")}))
    loaded = datasets.load_dataset(str(folder), cache_dir=str(tmp_path / "cache"))
    assert {name: list(split["document_id"]) for name, split in loaded.items()} == {
        "original": ["1", "2", "3"],
        "casual": ["1", "3"],
        "rap": ["1", "2", "3"],
    }


def test_datasets_shows_no_texts_of_an_earlier_audit(folder: Path, tmp_path: Path) -> None:
    """It caches by the header and the names of the files: the same number of texts, others accepted."""
    import datasets

    for rejected in ("2", "1"):
        write_audit(folder, _audit({(rejected, "casual")}))
        loaded = datasets.load_dataset(str(folder), cache_dir=str(tmp_path / "cache"))
        assert rejected not in loaded["casual"]["document_id"][:]


def test_a_new_audit_replaces_the_old_one(folder: Path) -> None:
    write_audit(folder, _audit({("2", "casual")}))
    write_audit(folder, _audit({("1", "rap")}, rule="length"))
    assert _pairs(folder) == EVERYTHING - {("1", "rap")}
    stored = read_audit(folder)
    assert stored is not None
    assert stored.summaries["rap"]["rejected_by_rule"] == {"length": 1}


def test_a_variant_may_be_rejected_as_a_whole(folder: Path) -> None:
    write_audit(folder, _audit({(document_id, "rap") for document_id in "123"}))
    there = read_probe_set(str(folder))
    assert set(there.factors) == {"casual"}
    assert there.audits["rap"]["acceptance_rate"] == 0


def test_the_set_that_was_written_counts_as_there_after_its_audit(folder: Path) -> None:
    write_audit(folder, _audit({("1", "rap")}))
    assert write_probe_set(PROBES, folder) == "reused"
    assert _pairs(folder) == EVERYTHING - {("1", "rap")}


@pytest.mark.parametrize("name", ["audit.parquet", "accepted/casual.parquet"])
def test_a_damaged_audit_is_named_and_can_be_made_again(folder: Path, name: str) -> None:
    write_audit(folder, _audit(set()))
    (folder / name).write_bytes(b"x")
    with pytest.raises(UnreadableInputError, match=f"{name} missing or changed.*lmdissect audit"):
        read_probe_set(str(folder))
    write_audit(folder, _audit({("1", "rap")}))
    assert _pairs(folder) == EVERYTHING - {("1", "rap")}


@pytest.mark.parametrize("name", ["audit.parquet", "accepted/casual.parquet"])
def test_a_damaged_audit_stands_in_nobodys_way(folder: Path, name: str) -> None:
    """`lmdissect audit`, which the error names as the cure, reads all texts, and the audit that was there if it can."""
    write_audit(folder, _audit({("1", "rap")}))
    (folder / name).unlink()
    assert _pairs(folder, include_rejected=True) == EVERYTHING
    with pytest.raises(DamagedArtifactError, match=f"{name} missing or changed since the audit: run lmdissect audit .*probes again"):
        read_audit(folder)
    (folder / "data" / "rap.parquet").unlink()
    with pytest.raises(UnreadableInputError, match=r"data/rap\.parquet missing or changed.*import it again"):
        read_probe_set(str(folder), include_rejected=True)


@pytest.mark.parametrize(
    "change",
    [
        lambda table: table.drop_columns(["accepted"]),
        lambda table: table.set_column(2, "accepted", pa.array(["no"] * len(table))),
        lambda table: table.set_column(2, "accepted", pa.array([None] * len(table), pa.bool_())),
        lambda table: table.set_column(3, "reasons", pa.array([[None]] * len(table), pa.list_(pa.string()))),
        lambda table: table.append_column("accepted", table.column("accepted")),
    ],
)
def test_verdicts_of_another_form_are_damage(folder: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    """Such a file can be published with the hash that fits it."""
    write_audit(folder, _audit({("1", "rap")}))
    pq.write_table(change(pq.read_table(folder / "audit.parquet")), folder / "audit.parquet")
    probes = yaml.safe_load((folder / "probes.yaml").read_text(encoding="utf-8"))
    probes["audit"]["files"]["audit.parquet"] = hash_file(folder / "audit.parquet")
    (folder / "probes.yaml").write_text(yaml.safe_dump(probes), encoding="utf-8")
    with pytest.raises(
        DamagedArtifactError, match=r"audit\.parquet (has not the columns document_id \(string\), |cannot be read as Parquet).*: run lmdissect audit"
    ):
        read_audit(folder)
    write_audit(folder, _audit(set()))
    assert read_audit(folder) == _audit(set())


def _edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    probes = yaml.safe_load((folder / "probes.yaml").read_text(encoding="utf-8"))
    change(probes)
    (folder / "probes.yaml").write_text(yaml.safe_dump(probes), encoding="utf-8")


def _casual(probes: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = next(entry["audit"] for entry in probes["variants"] if entry["variant"] == "casual")
    return found


@pytest.mark.parametrize(
    ("change", "place"),
    [
        (lambda probes: probes["audit"].update(settings={}), r"audit\.settings\.rules: Field required"),
        (lambda probes: probes["audit"]["settings"]["rules"].update(casual=[{"measure": "x"}]), r"audit\.settings\.rules\.casual\.0\.reason"),
        (lambda probes: probes["audit"]["settings"]["rules"].update(casual=[RULE | {"minimum": "low"}]), r"rules\.casual\.0\.minimum"),
        (lambda probes: probes["audit"]["settings"]["rules"].update(casual=[RULE | {"minimum": None}]), "give minimum, maximum, or both"),
        (lambda probes: probes["audit"]["settings"].update(rules_of_any=7), r"audit\.settings\.rules_of_any"),
        (lambda probes: _casual(probes).pop("num_texts"), r"variants: casual: audit\.num_texts: Field required"),
        (lambda probes: _casual(probes).update(num_accepted="3"), r"variants: casual: audit\.num_accepted"),
        (lambda probes: _casual(probes).update(acceptance_rate=None), r"variants: casual: audit\.acceptance_rate"),
        (lambda probes: _casual(probes).update(rejected_by_rule=[1]), r"variants: casual: audit\.rejected_by_rule"),
        (lambda probes: _casual(probes).pop("not_measured"), r"variants: casual: audit\.not_measured"),
    ],
)
def test_settings_and_summaries_of_another_form_are_damage(folder: Path, change: Callable[[dict[str, Any]], object], place: str) -> None:
    """No hash covers them: another maker's set, or an edited file, may hold anything."""
    write_audit(folder, _audit({("1", "rap")}))
    _edit(folder, change)
    with pytest.raises(DamagedArtifactError, match=rf"probes\.yaml: .*{place}.*: run lmdissect audit .*probes again") as caught:
        read_probe_set(str(folder))
    assert "\n" not in str(caught.value)
    assert _pairs(folder, include_rejected=True) == EVERYTHING
    assert intact_audit(folder) is None
    assert isinstance(CliRunner().invoke(app, ["show", str(folder)]).exception, DamagedArtifactError)
    assert CliRunner().invoke(app, ["show", str(folder), "--rejected"]).exit_code == 0
    write_audit(folder, _audit(set()))
    assert read_audit(folder) == _audit(set())


def test_more_than_we_write_is_no_damage(folder: Path) -> None:
    write_audit(folder, _audit(set()))
    _edit(folder, lambda probes: (_casual(probes).update(later=1), probes["audit"]["settings"].update(later={"a": 1})))
    there = read_audit(folder)
    assert there is not None
    assert there.settings["later"] == {"a": 1}


def test_a_summary_without_its_audit_is_not_believed(folder: Path) -> None:
    """A report would mix the rate of texts that are not here with that of a later audit."""
    less = _audit(set())
    probes = yaml.safe_load((folder / "probes.yaml").read_text(encoding="utf-8"))
    for entry in probes["variants"]:
        entry["audit"] = less.summaries.get(entry["variant"])
    (folder / "probes.yaml").write_text(yaml.dump(probes, Dumper=yaml.SafeDumper), encoding="utf-8")
    assert read_probe_set(str(folder)).audits == {}
    write_audit(folder, AuditResult(less.verdicts, {"casual": less.summaries["casual"]}, less.settings))
    assert set(read_probe_set(str(folder)).audits) == {"casual"}


def _import(source: Path, out: Path, *options: str) -> Result:
    return CliRunner().invoke(app, ["import", str(source), "--out", str(out), *options], catch_exceptions=False)


def test_an_imported_set_keeps_its_audit_whole(folder: Path, tmp_path: Path) -> None:
    audit = _audit({("1", "rap"), ("2", "casual")})
    write_audit(folder, audit)
    assert "written: " in _import(folder, tmp_path / "copy").stdout
    assert read_audit(tmp_path / "copy") == audit
    assert _pairs(tmp_path / "copy") == _pairs(folder)
    assert _pairs(tmp_path / "copy", include_rejected=True) == EVERYTHING
    assert "**Not audited.**" not in (tmp_path / "copy" / "README.md").read_text(encoding="utf-8")
    write_audit(tmp_path / "copy", _audit(set()))
    again = _import(folder, tmp_path / "copy")
    assert "unchanged, reused" in again.stdout
    assert read_audit(tmp_path / "copy") == _audit(set())  # a later audit of the copy stays
    assert "rejected by the audit" not in again.stdout
    assert "copy keeps the audit it has, which is another one" in again.stderr


def test_an_import_tells_of_the_audit_that_is_there_afterwards(folder: Path, tmp_path: Path) -> None:
    write_audit(folder, _audit({("1", "rap")}))
    first = _import(folder, tmp_path / "copy")
    assert "rejected by the audit: rap 1 " in first.stdout
    write_audit(folder, _audit(set()))  # the set is audited anew
    again = _import(folder, tmp_path / "copy")
    assert "rejected by the audit: rap 1 " in again.stdout
    assert "copy keeps the audit it has" in again.stderr
    same = _import(tmp_path / "copy", tmp_path / "third")
    assert "keeps the audit" not in same.stderr + _import(tmp_path / "copy", tmp_path / "third").stderr
    shown = CliRunner().invoke(app, ["show", str(tmp_path / "copy"), "--limit", "0"]).stdout
    assert "rejected by the audit: rap 1 " in shown


def test_an_import_that_changes_what_was_audited_says_so(folder: Path, tmp_path: Path) -> None:
    write_audit(folder, _audit({("1", "rap")}))
    told = _import(folder, tmp_path / "copy", "--factor", "rap=topic")
    assert "--factor changes what was audited: all texts are taken, without the audit; run lmdissect audit" in told.stderr
    assert "rejected by the audit" not in told.stdout
    assert read_audit(tmp_path / "copy") is None
    there = read_probe_set(str(tmp_path / "copy"))
    assert (there.audits, len(there.texts)) == ({}, 9)
    assert "**Not audited.**" in (tmp_path / "copy" / "README.md").read_text(encoding="utf-8")


def test_a_kill_at_any_write_leaves_a_readable_set(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every state between two writes: unaudited, or audited whole; never half."""
    rejected = {("2", "casual")}
    for first in (None, _audit({("1", "rap")})):
        for survived in range(12):
            write_probe_set(ProbeSet(texts=PROBES.texts[:1], factors={}, source="x"), folder, replace=True)
            write_probe_set(PROBES, folder, replace=True)
            if first is not None:
                write_audit(folder, first)
            writes = 0

            def dying(function, limit=survived):
                def write(*arguments, **named) -> None:
                    nonlocal writes
                    if writes == limit:
                        raise KeyboardInterrupt
                    writes += 1
                    function(*arguments, **named)

                return write

            with monkeypatch.context() as patched:
                for name in ("write_table", "write_card", "write_description"):
                    patched.setattr(audited, name, dying(getattr(audited, name)))
                try:
                    write_audit(folder, _audit(rejected))
                    finished = True
                except KeyboardInterrupt:
                    finished = False
            there = _pairs(folder)
            assert there in ([EVERYTHING - rejected] if finished else [EVERYTHING, EVERYTHING - {("1", "rap")}])
            write_audit(folder, _audit(rejected))
            assert _pairs(folder) == EVERYTHING - rejected
        assert finished


def test_a_folder_at_work_is_refused(folder: Path) -> None:
    with lock_folder(folder), pytest.raises(OutputLockedError):
        write_audit(folder, _audit(set()))


def test_the_set_inside_a_rewriting_run_is_found(folder: Path) -> None:
    assert probe_fingerprint(read_probe_set(str(folder.parent))) == probe_fingerprint(PROBES)


def test_another_set_is_replaced_on_request_only(folder: Path) -> None:
    other = ProbeSet(texts=PROBES.texts[:2], factors={"casual": "style"}, source="x")
    with pytest.raises(Exception, match="another probe set"):
        write_probe_set(other, folder)
    assert write_probe_set(other, folder, replace=True) == "written"
    assert len(read_probe_set(str(folder)).texts) == 2


def test_the_description_names_every_file_of_the_audit(folder: Path) -> None:
    write_audit(folder, _audit({("2", "casual")}))
    probes = yaml.safe_load((folder / "probes.yaml").read_text(encoding="utf-8"))
    assert set(probes["audit"]["files"]) == {"audit.parquet", *(f"accepted/{name}.parquet" for name in ("original", "casual", "rap"))}
    assert pq.read_schema(folder / "audit.parquet").names == ["document_id", "variant", "accepted", "reasons", "measures"]
