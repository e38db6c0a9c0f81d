"""A server that misbehaves on a real socket: every fault has a name, nothing is lost, and nothing becomes a probe silently."""

import asyncio
import socket
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from llm_servers import always, in_turn, serving, storm, told_again
from lmdissect.errors import LmdissectError, RunFailedError, UserInputError
from lmdissect.progress import SilentProgress
from lmdissect.rewrite import ChatEndpoint, Outcome, Price, RewriteConfig, RewriteSummary, rewrite_documents
from lmdissect.rewrite.ledger import Ledger, LedgerRow
from rewriting import CASUAL, CONTROL, documents

CONFIG = RewriteConfig(timeout_s=0.6, fault_retries=1, attempts=2)


def rewrite(
    url: str, folder: Path, *, number: int = 3, config: RewriteConfig = CONFIG, recipes=(CASUAL,), price: Price | None = None, given=None
) -> RewriteSummary:
    endpoint = ChatEndpoint("m", base_url=url, structured=config.structured, timeout_s=config.timeout_s, temperature=config.temperature)
    return rewrite_documents(given or documents(number), recipes, endpoint, config, folder, price=price)


def named(summary: RewriteSummary) -> Counter[str]:
    return Counter(outcome.outcome.value for outcome in summary.outcomes)


@pytest.mark.parametrize(
    ("behaviour", "extra_requests"),
    [
        ("429", 2), ("429 seconds", 2), ("429 zero", 2), ("429 date", 2),
        ("500", 2), ("502", 2), ("503", 2), ("reset", 2), ("silence", 2), ("drip", 2), ("truncated", 2), ("half json", 2), ("html", 2),
        ("not a completion", 2), ("no message", 2), ("surrogate", 2),
        ("wrong type", 0), ("think", 0), ("preamble", 0), ("plain", 0),
        ("empty choices", 2), ("length", 2), ("content_filter", 2), ("refusal field", 2), ("refusal text", 2), ("empty", 2), ("null", 2),
        ("preamble alone", 2), ("wrong language", 2), ("unchanged", 2), ("echo", 2), ("invalid json", 2),
    ],
)  # fmt: skip
def test_what_passes_leaves_no_trace_in_the_probes(tmp_path: Path, behaviour: str, extra_requests: int) -> None:
    with serving(in_turn("ok", behaviour, behaviour, "ok")) as server:
        summary = rewrite(server.url, tmp_path / "out", config=CONFIG.model_copy(update={"attempts": 3, "fault_retries": 2}))
    assert named(summary) == {"ok": 3}
    assert {outcome.text for outcome in summary.outcomes} == {f"{document.text} So it was told again." for document in documents(3)}
    assert server.num_requests == summary.num_sent == 3 + extra_requests


@pytest.mark.parametrize(
    ("behaviour", "outcome", "num_tries"),
    [
        ("500", Outcome.SERVER_ERROR, 2), ("502", Outcome.SERVER_ERROR, 2), ("503", Outcome.SERVER_ERROR, 2),
        ("silence", Outcome.TIMEOUT, 2), ("drip", Outcome.TIMEOUT, 2),
        ("reset", Outcome.CONNECTION_LOST, 2), ("truncated", Outcome.CONNECTION_LOST, 2),
        ("half json", Outcome.MALFORMED_RESPONSE, 2), ("html", Outcome.MALFORMED_RESPONSE, 2), ("not a completion", Outcome.MALFORMED_RESPONSE, 2),
        ("no message", Outcome.MALFORMED_RESPONSE, 2), ("surrogate", Outcome.MALFORMED_RESPONSE, 2),
        ("400", Outcome.BAD_REQUEST, 1), ("400 too large", Outcome.BAD_REQUEST, 1),
        ("400 filter", Outcome.CONTENT_FILTER, 2), ("403", Outcome.FORBIDDEN, 1),
        ("empty choices", Outcome.NO_CHOICES, 2), ("length", Outcome.CUT_OFF, 2), ("content_filter", Outcome.CONTENT_FILTER, 2),
        ("refusal field", Outcome.REFUSAL, 2), ("refusal text", Outcome.REFUSAL, 2), ("empty", Outcome.EMPTY, 2), ("null", Outcome.EMPTY, 2),
        ("preamble alone", Outcome.PREAMBLE, 2), ("wrong language", Outcome.WRONG_LANGUAGE, 2), ("unchanged", Outcome.UNCHANGED_COPY, 2),
        ("echo", Outcome.ECHOED_PROMPT, 2), ("invalid json", Outcome.INVALID_JSON, 2),
    ],
)  # fmt: skip
def test_what_stays_has_its_name(tmp_path: Path, behaviour: str, outcome: Outcome, num_tries: int) -> None:
    """The first document is answered, the second never well."""

    def second_badly(_number: int, body: dict[str, object]) -> str:
        return behaviour if "had 1 patients" in told_again(body) else "ok"

    with serving(second_badly) as server:
        summary = rewrite(server.url, tmp_path / "out", number=2)
    assert [entry.outcome for entry in summary.outcomes] == [Outcome.OK, outcome]
    assert summary.outcomes[1].text is None
    assert server.seen[behaviour] == num_tries
    with Ledger(tmp_path / "out") as ledger:
        assert {row.document_id for row in ledger.rows()} == {"d0", "d1"}


