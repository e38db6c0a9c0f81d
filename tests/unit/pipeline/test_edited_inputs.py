"""A file that an experiment reads is changed in place: every piece of work that depends on it is another one, and no other is."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from experiment_world import PROBE_TEXTS, make_world, write_experiment
from lmdissect.pipeline.build import Study, build_study
from lmdissect.pipeline.experiment import read_experiment
from lmdissect.pipeline.inputs import Inputs

AFTER_DOCUMENTS = {"rate", "finetune", "tuned p", "shift p"}
LOOKS = {"overlap p", "trial overlap p"}
ALL = {"documents", "base p", *LOOKS, *AFTER_DOCUMENTS}


def make_study(folder: Path) -> Path:
    """A point with a chosen rate, documents mixed in and a control file; its inputs are all in ``folder``."""
    world = make_world(folder)
    rows = [json.loads(line) for line in (world / "probes.jsonl").read_text().splitlines()]
    write_lines(world / "probes.jsonl", [row for row in rows if row["variant"] != "paraphrase"])
    control = [
        {"id": f"p{n}", "original_corpus": PROBE_TEXTS["original"].format(n=n), "paraphrase_corpus": PROBE_TEXTS["paraphrase"].format(n=n)}
        for n in range(8)
    ]
    write_lines(world / "control.jsonl", control)
    corpus = {
        "files": [str(world / "corpus.jsonl")],
        "size": 8,
        "validation": 6,
        "mix": {"files": [str(world / "web.jsonl")], "share": 0.5},
    }
    probes = {"p": {"path": str(world / "probes.jsonl"), "control": str(world / "control.jsonl")}}
    return write_experiment(world, folder, corpus=corpus, probes=probes, finetune={"learning_rate": {"grid": [1e-3, 1e-2], "size": 4}})


def write_lines(path: Path, rows: list[dict[str, str]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def keys(file: Path) -> Mapping[str, str]:
    study: Study = build_study(read_experiment(file), str(file), Inputs())
    (point,) = study.points
    return point.nodes


def replace_in(name: str, old: str, new: str) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        text = (folder / name).read_text(encoding="utf-8")
        assert old in text
        (folder / name).write_text(text.replace(old, new), encoding="utf-8")

    return edit


def change_weights(folder: Path) -> None:
    path = folder / "base" / "model.safetensors"
    weights = load_file(path)
    next(iter(weights.values())).view(-1)[0] += 1
    save_file(weights, path, metadata={"format": "pt"})


def lower_case(folder: Path) -> None:
    path = folder / "base" / "tokenizer.json"
    tokenizer = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**tokenizer, "normalizer": {"type": "Lowercase"}}), encoding="utf-8")


def touch(folder: Path) -> None:
    for path in folder.glob("*.jsonl"):
        path.write_bytes(path.read_bytes())


@pytest.mark.parametrize(
    ("edit", "changed"),
    [
        (touch, set()),
        (change_weights, {"base p", *AFTER_DOCUMENTS}),
        (lower_case, {"base p", *AFTER_DOCUMENTS}),
        (replace_in("corpus.jsonl", "Case 7 of", "Case 7 out of"), ALL - {"base p"}),
        (replace_in("web.jsonl", "Page 7 of", "Page 7 out of"), {"documents", "overlap p", "finetune", "tuned p", "shift p"}),
        (replace_in("probes.jsonl", "So patient 3", "So the patient 3"), {"base p", "tuned p", "shift p", *LOOKS}),
        (replace_in("control.jsonl", "On day 3", "On the day 3"), {"base p", "tuned p", "shift p", *LOOKS}),
    ],
    ids=["nothing", "weights", "tokenizer", "corpus", "mixed-in", "probes", "control"],
)
def test_what_is_edited_in_place_makes_other_work(tmp_path: Path, edit: Callable[[Path], None], changed: set[str]) -> None:
    file = make_study(tmp_path)
    before = keys(file)
    assert set(before) == ALL
    edit(tmp_path)
    after = keys(file)
    assert {role for role in ALL if before[role] != after[role]} == changed
