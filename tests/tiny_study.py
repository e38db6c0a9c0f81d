"""A tiny experiment on real files: two points, each a finetuning run, its scores and shifts, in well under a minute."""

import json
from pathlib import Path
from typing import Any

from lmdissect.pipeline.build import Study, build_study
from lmdissect.pipeline.experiment import parse_experiment
from lmdissect.pipeline.inputs import Inputs
from tiny_models import SENTENCES, save_tiny_llama

__all__ = ["make_study", "study_settings", "study_tables", "write_study_inputs"]

_STEPS = 60


def write_study_inputs(folder: Path) -> None:
    """Model, abstracts and probes that `make_study` reads from the folder it is run in."""
    save_tiny_llama(folder / "base", seed=0)
    abstracts = [{"id": f"a{n}", "text": f"{n} {SENTENCES[n % 5]} {SENTENCES[n % 3]}"} for n in range(24)]
    probes = [
        {"document_id": f"p{n}", "variant": variant, "text": f"{variant[:2]} {n} {SENTENCES[5 + (n + shift) % 5]}"}
        for n in range(12)
        for shift, variant in enumerate(("original", "casual", "paraphrase"))
    ]
    for name, rows in (("abstracts.jsonl", abstracts), ("probes.jsonl", probes)):
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def study_settings() -> dict[str, Any]:
    """Two seeds on 16 abstracts, 60 steps each, with a checkpoint every fifth; scoring is cut into many chunks."""
    return {
        "name": "tiny",
        "store": "store",
        "models": {"base": "base"},
        "corpus": {"files": ["abstracts.jsonl"], "size": 16, "validation": 4},
        "probes": {"p": {"path": "probes.jsonl"}},
        "finetune": {"batch_size": 4, "epochs": _STEPS / 4, "max_tokens": 64, "learning_rate": 0.001, "checkpoint_steps": 5, "device": "cpu"},
        "scoring": {"device": "cpu", "batch_tokens": 16},
        "shift": {"num_draws": 100},
        "seeds": [0, 1],
    }


def make_study() -> Study:
    """`study_settings`, laid out in the folder this is called in."""
    return build_study(parse_experiment(study_settings(), "tiny.yaml"), "tiny.yaml", Inputs())


def study_tables(study: Study) -> dict[str, bytes]:
    """Content of every table and weight file of all points, by role and file."""
    found = {}
    for nodes in study.points:
        for role, key in nodes.nodes.items():
            folder = Path(study.graph.nodes[key].folder)
            for path in sorted([*folder.glob("*.parquet"), *folder.glob("*.csv"), *folder.glob("*.safetensors")]):
                found[f"{nodes.point.label} {role} {path.name}"] = path.read_bytes()
    return found
