"""`lmdissect rewrite` as a user meets it: a probe set at the end, estimates, batches, and no key anywhere."""

import json
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from llm_servers import completion, in_turn, serving, told_again
from lmdissect.factors import ORIGINAL
from lmdissect.probes import read_probe_set
from rewriting import documents

CANARY = "sk-canary-4f1d9c0b7e"


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "corpus.jsonl"
    path.write_text("".join(json.dumps({"id": document.document_id, "text": document.text}) + "\n" for document in documents(6)))
    return path


def test_a_probe_set_from_a_corpus(run_cli, corpus: Path, tmp_path: Path) -> None:
    with serving(in_turn("ok", "refusal text", "429", "ok")) as server:
        arguments = ("rewrite", "--no-audit", "--originals", str(corpus), "--factor", "style=casual", "--model", "m", "--base-url", server.url)
        outcome = run_cli(*arguments, "--out", str(tmp_path / "out"))
        writer = f"m at {server.url}"
    assert outcome.code == 0, outcome.err
    assert "casual\t6\t-" in outcome.out
    assert "paraphrase\t6\t-" in outcome.out
    probe_set = read_probe_set(str(tmp_path / "out" / "probes"))
    table = probe_set.by_variant()
    assert {name: len(texts) for name, texts in table.items()} == {ORIGINAL: 6, "casual": 6, "paraphrase": 6}
    assert table["casual"]["d3"] == f"{table[ORIGINAL]['d3']} So it was told again."
    assert set(probe_set.generators.values()) == {writer}
    assert len(set(probe_set.prompt_hashes.values())) == 1
    assert len(set(probe_set.instruction_hashes.values())) == 2


