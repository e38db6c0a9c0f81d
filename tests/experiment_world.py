"""A tiny world for experiments: a model, a corpus, a second one, and probes, all made here; and experiments over them as files."""

import json
from pathlib import Path
from typing import Any

import yaml

from tiny_models import SENTENCES, save_tiny_llama

__all__ = ["PROBE_TEXTS", "make_world", "write_experiment"]

PROBE_TEXTS = {
    "original": "Patient {n} received 5 mg of the drug on day {n} and the fever was gone after {n} days.",
    "paraphrase": "On day {n} patient {n} was given the drug, 5 mg, and {n} days later there was no fever.",
    "casual": "So patient {n} got like 5 mg on day {n}, and guess what, no fever after {n} days!",
    "counterfactual": "Patient {n} received 9 mg of the drug on day {n} and the fever was worse after {n} days.",
}

_SETTINGS: dict[str, Any] = {
    "seeds": [0],
    "finetune": {"batch_size": 4, "max_tokens": 40, "learning_rate": 1e-2, "device": "cpu"},
    "scoring": {"max_tokens": 32, "device": "cpu"},
    "shift": {"num_draws": 200},
}


def make_world(folder: Path) -> Path:
    """Write base/, corpus.jsonl (60 documents), web.jsonl (30), probes.jsonl and other_probes.jsonl (8 documents with three variants each).

    Returns:
        ``folder``.
    """
    save_tiny_llama(folder / "base", seed=0)
    _write_corpus(folder / "corpus.jsonl", "c", 60, "Case {n} of the series.")
    _write_corpus(folder / "web.jsonl", "w", 30, "Page {n} of the site.")
    _write_probes(folder / "probes.jsonl", range(8))
    _write_probes(folder / "other_probes.jsonl", range(20, 26))
    return folder


def _write_corpus(path: Path, prefix: str, number: int, end: str) -> None:
    rows = [{"id": f"{prefix}{n}", "text": f"{SENTENCES[n % len(SENTENCES)]} {end.format(n=n)}"} for n in range(number)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def _write_probes(path: Path, numbers: range) -> None:
    rows = [{"document_id": f"p{n}", "variant": variant, "text": text.format(n=n)} for n in numbers for variant, text in PROBE_TEXTS.items()]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def write_experiment(world: Path, folder: Path, name: str = "study", **settings: Any) -> Path:
    """Write an experiment over ``world`` with its store and tables in ``folder``; ``settings`` replace sections of the usual ones.

    Returns:
        The file.
    """
    content = {
        "name": name,
        "store": str(folder / "store"),
        "out": str(folder / name),
        "models": {"base": str(world / "base")},
        "corpus": {"files": [str(world / "corpus.jsonl")], "size": 8, "validation": 6},
        "probes": {"p": {"path": str(world / "probes.jsonl")}},
        **_SETTINGS,
        **settings,
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return path
