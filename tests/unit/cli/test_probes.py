"""`lmdissect probes` from the outside: arguments, output, exit codes."""

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from lmdissect.cli.options import parse_pairs, printable
from lmdissect.cli.probes import app
from lmdissect.errors import LmdissectError, StaleArtifactError, UnreadableInputError, UserInputError
from tiny_models import save_tiny_llama

ROWS = [
    {"document_id": "1", "variant": "original", "text": "one original text"},
    {"document_id": "1", "variant": "casual", "text": "one chat"},
    {"document_id": "2", "variant": "original", "text": "two \x1b[31mred [bold]" + 300 * "x"},
    {"document_id": "3", "variant": "casual", "text": "three chat"},
]
BAD = {"document_id": "4", "variant": "casual", "text": " "}


def _jsonl(path: Path, rows: list[dict[str, str]]) -> str:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return str(path)


@pytest.fixture
def source(tmp_path: Path) -> str:
    return _jsonl(tmp_path / "probes.jsonl", ROWS)


def _run(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments, catch_exceptions=True)


def _fails(*arguments: str) -> LmdissectError:
    outcome = _run(*arguments)
    assert isinstance(outcome.exception, LmdissectError), outcome.output
    assert "\n" not in str(outcome.exception)
    return outcome.exception


def test_import_writes_reuses_and_refuses(source: str, tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    first = _run("import", source, "--out", out)
    assert first.exit_code == 0, first.output
    assert f"written: {out}" in first.stdout
    assert "original\t-\t2\t-" in first.stdout
    assert "casual\tstyle\t2\t-" in first.stdout
    assert f"unchanged, reused: {out}" in _run("import", source, "--out", out).stdout
    refused = _fails("import", source, "--out", out, "--factor", "casual=register")
    assert isinstance(refused, StaleArtifactError)
    assert refused.exit_code == 2


def test_import_names_what_it_sets_aside(tmp_path: Path) -> None:
    source = _jsonl(tmp_path / "probes.jsonl", [*ROWS, BAD])
    outcome = _run("import", source, "--out", str(tmp_path / "out"))
    assert outcome.exit_code == 0
    assert "records set aside: 1" in outcome.stdout
    assert "set aside: 1 x text is empty or white space" in outcome.stderr
    assert f"{source}, line 5 (document 4, variant casual): text is empty or white space" in outcome.stderr
    report = json.loads((tmp_path / "out" / "import_report.json").read_text(encoding="utf-8"))
    assert [entry["record"] for entry in report["rejected"]] == ["line 5 (document 4, variant casual)"]


@pytest.mark.parametrize("command", ["import", "check"])
def test_strict_turns_set_aside_records_into_an_error(tmp_path: Path, command: str) -> None:
    source = _jsonl(tmp_path / "probes.jsonl", [*ROWS, BAD])
    arguments = [command, source, "--strict", *(["--out", str(tmp_path / "out")] if command == "import" else [])]
    error = _fails(*arguments)
    assert isinstance(error, UnreadableInputError)
    assert f"1 records had to be set aside and --strict is on (first: {source}, line 5 (document 4, variant casual):" in str(error)
    assert not (tmp_path / "out").exists()


def test_import_merges_a_control(source: str, tmp_path: Path) -> None:
    control = tmp_path / "control.json"
    control.write_text(json.dumps([{"id": ["1"], "original_corpus": "one original text", "paraphrase_corpus": "p"}]), encoding="utf-8")
    outcome = _run("import", source, "--control", str(control), "--out", str(tmp_path / "out"))
    assert "paraphrase\tcontrol\t1\t-" in outcome.stdout


def test_factor_of_a_variant_that_is_not_there_is_refused(source: str, tmp_path: Path) -> None:
    error = _fails("import", source, "--out", str(tmp_path / "out"), "--factor", "causal=style")
    assert isinstance(error, UserInputError)
    assert "has no variant 'causal' (it has casual)" in str(error)


def test_show_in_a_pipe_is_plain_short_and_harmless(source: str) -> None:
    outcome = _run("show", source, "--limit", "2")
    assert outcome.exit_code == 0
    assert "document 1\noriginal\tone original text\ncasual\tone chat\n" in outcome.stdout
    assert "\x1b" not in outcome.stdout
    [long] = [line for line in outcome.stdout.splitlines() if line.startswith("original\ttwo")]
    assert long.startswith("original\ttwo \\u001b[31mred [bold]x")
    assert long.endswith("x…")
    assert len(long) == len("original\t") + 240
    assert "document" not in _run("show", source, "--limit", "0").stdout.split("fingerprint")[1]


def test_show_one_document_in_full(source: str) -> None:
    outcome = _run("show", source, "--document", "2")
    assert 300 * "x" in outcome.stdout
    assert "one original" not in outcome.stdout
    assert "casual\tthree chat" in _run("show", source, "--document", "3").stdout
    assert "has no document '9'" in str(_fails("show", source, "--document", "9"))


def test_show_on_a_terminal_is_a_table(source: str) -> None:
    leader, follower = pty.openpty()
    program = "import sys; from lmdissect.cli.probes import app; app()"
    environment = {**os.environ, "COLUMNS": "100", "TERM": "xterm", "PYTHONIOENCODING": "utf-8"}
    with subprocess.Popen(
        [sys.executable, "-c", program, "show", source, "--limit", "2"], stdout=follower, stderr=follower, env=environment
    ) as process:
        os.close(follower)
        shown = b""
        while True:
            try:
                block = os.read(leader, 1 << 16)
            except OSError:  # the end of a terminal whose program has ended
                break
            if not block:
                break
            shown += block
        os.close(leader)
    text = shown.decode("utf-8")
    assert process.returncode == 0, text
    assert "│" in text
    assert "document 1" in text
    assert "one original text" in text
    assert "[bold]" in text
    assert "\x1b[31m" not in text


def test_check_in_plain_words(source: str, tmp_path: Path) -> None:
    corpus = _jsonl(tmp_path / "train.jsonl", [{"document_id": "1", "text": "Something else"}, {"document_id": "b", "text": "THREE  chat"}])
    outcome = _run("check", source, "--corpus", corpus)
    assert outcome.exit_code == 0
    assert "casual\tstyle\t2\t1\t1\t0\t0.33\t0.47" in outcome.stdout
    assert "casual missing for: 2" in outcome.stdout
    assert "casual without original: 3" in outcome.stdout
    assert "in the corpus (2 documents): 2 documents of the probe set:\n1\toriginal\t1\tid\n3\tcasual\tb\ttext" in outcome.stdout


def test_check_as_json(source: str, tmp_path: Path) -> None:
    corpus = _jsonl(tmp_path / "train.jsonl", [{"document_id": "b", "text": "three chat"}])
    content = json.loads(_run("check", source, "--corpus", corpus, "--json").stdout)
    [casual] = content["check"]["variants"]
    assert (casual["variant"], casual["num_missing"], casual["orphan_ids"]) == ("casual", 1, ["3"])
    assert content["overlap"]["matches"] == [{"document_id": "3", "variant": "casual", "corpus_id": "b", "kind": "text", "similarity": 1.0}]
    assert content["read"]["num_texts"] == {"original": 2, "casual": 2}
    assert json.loads(_run("check", source, "--json").stdout)["overlap"] is None


@pytest.mark.parametrize("pair", ["casual", "=style", "casual=", ""])
def test_an_option_in_pairs_is_name_and_value(pair: str) -> None:
    with pytest.raises(UserInputError, match=r"--factor .* is not NAME=VALUE: write for example --factor plain=style"):
        parse_pairs("--factor", [pair], "plain=style")


def test_an_option_in_pairs_may_be_repeated() -> None:
    assert parse_pairs("--factor", ["a=style", "b=topic", "a=style"], "") == {"a": "style", "b": "topic"}
    with pytest.raises(UserInputError, match="gives 'a' both style and topic"):
        parse_pairs("--factor", ["a=style", "a=topic"], "")


def test_writers_of_all_variants_or_of_one_are_kept(source: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert "casual\tstyle\t2\tsomebody" in _run("import", source, "--out", str(out), "--writer", "somebody").stdout
    assert "casual\tstyle\t2\tsomebody" in _run("show", str(out)).stdout
    assert "casual\tstyle\t2\tx" in _run("import", source, "--out", str(tmp_path / "o2"), "--writer", "somebody", "--writer", "casual=x").stdout
    recorded = str(out)
    assert "casual\tstyle\t2\tsomebody" in _run("import", recorded, "--out", str(tmp_path / "o5"), "--writer", "another").stdout  # the set says who
    assert "casual\tstyle\t2\tanother" in _run("import", recorded, "--out", str(tmp_path / "o6"), "--writer", "casual=another").stdout
    assert "--writer rap=x: " in str(_fails("import", source, "--out", str(tmp_path / "o3"), "--writer", "rap=x"))
    assert "both speak of every variant" in str(_fails("import", source, "--out", str(tmp_path / "o4"), "--writer", "x", "--writer", "y"))


def test_check_counts_tokens_with_a_models_tokenizer(source: str, tmp_path: Path) -> None:
    model = str(save_tiny_llama(tmp_path / "model", seed=0))
    lines = _run("check", source, "--model", model, "--max-tokens", "60").stdout.splitlines()
    assert "texts over 60 tokens: 1:" in lines
    assert any(line.startswith("2\toriginal\t") for line in lines)
    assert "texts over 1024 tokens: 0" in _run("check", source, "--model", model).stdout
    assert "--max-tokens: give --model too" in str(_fails("check", source, "--max-tokens", "60"))
    found = json.loads(_run("check", source, "--model", model, "--max-tokens", "60", "--json").stdout)["check"]
    assert (found["max_tokens"], [entry["document_id"] for entry in found["over_long"]]) == (60, ["2"])


def test_printable_text_is_one_line_without_control_characters() -> None:
    assert printable(" a\n b\tü🙂\x1b[2J\x07\u202e ") == "a b ü🙂\\u001b[2J\\u0007\\u202e"


@pytest.mark.parametrize("command", ["import", "show", "check"])
def test_help_has_an_example_and_loads_nothing_heavy(command: str) -> None:
    program = (
        "import sys; from typer.testing import CliRunner; from lmdissect.cli.probes import app\n"
        f"outcome = CliRunner().invoke(app, ['{command}', '--help']); print(outcome.output)\n"
        "heavy = {'torch', 'transformers', 'datasets', 'pandas', 'pyarrow', 'numpy', 'datasketch', 'yaml'} & set(sys.modules)\n"
        "sys.exit(f'loaded {heavy}' if heavy else outcome.exit_code)"
    )
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    assert "Example: lmdissect probes" in finished.stdout