def test_a_probe_sets_originals_are_originals_and_a_limit_nests(run_cli, tmp_path: Path) -> None:
    rows = [{"document_id": document.document_id, "variant": "original", "text": document.text} for document in documents(8)]
    rows.append({"document_id": "d0", "variant": "casual", "text": "Not an original."})
    (tmp_path / "probes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = []
    for number in ("2", "5"):
        folder = tmp_path / number
        arguments = ("--originals", str(tmp_path / "probes.jsonl"), "--factor", "rap", "--generator", "scripted", "--limit", number, "--no-control")
        assert run_cli("rewrite", "--no-audit", *arguments, "--out", str(folder)).code == 0
        found.append(set(read_probe_set(str(folder / "probes")).by_variant()["rap"]))
    assert len(found[0]) == 2
    assert len(found[1]) == 5
    assert found[0] < found[1] <= {f"d{number}" for number in range(8)}


def test_adding_a_factor_reuses_every_answer(run_cli, corpus: Path, tmp_path: Path) -> None:
    with serving() as server:
        arguments = ("rewrite", "--no-audit", "--originals", str(corpus), "--model", "m", "--base-url", server.url, "--out", str(tmp_path / "out"))
        assert run_cli(*arguments, "--factor", "style=casual").code == 0
        assert server.num_requests == 12
        outcome = run_cli(*arguments, "--factor", "style=casual", "--factor", "factual=counterfactual")
    assert server.num_requests == 18
    assert "requests sent now: 6" in outcome.out
    assert set(read_probe_set(str(tmp_path / "out" / "probes")).factors) == {"casual", "counterfactual", "paraphrase"}


def test_a_dry_run_sends_nothing_and_says_what_it_does_not_know(run_cli, corpus: Path, tmp_path: Path) -> None:
    with serving() as server:
        arguments = (
            "rewrite",
            "--no-audit",
            "--originals",
            str(corpus),
            "--factor",
            "casual",
            "--base-url",
            server.url,
            "--out",
            str(tmp_path / "out"),
        )
        unknown = run_cli(*arguments, "--model", "m", "--dry-run")
        given = run_cli(*arguments, "--model", "m", "--dry-run", "--price", "1000,2000")
        run_cli(*arguments, "--model", "m")
        again = run_cli(*arguments, "--model", "m", "--dry-run")
        assert server.num_requests == 12
    assert "12 rewrites wanted, 0 of them answered already" in unknown.out
    assert "US dollars     unknown" in unknown.out
    low, expected, high = (
        float(cell.replace(",", "")) for cell in next(line for line in given.out.splitlines() if line.startswith("US dollars")).split()[2:]
    )
    assert 0 < low < expected < high
    assert "12 of them answered already" in again.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--factor", "casual"), "--model: say who writes"),
        (("--factor", "nonsense", "--model", "m"), "no recipe for 'nonsense'"),
        (("--factor", "casual", "--model", "m", "--base-url", "ftp://x"), "not the URL of a server"),
        (("--factor", "casual", "--model", "m", "--base-url", "http://me:secret@host/v1"), "leave out user, password"),
        (("--factor", "casual", "--model", "m", "--base-url", "http://host/v1?key=secret"), "leave out user, password"),
        (("--factor", "casual", "--model", "m", "--structured", "maybe"), "--structured"),
        (("--factor", "casual", "--model", "m", "--concurrency", "9", "--max-concurrency", "3"), "above --max-concurrency"),
        (("--factor", "casual", "--model", "m", "--price", "cheap"), "--price cheap"),
        (("--factor", "casual", "--model", "m", "--base-url", "http://127.0.0.1:1/v1", "--max-cost", "1"), "price of this model is not known"),
        (("--factor", "casual", "--model", "m", "--generator", "oracle"), "--generator oracle"),
        (("--factor", "casual", "--model", "m"), "no key: put it into the environment variable OPENAI_API_KEY"),
    ],
)
def test_what_is_wrong_is_one_line(
    run_cli, monkeypatch: pytest.MonkeyPatch, corpus: Path, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    outcome = run_cli("rewrite", "--no-audit", "--originals", str(corpus), *arguments, "--out", str(tmp_path / "out"))
    assert outcome.code == 2
    assert message in outcome.err
    assert "secret" not in outcome.err
    assert "Traceback" not in outcome.err


def _assert_no_key(folder: Path, *said: str) -> None:
    assert all(CANARY not in text for text in said)
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert {"ledger.sqlite", "outcomes.parquet"} & {path.name for path in files}
    for path in files:
        assert CANARY.encode() not in path.read_bytes(), path
        if path.suffix == ".parquet":
            assert CANARY not in str(pq.read_table(path).to_pydict()), path


@pytest.mark.parametrize("behaviour", ["ok", "key in the answer", "key in the error", "key in the fault"])
def test_the_key_is_nowhere(run_cli, monkeypatch: pytest.MonkeyPatch, corpus: Path, tmp_path: Path, behaviour: str) -> None:
    """A server that repeats the key finds no way to have it written down or printed."""
    monkeypatch.setenv("MY_CANARY", CANARY)
    with serving(in_turn("ok", behaviour, behaviour, "ok")) as server:
        arguments = (
            "rewrite",
            "--no-audit",
            "--originals",
            str(corpus),
            "--factor",
            "casual",
            "--model",
            "m",
            "--api-key-env",
            "MY_CANARY",
            "--limit",
            "2",
        )
        outcome = run_cli(*arguments, "--base-url", server.url, "--out", str(tmp_path / "out"))
        assert f"Bearer {CANARY}" in server.authorizations
        assert server.seen[behaviour] >= 1
    assert outcome.code == (2 if behaviour == "key in the error" else 0)
    _assert_no_key(tmp_path / "out", outcome.out, outcome.err)


@pytest.mark.slow
def test_the_key_is_in_no_log_of_a_real_process(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_CANARY", CANARY)
    monkeypatch.setenv("OPENAI_LOG", "debug")
    with serving(in_turn("ok", "key in the answer", "key in the fault", "ok")) as server:
        command = [
            sys.executable,
            "-m",
            "lmdissect",
            "rewrite",
            "--no-audit",
            "--originals",
            str(corpus),
            "--factor",
            "casual",
            "--model",
            "m",
            "--limit",
            "2",
        ]
        command += ["--base-url", server.url, "--api-key-env", "MY_CANARY", "--out", str(tmp_path / "out")]
        done = subprocess.run(command, capture_output=True, check=False, timeout=120, text=True)
    assert done.returncode == 0, done.stderr
    assert "Sending HTTP Request" in done.stderr  # the client's own log is on
    _assert_no_key(tmp_path / "out", done.stdout, done.stderr)


def _answer_batch(requests: Path, answers: Path, *, refuse: int = 0, expire: int = 0) -> None:
    lines = []
    for number, line in enumerate(requests.read_text().splitlines()):
        request = json.loads(line)
        assert (request["method"], request["url"]) == ("POST", "/v1/chat/completions")
        text = "I'm sorry, but I can't assist with that." if number < refuse else told_again(request["body"])
        response = {"status_code": 200, "request_id": "r", "body": completion(request["body"], text)}
        entry = {"id": "b", "custom_id": request["custom_id"], "response": response, "error": None}
        if number >= refuse and number < refuse + expire:
            entry |= {"response": None, "error": {"code": "batch_expired", "message": "too late"}}
        lines.append(json.dumps(entry))
    answers.write_text("\n".join([*lines, '{"custom_id": "of another run"}', "no json"]) + "\n")


def test_a_batch_goes_out_and_comes_back_any_number_of_times(run_cli, corpus: Path, tmp_path: Path) -> None:
    requests, answers = tmp_path / "requests.jsonl", tmp_path / "answers.jsonl"
    arguments = ("rewrite", "--no-audit", "--originals", str(corpus), "--factor", "casual", "--model", "gpt-4o", "--out", str(tmp_path / "out"))
    assert "12 requests in" in run_cli(*arguments, "--batch-export", str(requests)).out
    first = requests.read_bytes()
    run_cli(*arguments, "--batch-export", str(requests))
    assert requests.read_bytes() == first
    _answer_batch(requests, answers, refuse=2, expire=3)
    outcome = run_cli(*arguments, "--batch-import", str(answers))
    assert outcome.code == 0, outcome.err
    assert "9 answers taken, 0 known before, 3 without an answer, 2 set aside" in outcome.out
    assert "refusal" in outcome.out
    assert "server_error" in outcome.out
    again = run_cli(*arguments, "--batch-import", str(answers))
    assert "0 answers taken, 9 known before, 3 without an answer" in again.out
    assert "5 requests in" in run_cli(*arguments, "--batch-export", str(requests)).out
    _answer_batch(requests, answers)
    outcome = run_cli(*arguments, "--batch-import", str(answers))
    assert "casual\t6\t-" in outcome.out
    assert run_cli(*arguments, "--batch-export", str(requests)).code == 2
    assert {name: len(texts) for name, texts in read_probe_set(str(tmp_path / "out" / "probes")).by_variant().items()} == {
        ORIGINAL: 6,
        "casual": 6,
        "paraphrase": 6,
    }


def test_what_a_batch_answered_is_not_asked_of_a_server(run_cli, corpus: Path, tmp_path: Path) -> None:
    requests, answers = tmp_path / "requests.jsonl", tmp_path / "answers.jsonl"
    with serving() as server:
        arguments = (
            "rewrite",
            "--originals",
            str(corpus),
            "--factor",
            "casual",
            "--model",
            "m",
            "--base-url",
            server.url,
            "--out",
            str(tmp_path / "out"),
        )
        run_cli(*arguments, "--batch-export", str(requests))
        _answer_batch(requests, answers, expire=4)
        run_cli(*arguments, "--batch-import", str(answers))
        run_cli(*arguments)
    assert server.num_requests == 4


def test_the_price_of_a_model_that_is_sold_is_known(run_cli, corpus: Path, tmp_path: Path) -> None:
    arguments = ("rewrite", "--no-audit", "--originals", str(corpus), "--factor", "casual", "--model", "gpt-4o", "--out", str(tmp_path / "out"))
    outcome = run_cli(*arguments, "--dry-run")
    assert outcome.code == 0
    assert "genai-prices" in outcome.out
