"""Batch files that are exported again, and answers that come back to rows with a history."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from lmdissect.errors import UnusableOutputError
from lmdissect.rewrite import ChatEndpoint, Outcome, Price, RewriteConfig, batch_files, export_batch, import_batch, open_work
from lmdissect.rewrite.ledger import LedgerRow
from lmdissect.rewrite.outcomes import RawAnswer
from rewriting import CASUAL, documents

COMPLETION = {"choices": [{"message": {"content": "A text of 3."}, "finish_reason": "stop"}], "usage": {"prompt_tokens": 1, "completion_tokens": 1}}


def opened(folder: Path, number: int):
    return open_work(
        documents(number), [CASUAL], ChatEndpoint("m", base_url="http://127.0.0.1:1/v1"), RewriteConfig(), folder, price=Price(1.0, 1.0, "a test")
    )


def answered(requests: Path, answers: Path, **response: object) -> None:
    lines = [json.loads(line) for line in requests.read_text().splitlines()]
    answers.write_text("".join(json.dumps({"custom_id": line["custom_id"], "response": response}) + "\n" for line in lines))


def test_a_second_export_counts_what_has_not_come_back(tmp_path: Path) -> None:
    requests, answers = tmp_path / "requests.jsonl", tmp_path / "answers.jsonl"
    with opened(tmp_path / "out", 2) as work:
        assert export_batch(work, requests).num_pending == 0
        answered(requests, answers, status_code=500, body={"error": {"message": "expired"}})
    with opened(tmp_path / "out", 3) as work:
        assert (export_batch(work, requests).num_requests, export_batch(work, requests).num_pending) == (3, 3)
        import_batch(work, answers)
        assert export_batch(work, requests).num_pending == 1


def test_parts_of_an_earlier_larger_export_are_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_files, "_MOST_REQUESTS", 1)
    (tmp_path / "requests-9.jsonl").write_text("{}")
    with opened(tmp_path / "out", 3) as work:
        assert len(export_batch(work, tmp_path / "requests.jsonl").files) == 3
    with opened(tmp_path / "out", 1) as work:
        export_batch(work, tmp_path / "requests.jsonl")
    assert sorted(path.name for path in tmp_path.glob("*.jsonl")) == ["requests-9.jsonl", "requests.jsonl"]


@pytest.mark.parametrize("name", ["requests.jsonl", "requests-2.jsonl", "requests-3.jsonl", "requests-4.jsonl"])
def test_a_file_that_no_export_wrote_is_neither_deleted_nor_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Answers that were downloaded under such a name are paid for."""
    monkeypatch.setattr(batch_files, "_MOST_REQUESTS", 1)
    with opened(tmp_path / "out", 4) as work:
        export_batch(work, tmp_path / "requests.jsonl")
    (tmp_path / name).write_text("answers")
    before = {path.name: path.read_bytes() for path in tmp_path.glob("*.jsonl")}
    with (
        opened(tmp_path / "out", 2) as work,
        pytest.raises(UnusableOutputError, match=rf"{name} is in the way, .*move it away, or choose another name"),
    ):
        export_batch(work, tmp_path / "requests.jsonl")
    assert {path.name: path.read_bytes() for path in tmp_path.glob("*.jsonl")} == before


def test_an_imported_answer_keeps_what_earlier_tries_may_have_cost(tmp_path: Path) -> None:
    requests, answers = tmp_path / "requests.jsonl", tmp_path / "answers.jsonl"
    with opened(tmp_path / "out", 1) as work:
        export_batch(work, requests)
        key = json.loads(requests.read_text())["custom_id"]
        fault = LedgerRow(
            key=key, document_id="d0", variant="casual", attempt=0, location="http://127.0.0.1:1/v1", model="m", structured=True,
            answer=RawAnswer(problem=Outcome.TIMEOUT), tries=1, capacity_refusals=0, latency_s=1.0, worst_cost_usd=0.25,
        )  # fmt: skip
        work.ledger.record_all([fault])
        answered(requests, answers, status_code=200, body=COMPLETION)
        import_batch(work, answers)
        row = work.ledger.find(key)
    assert row is not None
    assert replace(row, answer=fault.answer, latency_s=1.0) == fault
    assert row.answer.text == "A text of 3."


@pytest.mark.parametrize(("code", "outcome"), [("content_filter", Outcome.CONTENT_FILTER), ("context_length_exceeded", Outcome.BAD_REQUEST)])
def test_rejections_in_a_batch_have_their_names(tmp_path: Path, code: str, outcome: Outcome) -> None:
    requests, answers = tmp_path / "requests.jsonl", tmp_path / "answers.jsonl"
    with opened(tmp_path / "out", 1) as work:
        export_batch(work, requests)
        answered(requests, answers, status_code=400, body={"error": {"message": "no", "code": code}})
        import_batch(work, answers)
        assert [row.answer.problem for row in work.ledger.rows()] == [outcome]
        answered(requests, answers, status_code=200, body=COMPLETION)
        assert import_batch(work, answers).num_taken == 1  # a later batch answered it after all: that is not thrown away
