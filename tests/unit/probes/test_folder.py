"""Our own folder: written whole, opened by `datasets` too, verified when read."""

import dataclasses
import os
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

from lmdissect.errors import StaleArtifactError, UnreadableInputError, UnusableOutputError
from lmdissect.probes import import_report, probe_fingerprint, read_probe_set, write_probe_set
from lmdissect.records import ProbeSet, ProbeText, RejectedRecord

PROBES = ProbeSet(
    texts=(
        ProbeText("7", "casual", "chat about it"),
        ProbeText("7", "original", "an abstract\0\r\n"),
        ProbeText("8", "original", " another, ünï 🙂"),
        ProbeText("8", "Semi-Formal", "a note"),
        ProbeText("8", "semi_formal", "a memo"),
        ProbeText("8", "all", "everything"),
    ),
    factors={"casual": "style", "Semi-Formal": "register", "semi_formal": "register", "all": "topic+style"},
    source="somewhere | <b>",
    rejected=(RejectedRecord("a.jsonl", "line 3", "text missing"), RejectedRecord("a.jsonl", "line 9", "invalid JSON (x)")),
    generators={"casual": "a model | 2024"},
    prompt_hashes={"casual": "0a1b"},
    audits={"casual": {"num_passed": 1, "judge": "a model"}},
    metadata={"8": {"keywords": ["k", "ünï"], "answer": "a"}},
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    assert write_probe_set(PROBES, tmp_path / "out" / "probes") == "written"
    return tmp_path / "out" / "probes"


def _contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_is_written_is_read_again(folder: Path) -> None:
    there = read_probe_set(str(folder))
    assert {name: dict(texts) for name, texts in there.by_variant().items()} == PROBES.by_variant()
    assert there.audits == {}  # a summary without its verdicts would speak of texts that are not here
    for field in ("generators", "prompt_hashes", "metadata"):
        assert getattr(there, field) == getattr(PROBES, field), field
    assert dict(there.factors) == dict(PROBES.factors)
    assert there.rejected == ()
    assert probe_fingerprint(there) == probe_fingerprint(PROBES)
    assert write_probe_set(there, folder) == "reused"


def test_files_and_columns_are_as_documented(folder: Path) -> None:
    names = {"all_2", "casual", "original", "Semi_Formal", "semi_formal_2"}
    assert set(_contents(folder)) == {"README.md", "probes.yaml", "import_report.json", *(f"data/{name}.parquet" for name in names)}
    assert pq.read_schema(folder / "data" / "original.parquet").names == ["document_id", "text", "keywords", "answer"]
    assert pq.read_schema(folder / "data" / "casual.parquet").names == ["document_id", "text"]
    probes = yaml.safe_load((folder / "probes.yaml").read_text(encoding="utf-8"))
    assert probes["schema_version"] == 1
    assert probes["variants"][0]["variant"] == "original"
    entries = {entry["variant"]: entry for entry in probes["variants"]}
    assert {name: entry["factor"] for name, entry in entries.items()} == {"original": None, **PROBES.factors}
    casual = entries["casual"]
    assert (casual["prompt_hash"], casual["generator"], casual["audit"]) == ("0a1b", "a model | 2024", None)
    assert (entries["original"]["prompt_hash"], entries["original"]["generator"], entries["original"]["audit"]) == (None, None, None)


def test_split_names_never_differ_in_case_only(tmp_path: Path) -> None:
    names = ["a.b", "a_B", "a-b", "ALL", "ünï", "ünö"]
    texts = tuple(ProbeText("1", name, f"text {name}") for name in names)
    probes = ProbeSet(texts=texts, factors=dict.fromkeys(names, "style"), source="here")
    write_probe_set(probes, tmp_path / "out")
    files = [path.name for path in (tmp_path / "out" / "data").iterdir()]
    assert len({name.casefold() for name in files}) == len(names)
    assert all(name.isascii() for name in files)
    assert read_probe_set(str(tmp_path / "out")).by_variant() == probes.by_variant()


def test_import_report_names_everything_set_aside() -> None:
    report = import_report(PROBES)
    assert report["num_rejected"] == 2
    assert report["rejected_by_reason"] == {"text missing": 1, "invalid JSON": 1}
    assert report["rejected"] == [
        {"source": "a.jsonl", "record": "line 3", "reason": "text missing"},
        {"source": "a.jsonl", "record": "line 9", "reason": "invalid JSON (x)"},
    ]
    assert report["num_documents"] == 2


def test_datasets_opens_the_folder(folder: Path, tmp_path: Path) -> None:
    import datasets

    loaded = datasets.load_dataset(str(folder), cache_dir=str(tmp_path / "cache"))
    assert set(loaded) == {"original", "all_2", "Semi_Formal", "casual", "semi_formal_2"}
    assert next(iter(loaded)) == "original"
    assert loaded["original"].to_dict() == {
        "document_id": ["7", "8"],
        "text": ["an abstract\0\r\n", " another, ünï 🙂"],
        "keywords": [None, ["k", "ünï"]],
        "answer": [None, "a"],
    }
    assert loaded["casual"]["text"][:] == ["chat about it"]


def test_folder_without_probes_yaml_is_hub_layout(folder: Path) -> None:
    (folder / "probes.yaml").unlink()
    given = {"Semi_Formal": "register", "semi_formal_2": "register", "all_2": "topic"}
    there = read_probe_set(str(folder), factors=given)
    assert there.by_variant()["original"] == PROBES.by_variant()["original"]
    assert dict(there.metadata) == dict(PROBES.metadata)


def test_same_set_again_is_reused_whatever_its_source_and_order(folder: Path) -> None:
    before = _contents(folder)
    again = dataclasses.replace(PROBES, texts=PROBES.texts[::-1], source="elsewhere", rejected=(), audits={})
    assert write_probe_set(again, folder) == "reused"
    assert _contents(folder) == before


@pytest.mark.parametrize(
    "change",
    [
        {"texts": PROBES.texts[:-1]},
        {"factors": {**PROBES.factors, "casual": "register"}},
        {"generators": {}},
        {"prompt_hashes": {}},
        {"metadata": {}},
    ],
)
def test_another_set_is_never_overwritten(folder: Path, change: dict[str, object]) -> None:
    before = _contents(folder)
    with pytest.raises(StaleArtifactError, match=r"holds another probe set \(from somewhere"):
        write_probe_set(dataclasses.replace(PROBES, **change), folder)
    assert _contents(folder) == before
    assert list(folder.parent.iterdir()) == [folder]


def test_writing_is_reproducible(folder: Path, tmp_path: Path) -> None:
    write_probe_set(PROBES, tmp_path / "second")
    assert _contents(folder) == _contents(tmp_path / "second")


@pytest.mark.parametrize("name", ["data/casual.parquet", "data/original.parquet"])
def test_changed_or_missing_file_is_refused_and_mended_by_writing_again(folder: Path, name: str) -> None:
    before = _contents(folder)
    path = folder / name
    for damage in (lambda: path.write_bytes(before[name][:-1] + b"\0"), path.unlink):
        damage()
        with pytest.raises(UnreadableInputError, match=f"{name} missing or changed since the probe set was written"):
            read_probe_set(str(folder))
        assert write_probe_set(PROBES, folder) == "written"
        assert _contents(folder) == before


def test_folder_of_others_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(UnusableOutputError, match="is not empty and holds no probe set of ours"):
        write_probe_set(PROBES, tmp_path)
    (tmp_path / "probes.yaml").write_text("mine too", encoding="utf-8")
    with pytest.raises(UnusableOutputError, match=r"holds a probes\.yaml that cannot be understood"):
        write_probe_set(PROBES, tmp_path)
    with pytest.raises(UnusableOutputError, match=r"mine\.txt is a file"):
        write_probe_set(PROBES, tmp_path / "mine.txt")
    assert _contents(tmp_path) == {"mine.txt": b"mine", "probes.yaml": b"mine too"}


def test_empty_folder_is_taken(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    assert write_probe_set(PROBES, tmp_path / "out") == "written"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_unwritable_output_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(UnusableOutputError, match="file"):
        write_probe_set(PROBES, tmp_path / "file" / "out")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_read_only_parent_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    with pytest.raises(UnusableOutputError, match="cannot write"):
        write_probe_set(PROBES, tmp_path / "out")
    tmp_path.chmod(0o755)


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("schema_version: 1", "schema_version: 2", "written by a newer version of lmdissect"),
        ("schema_version: 1", "schema_version: x", "schema_version: "),
        ("split: casual", "split: ../casual", "split: String should match pattern"),
        ("factor: style", "factr: style", "factor: Field required"),
        ("variants:", "variants: [", "cannot be read"),
    ],
)
def test_odd_probes_yaml_names_the_place(folder: Path, old: str, new: str, reason: str) -> None:
    path = folder / "probes.yaml"
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(UnreadableInputError, match=r"probes\.yaml") as caught:
        read_probe_set(str(folder))
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


