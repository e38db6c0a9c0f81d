"""The dataset card: a header that the hub and `datasets` understand, a body that tells the truth and that nothing can break out of."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import yaml

from lmdissect.probes import write_audit, write_probe_set
from lmdissect.probes.card import hide_folders, write_card
from lmdissect.records import AuditResult, ProbeSet, ProbeText, Verdict

ENGLISH = "The treatment was effective in most of the patients, and the authors recommend that it be studied in larger trials. "
GERMAN = "Die Behandlung war bei den meisten Patienten wirksam, und die Verfasser empfehlen, sie in größeren Studien zu prüfen. "
HOSTILE = "x | y](http://evil) <script>a</script> *b* `c`\n# d \u202e"


def _probe_set(texts: list[str], **fields: Any) -> ProbeSet:
    rows = [ProbeText(str(number), variant, text) for number, text in enumerate(texts) for variant in ("original", "casual", "default")]
    return dataclasses.replace(ProbeSet(tuple(rows), {"casual": "style", "default": "topic"}, "a test"), **fields)


def _card(path: Path, probe_set: ProbeSet, *, audited: bool = False) -> tuple[dict[str, Any], str]:
    write_card(path / "README.md", probe_set, {"original": "original", "casual": "casual", "default": "default"}, {}, audited=audited)
    _, header, body = (path / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    return yaml.safe_load(header), body


def test_header_of_an_unaudited_set(tmp_path: Path) -> None:
    header, body = _card(tmp_path, _probe_set([ENGLISH * 4] * 5))
    configs = {config["config_name"]: config["data_files"] for config in header["configs"]}
    assert list(configs) == ["default", "casual", "default_only"]
    assert [entry["split"] for entry in configs["default"]] == ["original", "casual", "default"]
    assert configs["casual"] == [{"split": "original", "path": "data/original.parquet"}, {"split": "casual", "path": "data/casual.parquet"}]
    assert header["license"] == "unknown"
    assert header["language"] == ["en"]
    assert header["task_categories"] == ["text-generation"]
    assert header["size_categories"] == ["n<1K"]
    assert "audited" not in header["tags"]
    assert "**Not audited.**" in body
    assert "Not stated." in body
    assert "There is no control" in body


@pytest.mark.parametrize(
    ("texts", "language"),
    [([GERMAN * 4] * 5, ["de"]), ([ENGLISH * 4, GERMAN * 4] * 4, None), (["short"], None)],
)
def test_language_is_named_only_where_it_is_clear(tmp_path: Path, texts: list[str], language: list[str] | None) -> None:
    assert _card(tmp_path, _probe_set(texts))[0].get("language") == language


@pytest.mark.parametrize(
    ("licence", "fields", "told"),
    [
        ("CC-BY-4.0", {"license": "cc-by-4.0"}, "CC-BY-4.0"),
        ("Research use only", {"license": "other", "license_name": "see-card"}, "Research use only"),
        (None, {"license": "unknown"}, "Not stated."),
    ],
)
def test_licence(tmp_path: Path, licence: str | None, fields: dict[str, str], told: str) -> None:
    header, body = _card(tmp_path, _probe_set(["a"], licence=licence))
    assert {name: value for name, value in header.items() if name.startswith("license")} == fields
    assert f"## Licence\n\n{told}" in body


@pytest.mark.parametrize(("num_documents", "size"), [(333, "n<1K"), (334, "1K<n<10K"), (3400, "10K<n<100K")])
def test_size_counts_all_rows(tmp_path: Path, num_documents: int, size: str) -> None:
    assert _card(tmp_path, _probe_set(["a"] * num_documents))[0]["size_categories"] == [size]


def test_nothing_breaks_out_of_the_card(tmp_path: Path) -> None:
    fields = {
        "licence": HOSTILE,
        "source": HOSTILE,
        "generators": {"casual": HOSTILE},
        "prompt_hashes": {"casual": HOSTILE},
        "factors": {"casual": HOSTILE, "default": "topic"},
        "audits": {"casual": {"rejected_by_rule": {HOSTILE: 3}, "not_measured": [HOSTILE], "num_texts": HOSTILE}},
    }
    header, body = _card(tmp_path, _probe_set(["a"], **fields), audited=True)
    assert header["license"] == "other"
    assert r"x \| y\](http://evil) \<script\>a\</script\> \*b\* \`c\` \# d" in body
    assert "\u202e" not in body
    for line in body.splitlines():
        assert "<script>" not in line
        assert not line.startswith("# d")
    tables = [line for line in body.splitlines() if line.startswith("| casual")]
    assert [line.replace(r"\|", "").count("|") for line in tables] == [6, 7]


def test_audited_card_says_how_many_stayed_and_why(tmp_path: Path) -> None:
    summary = {
        "num_texts": 8,
        "num_accepted": 5,
        "acceptance_rate": 0.625,
        "rejected_by_rule": {"length_ratio": 1, "kept_numbers": 3, "copied_share": 0, "similarity": 1, "zz": 1},
        "not_measured": ["judge"],
        "medians": {},
    }
    hashes = {"prompt_hashes": {"casual": "ab12"}, "instruction_hashes": {"casual": "cd34"}}
    header, body = _card(tmp_path, _probe_set(["a"], audits={"casual": summary}, **hashes), audited=True)
    configs = {config["config_name"]: config["data_files"] for config in header["configs"]}
    assert list(configs) == ["default", "all", "casual", "default_only"]
    assert {entry["path"].split("/")[0] for entry in configs["default"]} == {"accepted"}
    assert {entry["path"].split("/")[0] for entry in configs["all"]} == {"data"}
    assert "audited" in header["tags"]
    assert "62.5\u00a0%" in body
    assert r"| casual | 5 | 8 | 62.5 % | kept\_numbers (3), length\_ratio (1), similarity (1) and 1 more | judge |" in body.replace("\u00a0", " ")
    assert "- casual: prompt frame ab12, instruction cd34" in body


def test_datasets_opens_every_configuration(tmp_path: Path) -> None:
    import datasets

    probe_set = _probe_set(["a", "b", "c"], metadata={"1": {"keywords": ["k"], "answer": "z"}})
    write_probe_set(probe_set, tmp_path / "set")
    verdicts = tuple(
        Verdict(text.document_id, text.variant, accepted=text.variant != "default" and text.document_id != "1", reasons=("why",), measures={})
        for text in probe_set.texts
        if text.variant != "original"
    )
    rest: dict[str, object] = {"num_texts": 3, "rejected_by_rule": {}, "not_measured": [], "medians": {}}
    summaries = {name: {"num_accepted": count, "acceptance_rate": count / 3, **rest} for name, count in (("casual", 2), ("default", 0))}
    write_audit(tmp_path / "set", AuditResult(verdicts, summaries, {"rules": {}}))

    def counts(config: str | None) -> dict[str, int]:
        loaded = datasets.load_dataset(str(tmp_path / "set"), config, cache_dir=str(tmp_path / "cache"))
        return {split: len(rows) for split, rows in loaded.items()}

    assert counts(None) == {"original": 3, "casual": 2}  # nothing of the other variant was accepted
    assert counts("all") == {"original": 3, "default": 3, "casual": 3}
    assert counts("casual") == {"original": 3, "casual": 2}


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("/home/ann/secret/a.jsonl", "a.jsonl"),
        ("a/b.jsonl with the control /srv/x/c.json", "a/b.jsonl with the control c.json"),
        (r"C:\Users\ann\a.csv", "a.csv"),
        ("~/probes/set/", "set/"),
        ("owner/name@main", "owner/name@main"),
        ("texts of 1/2 or http://host/x", "texts of 1/2 or http://host/x"),
        ("/home/John Smith/my set/x.json", "x.json"),
        ("C:/Users/John Smith/x.json", "x.json"),
        (r"\\server\john\x.json", "x.json"),
        ("'/home/ann/x' and \"/home/ann/y z/q.json\"", "'x' and \"q.json\""),
        ("local (/home/ann/model.gguf), [/srv/ann/b]", "local (model.gguf), [b]"),
        ("file:///home/John%20Smith/x.json", "x.json"),
        ("FILE://host/home/ann/x.json", "x.json"),
        ("../../home/ann/x.json", "x.json"),
        (r"..\..\ann\x.json", "x.json"),
        ("runs/../../home/ann/x.json", "x.json"),
        ("~ann/probes/x.json", "x.json"),
        ("model:/home/ann/m.gguf+/home/ann/adapter", "model:m.gguf+adapter"),
        ("path=/home/ann/m.gguf; temperature 0.7", "path=m.gguf; temperature 0.7"),
        ("/srv/my set/a.jsonl with the control /srv/x y/c.json", "a.jsonl with the control c.json"),
        ("openai/gpt-4 at https://api.openai.com/v1/chat, 5 / 6, n/a", "openai/gpt-4 at https://api.openai.com/v1/chat, 5 / 6, n/a"),
        ("runs/probes", "runs/probes"),
        ("-/home/ann/x", "-x"),
        ("a, -/srv/ann/x.json", "a, -x.json"),
        ("x-/home/ann/x", "x-x"),
        ("%/home/ann/x", "%x"),
        ("100%/Users/x", "100%x"),
        ("é/home/ann/x", "éx"),
        ("é/Users/ann lee/x", "éx"),
        ("5 %/week/kg, pre-/post-test/retest, données/data/x, 日本/東京/大阪", "5 %/week/kg, pre-/post-test/retest, données/data/x, 日本/東京/大阪"),
        ("-/- mice and 5/6", "-/- mice and 5/6"),
    ],
)
def test_folders_of_the_maker_are_hidden(source: str, shown: str) -> None:
    assert hide_folders(source) == shown
