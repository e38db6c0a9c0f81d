"""An audit kept in a probe folder: rejected texts are left out wherever the set is read, nothing written is lost, and a kill leaves a readable set."""

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from typer.testing import CliRunner, Result

from lmdissect.cli.probes import app
from lmdissect.errors import DamagedArtifactError, OutputLockedError, UnreadableInputError
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


def _audit(rejected: set[tuple[str, str]], rule: str = "copied") -> AuditResult:
    verdicts = tuple(
        Verdict(*pair, accepted=pair not in rejected, reasons=(rule,) if pair in rejected else (), measures={"length_ratio": 1.5})
        for pair in ((text.document_id, text.variant) for text in PROBES.texts)
        if pair[1] != "original"
    )
    summaries = {}
    for variant in ("casual", "rap"):
        accepted = sum(verdict.accepted for verdict in verdicts if verdict.variant == variant)
        summaries[variant] = {"num_texts": 3, "num_accepted": accepted, "acceptance_rate": accepted / 3, "rejected_by_rule": {rule: 3 - accepted}}
    return AuditResult(verdicts, summaries, {"rules_hash": "ab"})


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


def test_a_summary_without_its_audit_is_not_believed(folder: Path) -> None:
    """A report would mix the rate of texts that are not here with that of a later audit."""
    less = _audit(set())
    probes = yaml.safe_load((folder / "probes.yaml").read_text(encoding="utf-8"))
    for entry in probes["variants"]:
        entry["audit"] = less.summaries.get(entry["variant"])
    (folder / "probes.yaml").write_text(yaml.dump(probes, Dumper=yaml.SafeDumper), encoding="utf-8")
    assert read_probe_set(str(folder)).audits == {}
    write_audit(folder, AuditResult(less.verdicts, {"casual": less.summaries["casual"]}, {}))
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
    assert "unchanged, reused" in _import(folder, tmp_path / "copy").stdout
    assert read_audit(tmp_path / "copy") == _audit(set())  # a later audit of the copy stays


def test_an_import_that_changes_what_was_audited_says_so(folder: Path, tmp_path: Path) -> None:
    write_audit(folder, _audit({("1", "rap")}))
    told = _import(folder, tmp_path / "copy", "--factor", "rap=topic")
    assert "--factor changes what was audited: all texts are taken, without the audit; run lmdissect audit" in told.stderr
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
