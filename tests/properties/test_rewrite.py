"""Whatever a document or an answer says."""

import asyncio
import json
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from lmdissect.rewrite.judging import judge_answer
from lmdissect.rewrite.ledger import Ledger, LedgerRow
from lmdissect.rewrite.outcomes import Outcome, RawAnswer
from lmdissect.rewrite.prompt import fence_code, write_prompt
from lmdissect.rewrite.responses import read_completion, read_error, retry_after_s
from rewriting import CASUAL

TEXTS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=300)


@given(TEXTS, st.booleans())
def test_a_document_cannot_close_its_fence_and_is_not_changed(document: str, structured: bool) -> None:
    prompt = write_prompt(CASUAL, document, structured=structured)
    task = prompt.messages[-1][1]
    assert prompt.code not in document
    assert f"[document {prompt.code}]\n{document}\n[end of document {prompt.code}]" in task
    assert task.count(prompt.code) == 2
    assert fence_code(document) == prompt.code


@given(TEXTS, st.one_of(st.none(), TEXTS), st.booleans(), st.booleans(), st.sampled_from(["stop", "length", "content_filter", "tool_calls", None]))
def test_every_answer_has_one_name_and_only_ok_has_a_text(
    document: str, text: str | None, structured: bool, lenient: bool, finish: str | None
) -> None:
    prompt = write_prompt(CASUAL, document, structured=structured)
    judged = judge_answer(RawAnswer(text=text, finish_reason=finish), prompt, CASUAL, structured=structured, lenient=lenient)
    assert (judged.text is not None) == (judged.outcome is Outcome.OK)
    if judged.text is not None:
        assert text is not None
        assert judged.text.strip()
        assert structured or judged.text in text
        assert prompt.code not in judged.text


@given(TEXTS)
def test_a_copy_is_never_a_rewrite(document: str) -> None:
    prompt = write_prompt(CASUAL, document, structured=True)
    for answer, structured in ((document, False), (json.dumps({"rewrite": f" {document}\n"}), True)):
        judged = judge_answer(RawAnswer(text=answer, finish_reason="stop"), prompt, CASUAL, structured=structured, lenient=False)
        assert judged.outcome is not Outcome.OK


@given(st.binary(max_size=200))
def test_no_body_makes_the_reader_fail(body: bytes) -> None:
    read_completion(body)
    read_error(body)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=9),
        lambda inner: (
            st.lists(inner) | st.dictionaries(st.sampled_from(["choices", "message", "content", "usage", "error", "model", "finish_reason"]), inner)
        ),
    )
)
def test_no_json_makes_the_reader_fail(content: object) -> None:
    body = json.dumps(content).encode()
    answer = read_completion(body)
    assert answer.text is None or isinstance(answer.text, str)
    assert all(isinstance(part, str) for part in read_error(body))


@given(st.text(max_size=40))
def test_no_header_makes_a_negative_wait(value: str) -> None:
    wait_s = retry_after_s({"retry-after": value})
    assert wait_s is None or 0 <= wait_s < float("inf")


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(TEXTS, st.one_of(st.none(), TEXTS), st.sampled_from([None, *Outcome]), st.integers(0, 2**40)), min_size=1, max_size=5))
def test_rows_come_back_as_they_were(contents: list[tuple[str, str | None, Outcome | None, int]]) -> None:
    rows = [
        LedgerRow(
            key=str(number),
            document_id=text,
            variant="v",
            attempt=number,
            location="here",
            model=text,
            structured=bool(number % 2),
            answer=RawAnswer(problem=problem, text=answer, detail=answer, input_tokens=tokens),
            tries=1,
            capacity_refusals=0,
            latency_s=tokens / 7,
        )
        for number, (text, answer, problem, tokens) in enumerate(contents)
    ]

    async def record(ledger: Ledger) -> None:
        await asyncio.gather(*(ledger.record(row) for row in rows))

    with tempfile.TemporaryDirectory() as folder, Ledger(Path(folder)) as ledger:
        asyncio.run(record(ledger))
        assert list(ledger.rows()) == rows
        assert ledger.num_damaged == 0