def test_aliases_and_endless_descriptions_are_refused_at_once(folder: Path) -> None:
    path = folder / "probes.yaml"
    text = path.read_text(encoding="utf-8")
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{number}: &a{number} [{', '.join([f'*a{number - 1}'] * 9)}]" for number in range(1, 9)]
    for bomb, reason in (("\n".join([*lines, text]), r"line 2: aliases \(\*name\) are not read"), (text + "#" * (9 << 20), "more than 8 MiB")):
        path.write_text(bomb, encoding="utf-8")
        with pytest.raises(UnreadableInputError, match=rf"probes\.yaml cannot be read \({reason}"):
            read_probe_set(str(folder))
    (folder / "probes.yaml").unlink()
    (folder / "README.md").write_text("---\n" + "\n".join(lines) + "\n---\n", encoding="utf-8")
    with pytest.raises(UnreadableInputError, match=r"README\.md: its YAML header cannot be read \(line 2: aliases"):
        read_probe_set(str(folder), factors={"Semi_Formal": "register"})


def test_card_cannot_be_broken_by_what_it_tells(folder: Path) -> None:
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert r"a model \| 2024" in card
    assert r"somewhere \| \<b\>" in card
    [row] = [line for line in card.splitlines() if line.startswith("| casual ")]
    assert row.replace(r"\|", "").count("|") == 6


def test_users_factor_wins_over_the_recorded_one(folder: Path) -> None:
    assert read_probe_set(str(folder), factors={"casual": "register"}).factors["casual"] == "register"
    assert read_probe_set(str(folder)).factors["Semi-Formal"] == "register"


def test_copy_of_the_folder_is_the_same_set(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "copy")
    assert probe_fingerprint(read_probe_set(str(tmp_path / "copy"))) == probe_fingerprint(PROBES)