def test_a_403_met_while_the_first_answer_is_being_written_is_about_that_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a slow disk the second request is sent, and refused, before the row of the first is on it."""
    record = Ledger.record

    async def record_slowly(ledger: Ledger, row: LedgerRow) -> None:
        await asyncio.sleep(0.3)
        await record(ledger, row)

    monkeypatch.setattr(Ledger, "record", record_slowly)
    with serving(in_turn("ok", "403")) as server:
        summary = rewrite(server.url, tmp_path / "out", number=2, config=ONCE)
    assert named(summary) == {"ok": 1, "forbidden": 1}


@pytest.mark.parametrize("behaviour", ["refusal text", "length", "unchanged"])
def test_bad_answers_are_asked_again_with_another_seed_and_faults_are_not(tmp_path: Path, behaviour: str) -> None:
    with serving(in_turn(behaviour, "500", "ok")) as server:
        rewrite(server.url, tmp_path / "out", number=1)
    seeds = [body["seed"] for body in server.bodies]
    assert len(seeds) == 3
    assert seeds[0] != seeds[1] == seeds[2]
    assert server.bodies[1] == server.bodies[2]


@pytest.mark.parametrize(
    ("behaviour", "error", "message"),
    [
        ("401", UserInputError, r"key in MY_KEY is not accepted .*HTTP 401"),
        ("404", UserInputError, r"no such model or address .*--model m and --base-url"),
        ("quota", RunFailedError, r"no quota left .*run the same command again"),
        ("429 tomorrow", RunFailedError, r"asks to wait 86400 s"),
    ],
)
@pytest.mark.parametrize("first", [0, 4])
def test_what_cannot_get_better_stops_at_once_and_can_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, behaviour: str, error: type[LmdissectError], message: str, first: int
) -> None:
    monkeypatch.setenv("MY_KEY", "a key of a test")
    config = CONFIG.model_copy(update={"concurrency": 2, "max_concurrency": 2})
    with serving(lambda number, _body: "ok" if number < first else behaviour) as server:
        endpoint = ChatEndpoint("m", base_url=server.url, key_variable="MY_KEY", timeout_s=5.0)
        with pytest.raises(error, match=message):
            rewrite_documents(documents(20), [CASUAL], endpoint, config, tmp_path / "out")
        assert server.num_requests <= max(1, first + 2)  # at the start one request alone, later those in flight
        assert set(server.authorizations) == {"Bearer a key of a test"}
        server.behaviours = always("ok")
        before = server.num_requests
        summary = rewrite_documents(documents(20), [CASUAL], endpoint, config, tmp_path / "out")
    assert named(summary) == {"ok": 20}
    assert server.num_requests - before == 20 - first
    assert max(server.successes.values()) == 1


def test_nobody_listens(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: refused
        with pytest.raises(RunFailedError, match=r"no server can be reached at http://127\.0\.0\.1:\d+/v1"):
            rewrite(f"http://127.0.0.1:{taken.getsockname()[1]}/v1", tmp_path / "out")


def test_a_server_that_fails_for_all_ends_the_run(tmp_path: Path) -> None:
    with serving("500") as server, pytest.raises(RunFailedError, match=r"does not answer any more \(server_error"):
        rewrite(server.url, tmp_path / "out", number=40)
    assert server.num_requests < 80


def test_a_storm_of_refusals_ends_after_the_patience(tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"patience_s": 0.5})
    with serving(in_turn("ok", "429")) as server, pytest.raises(RunFailedError, match=r"at capacity \(429\) for 0 s|at capacity"):
        rewrite(server.url, tmp_path / "out", number=30, config=config)
    assert server.num_requests < 60


@pytest.mark.parametrize(
    ("behaviours", "first", "last"),
    [
        (("400 structured", "ok"), {"response_format", "max_tokens"}, {"max_tokens"}),
        (("400 tokens", "ok"), {"response_format", "max_tokens"}, {"response_format", "max_completion_tokens"}),
        (("422 seed", "ok"), {"response_format", "max_tokens", "seed"}, {"response_format", "max_tokens"}),
        (("400 structured", "400 tokens", "422 seed", "ok"), {"response_format"}, {"max_completion_tokens"}),
    ],
)
def test_fields_that_a_server_does_not_take_are_learned_once_and_for_later_runs(
    tmp_path: Path, behaviours: tuple[str, ...], first: set[str], last: set[str]
) -> None:
    optional = {"response_format", "max_tokens", "max_completion_tokens", "seed"}
    with serving(in_turn(*behaviours)) as server:
        assert named(rewrite(server.url, tmp_path / "out", number=5)) == {"ok": 5}
        assert server.num_requests == 5 + len(behaviours) - 1
        assert rewrite(server.url, tmp_path / "out", number=6).num_sent == 1
    assert first <= set(server.bodies[0]) & optional
    assert all(set(body) & optional >= last and not set(body) & (first - last) for body in server.bodies[len(behaviours) - 1 :])


def test_structure_that_must_be_and_cannot_be(tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"structured": "on"})
    with serving("400 structured") as server, pytest.raises(UserInputError, match="does not take structured output"):
        rewrite(server.url, tmp_path / "out", config=config)


def test_without_seeds_every_attempt_is_still_a_request_of_its_own(tmp_path: Path) -> None:
    with serving(in_turn("422 seed", "refusal text", "ok")) as server:
        summary = rewrite(server.url, tmp_path / "out", number=1)
        assert (named(summary), summary.outcomes[0].attempts) == ({"ok": 1}, 2)
        assert rewrite(server.url, tmp_path / "out", number=1).num_sent == 0
    assert server.bodies[1] == server.bodies[2]


def test_no_key_sends_no_header(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with serving() as server:
        rewrite(server.url, tmp_path / "out", number=1)
    assert server.authorizations == [None]


def test_equal_texts_are_one_request_and_two_probes(tmp_path: Path) -> None:
    given = [documents(1)[0], *documents(2)]
    given[0] = type(given[0])("twin", given[0].text)
    with serving() as server:
        summary = rewrite(server.url, tmp_path / "out", given=given, price=Price(1.0, 1.0, "a test"))
    assert server.num_requests == 2
    assert [(entry.document_id, entry.outcome) for entry in summary.outcomes] == [(name, Outcome.OK) for name in ("twin", "d0", "d1")]
    assert summary.cost_usd == pytest.approx(2 * 150e-6)


def test_a_limit_on_costs_is_never_passed(tmp_path: Path) -> None:
    price = Price(10.0, 10.0, "a test")  # 150 tokens an answer: 0.0015 dollars
    config = CONFIG.model_copy(update={"max_cost_usd": 0.05})
    with serving() as server:
        with pytest.raises(RunFailedError, match=r"--max-cost 0\.05: the next request could pass it"):
            rewrite(server.url, tmp_path / "out", number=60, config=config, price=price)
        spent_usd = server.num_requests * 0.0015
        assert 0.02 < spent_usd <= 0.05
        more = config.model_copy(update={"max_cost_usd": 1.0})
        summary = rewrite(server.url, tmp_path / "out", number=60, config=more, price=price)
    assert server.num_requests == 60
    assert summary.spent_usd == pytest.approx(60 * 0.0015)


def test_faults_that_may_be_billed_count_at_their_worst(tmp_path: Path) -> None:
    price = Price(1.0, 1.0, "a test")
    with serving(in_turn("ok", "truncated", "500", "ok")) as server:
        summary = rewrite(server.url, tmp_path / "out", number=3, price=price, config=CONFIG.model_copy(update={"fault_retries": 2}))
    assert server.num_requests == 5
    assert summary.spent_usd is not None
    assert summary.spent_usd > 3 * 150e-6 + 256e-6  # three answers, and the token limit of one that was cut


def test_a_storm_of_everything(tmp_path: Path) -> None:
    """100 documents, two recipes: every one ends in a named outcome, nothing is paid twice, and few requests are wasted."""
    shares = {"429": 0.3, "500": 0.05, "reset": 0.02, "truncated": 0.02}
    config = RewriteConfig(concurrency=32, timeout_s=10.0)
    with serving(storm(1, shares)) as server:
        summary = rewrite(server.url, tmp_path / "out", number=100, recipes=(CONTROL, CASUAL), config=config)
    assert named(summary) == {"ok": 200}
    assert max(server.successes.values()) == 1
    assert sum(server.successes.values()) == 200
    assert server.num_requests - server.seen["429"] <= 1.5 * 200
    assert summary.num_capacity_refusals == server.seen["429"] > 30


def poisoned(behaviour: str, first: int):
    """Documents from number ``first`` on meet a behaviour always, the others are answered."""

    def by_document(_number: int, body: dict[str, object]) -> str:
        return behaviour if int(told_again(body).split("had ")[1].split()[0]) >= first else "ok"

    return by_document


def written(folder: Path) -> Counter[str]:
    return Counter(pq.read_table(folder / "outcomes.parquet", columns=["outcome"]).column("outcome").to_pylist())


ONCE = CONFIG.model_copy(update={"fault_retries": 0, "attempts": 1})


@pytest.mark.parametrize(("behaviour", "outcome"), [("500", "server_error"), ("400", "bad_request"), ("403", "forbidden")])
def test_many_poisonous_documents_end_no_run_of_a_server_that_answers(tmp_path: Path, behaviour: str, outcome: str) -> None:
    """Also where a rerun has nothing else to ask."""
    with serving(poisoned(behaviour, 6)) as server:
        for _ in range(2):
            summary = rewrite(server.url, tmp_path / "out", number=30, config=ONCE)
            assert named(summary) == {"ok": 6, outcome: 24}
    assert (tmp_path / "out" / "manifest.json").exists()


def test_what_ends_a_run_leaves_its_outcomes(tmp_path: Path) -> None:
    with serving(in_turn("ok", "ok", "ok", "401")) as server, pytest.raises(UserInputError):
        rewrite(server.url, tmp_path / "out", number=30, config=ONCE.model_copy(update={"concurrency": 1, "max_concurrency": 1}))
    assert written(tmp_path / "out") == {"ok": 3, "not_asked": 27}
    assert not (tmp_path / "out" / "manifest.json").exists()


class Listening(SilentProgress):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, message: str) -> None:
        self.said.append(message)


ALONE = ONCE.model_copy(update={"concurrency": 1, "max_concurrency": 1})


def test_a_key_that_is_refused_in_a_later_run_costs_no_document(tmp_path: Path) -> None:
    with serving() as server:
        rewrite(server.url, tmp_path / "out", number=3)
        server.behaviours = always("403")
        for _ in range(2):
            with pytest.raises(UserInputError, match=r"HTTP 403 .*run the same command again"):
                rewrite(server.url, tmp_path / "out", number=6)
        assert server.seen["403"] == 1 + 2
        server.behaviours = always("ok")
        assert named(rewrite(server.url, tmp_path / "out", number=6)) == {"ok": 6}


def test_a_key_that_is_revoked_in_a_run_costs_no_document(tmp_path: Path) -> None:
    progress = Listening()
    with serving(in_turn(*["ok"] * 5, "403")) as server:
        endpoint = ChatEndpoint("m", base_url=server.url, timeout_s=5.0)
        summary = rewrite_documents(documents(45), [CASUAL], endpoint, ALONE, tmp_path / "out", progress=progress)
        assert named(summary) == {"ok": 5, "forbidden": 40}
        assert ["refused the last 40 requests (403)" in line for line in progress.said] == [True]
        server.behaviours = always("ok")
        summary = rewrite(server.url, tmp_path / "out", number=45)
    assert (named(summary), summary.num_sent) == ({"ok": 45}, 40)


def test_a_first_document_that_is_forbidden_ends_one_run_alone(tmp_path: Path) -> None:
    with serving(lambda _number, body: "403" if "had 0 patients" in told_again(body) else "ok") as server:
        with pytest.raises(UserInputError, match=r"where the key is right, it goes on past this request"):
            rewrite(server.url, tmp_path / "out", number=20)
        for num_sent in (20, 1):
            summary = rewrite(server.url, tmp_path / "out", number=20)
            assert (named(summary), summary.num_sent) == ({"ok": 19, "forbidden": 1}, num_sent)


def test_a_key_that_never_was_good_is_no_success_however_often_it_is_tried(tmp_path: Path) -> None:
    with serving("403") as server:
        for _ in range(4):
            with pytest.raises(UserInputError, match="HTTP 403"):
                rewrite(server.url, tmp_path / "out", number=2)


def test_what_was_doubted_is_asked_again_also_after_a_run_that_did_not_ask_it(tmp_path: Path) -> None:
    with serving("400") as server:
        with pytest.raises(RunFailedError, match="they are asked again then"):
            rewrite(server.url, tmp_path / "out", number=20, config=ALONE)
        server.behaviours = always("ok")
        assert named(rewrite(server.url, tmp_path / "out", number=2)) == {"ok": 2}
        assert named(rewrite(server.url, tmp_path / "out", number=20)) == {"ok": 20}


def test_what_is_rejected_in_a_run_without_any_answer_is_asked_again(tmp_path: Path) -> None:
    with serving("400") as server:
        assert named(rewrite(server.url, tmp_path / "out", number=2)) == {"bad_request": 2}
        server.behaviours = lambda _number, body: "400" if "had 0 patients" in told_again(body) else "ok"
        for num_sent in (2, 0):  # one is rejected among others that are answered: final
            summary = rewrite(server.url, tmp_path / "out", number=2)
            assert (named(summary), summary.num_sent) == ({"bad_request": 1, "ok": 1}, num_sent)


@pytest.mark.parametrize("behaviour", ["400", "400 too large"])
def test_a_server_that_rejects_everything_ends_the_run_and_is_asked_again(tmp_path: Path, behaviour: str) -> None:
    with serving(behaviour) as server:
        for _ in range(2):
            with pytest.raises(RunFailedError, match=r"rejected \d+ requests in a row \(HTTP 400 .*maximum context length"):
                rewrite(server.url, tmp_path / "out", number=200)
        assert server.num_requests < 100
        server.behaviours = always("ok")
        assert named(rewrite(server.url, tmp_path / "out", number=200)) == {"ok": 200}


def test_one_document_at_capacity_for_ever_is_its_own_outcome(tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"patience_s": 0.4})
    with serving(poisoned("429", 20), latency_s=0.02) as server:
        for _ in range(2):
            assert named(rewrite(server.url, tmp_path / "out", number=21, config=config)) == {"ok": 20, "server_error": 1}


@pytest.mark.parametrize("number", [5, 6])
def test_last_documents_at_capacity_for_ever_end_a_run_each_and_no_more(tmp_path: Path, number: int) -> None:
    config = CONFIG.model_copy(update={"patience_s": 0.5, "concurrency": 1, "max_concurrency": 1})
    with serving(poisoned("429", 4)) as server:
        for _ in range(number - 4):
            with pytest.raises(RunFailedError, match=r"at capacity \(429\)"):
                rewrite(server.url, tmp_path / "out", number=number, config=config)
        for _ in range(2):
            assert named(rewrite(server.url, tmp_path / "out", number=number, config=config)) == {"ok": 4, "server_error": number - 4}


@pytest.mark.parametrize("num_answered", [0, 3])
@pytest.mark.parametrize("behaviour", ["silence", "html"])
def test_a_server_that_answers_nothing_in_a_run_is_asked_ten_times(tmp_path: Path, behaviour: str, num_answered: int) -> None:
    """Also in the runs after it: what was asked once is not a document that the server cannot digest."""
    config = RewriteConfig(timeout_s=0.2)
    with serving() as server:
        if num_answered:
            rewrite(server.url, tmp_path / "out", number=num_answered, config=config)
        server.behaviours = always(behaviour)
        for number in range(1, 4):
            with pytest.raises(RunFailedError, match="does not answer any more"):
                rewrite(server.url, tmp_path / "out", number=200, config=config)
            assert server.seen[behaviour] <= 12 * number
        server.behaviours = always("ok")
        assert named(rewrite(server.url, tmp_path / "out", number=200, config=config.model_copy(update={"timeout_s": 5.0}))) == {"ok": 200}


def test_a_quick_hiccup_at_the_start_ends_no_run(tmp_path: Path) -> None:
    with serving(in_turn(*["503"] * 20, "ok")) as server:
        assert named(rewrite(server.url, tmp_path / "out", number=40, config=RewriteConfig(timeout_s=5.0))) == {"ok": 40}


def test_what_was_given_up_is_tried_once_while_nothing_else_is_answered(tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"fault_retries": 2})
    with serving(poisoned("silence", 4)) as server:
        for num_tries in (2 * 3, 2, 2):
            before = server.seen["silence"]
            assert named(rewrite(server.url, tmp_path / "out", number=6, config=config)) == {"ok": 4, "timeout": 2}
            assert server.seen["silence"] - before == num_tries


def test_a_recalled_dialect_is_kept_when_a_document_is_too_long(tmp_path: Path) -> None:
    with serving(in_turn("400 tokens", "ok", "400 too large", "ok")) as server:
        rewrite(server.url, tmp_path / "out", number=1)
        summary = rewrite(server.url, tmp_path / "out", number=3)
    assert named(summary) == {"ok": 2, "bad_request": 1}
    assert all("max_completion_tokens" in body for body in server.bodies[1:])
    assert summary.num_sent == 2


def test_what_may_have_been_billed_is_known_to_the_next_run_however_this_one_ends(tmp_path: Path) -> None:
    price = Price(1.0, 1.0, "a test")
    config = CONFIG.model_copy(update={"concurrency": 1, "max_concurrency": 1})
    with serving(in_turn("ok", "truncated", "401")) as server:
        with pytest.raises(UserInputError):
            rewrite(server.url, tmp_path / "out", number=2, price=price, config=config)
        with Ledger(tmp_path / "out") as ledger:
            assert sum(row.worst_cost_usd for row in ledger.rows()) > 256e-6


def test_equal_requests_in_flight_are_one(tmp_path: Path) -> None:
    twin = CASUAL.model_copy(update={"variant": "twin"})
    with serving(latency_s=0.1) as server:
        summary = rewrite(server.url, tmp_path / "out", number=4, recipes=(CASUAL, twin))
    assert named(summary) == {"ok": 8}
    assert server.num_requests == summary.num_sent == 4


@pytest.mark.parametrize("key", ["sk-two\nlines-of-it", "sk-schl\u00fcssel-of-it"])
def test_what_cannot_be_a_key_is_refused_without_repeating_it(monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    monkeypatch.setenv("MY_KEY", key)
    with pytest.raises(UserInputError, match="MY_KEY holds a line break") as refused:
        ChatEndpoint("m", base_url="http://127.0.0.1:1/v1", key_variable="MY_KEY")
    assert "of-it" not in str(refused.value)


def test_an_escaped_key_is_taken_out_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret-of-a-test")
    with serving(in_turn("ok", "key escaped")) as server:
        summary = rewrite(server.url, tmp_path / "out", number=2, config=ONCE)
    details = [outcome.detail for outcome in summary.outcomes if outcome.detail]
    assert len(details) == 1
    assert "[key]" in details[0]
    assert "secret" not in details[0]


def test_a_part_of_the_benchmark_leaves_the_page_of_the_whole() -> None:
    root = Path(__file__).parents[2]
    page = root / "docs" / "benchmarks-rewriting.md"
    before = page.read_bytes(), page.stat().st_mtime_ns
    command = [sys.executable, str(root / "benchmarks" / "rewriting.py"), "storm", "--documents", "3"]
    done = subprocess.run(command, capture_output=True, check=True, timeout=120, text=True)
    assert "is left as it is" in done.stderr
    assert (page.read_bytes(), page.stat().st_mtime_ns) == before
