"""From documents to a report in which the audit stands: a good writer behind a real socket, an audit, a comparison; and a judge behind one."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from lmdissect.cli import options
from lmdissect.demo_texts import demo_text_path
from lmdissect.models.embedding import DEFAULT_EMBEDDER
from lmdissect.probes import read_audit, read_probe_set
from lmdissect.recipes import read_recipes
from lmdissect_cli import CliOutcome
from tiny_models import save_tiny_llama

Run = Callable[..., CliOutcome]
NUM_DOCUMENTS = 8


@pytest.fixture(scope="module")
def texts() -> dict[str, dict[str, str]]:
    """Demo texts by variant and document: what the writer writes."""
    table: dict[str, dict[str, str]] = {}
    for line in demo_text_path("biomedical").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        table.setdefault(row["variant"], {})[row["document_id"]] = row["text"]
    return table


@pytest.fixture
def originals(tmp_path: Path, texts: dict[str, dict[str, str]]) -> Path:
    path = tmp_path / "originals.jsonl"
    rows = [{"id": document_id, "text": text} for document_id, text in list(texts["original"].items())[:NUM_DOCUMENTS]]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def _answer(text: str) -> Response:
    message = {"role": "assistant", "content": text}
    usage = {"prompt_tokens": 9, "completion_tokens": 9, "total_tokens": 18}
    body = {
        "id": "1",
        "object": "chat.completion",
        "model": "m",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": usage,
    }
    return Response(json.dumps(body), content_type="application/json")


@pytest.fixture
def writer(httpserver: HTTPServer, texts: dict[str, dict[str, str]]) -> Iterator[HTTPServer]:
    """A server that knows the rewrite of every document, and spoils one of each variant."""
    recipes = read_recipes()

    def write(request: Request) -> Response:
        prompt = request.get_json()["messages"][-1]["content"]
        variant = next(name for name, recipe in recipes.items() if recipe.instruction.strip() in prompt)
        number, document_id = next((number, key) for number, (key, text) in enumerate(texts["original"].items()) if text in prompt)
        other = list(texts[variant].values())[-1]  # another document's rewrite: fluent, and about something else
        return _answer(json.dumps({"rewrite": other if number == 0 else texts[variant][document_id]}))

    httpserver.expect_request("/v1/chat/completions").respond_with_handler(write)
    yield httpserver
    httpserver.check_assertions()


def _rewrite(run_cli: Run, writer: HTTPServer, originals: Path, out: Path, *more: str) -> CliOutcome:
    factors = ("--factor", "style=casual", "--factor", "factual=counterfactual")
    return run_cli("rewrite", "--originals", str(originals), *factors, "--model", "m", "--base-url", writer.url_for("/v1"), "--out", str(out), *more)


@pytest.mark.slow
def test_from_documents_to_a_report_in_which_the_audit_stands(
    run_cli: Run, writer: HTTPServer, originals: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets

    out = tmp_path / "made"
    first = _rewrite(run_cli, writer, originals, out)
    assert first.code == 0, first.err
    audit = read_audit(out / "probes")
    assert audit is not None
    rejected = {(verdict.document_id, verdict.variant) for verdict in audit.verdicts if not verdict.accepted}
    spoiled = json.loads(originals.read_text(encoding="utf-8").splitlines()[0])["id"]
    assert {(spoiled, variant) for variant in ("paraphrase", "casual", "counterfactual")} <= rejected
    assert len(rejected) <= 6, "most of what a careful writer wrote is accepted"
    assert "casual\tstyle\t8" in first.out

    num_asked = len(writer.log)
    again = _rewrite(run_cli, writer, originals, out)
    assert again.code == 0
    assert "embedding" in first.err
    assert "embedding" not in again.err, "an audit of the same texts by the same rules is not made twice"
    assert len(writer.log) == num_asked
    assert read_audit(out / "probes") == audit

    loaded = datasets.load_dataset(str(out / "probes"), cache_dir=str(tmp_path / "cache"))
    assert spoiled not in loaded["casual"]["document_id"]
    assert len(loaded["original"]) == NUM_DOCUMENTS

    base, tuned = (str(save_tiny_llama(tmp_path / name, seed=seed)) for name, seed in (("base", 0), ("tuned", 1)))
    compared = run_cli("compare", "--base", base, "--tuned", tuned, "--probes", str(out), "--out", str(tmp_path / "compare"), "--draws", "200")
    assert compared.code == 0, compared.err
    rate = f"casual {audit.summaries['casual']['num_accepted']} of 8"
    assert rate in compared.out
    report = (tmp_path / "compare" / "report.html").read_text(encoding="utf-8")
    assert "accepted were" in report
    assert "same writer and prompt frame" in report


def test_no_audit_is_said(run_cli: Run, writer: HTTPServer, originals: Path, tmp_path: Path) -> None:
    outcome = _rewrite(run_cli, writer, originals, tmp_path / "made", "--no-audit")
    assert outcome.code == 0, outcome.err
    assert "not audited" in outcome.out
    assert read_audit(tmp_path / "made" / "probes") is None
    assert len(read_probe_set(str(tmp_path / "made")).by_variant()["casual"]) == NUM_DOCUMENTS


def test_what_the_audit_needs_is_asked_for_before_anything_is_paid(run_cli: Run, writer: HTTPServer, originals: Path, tmp_path: Path) -> None:
    outcome = _rewrite(run_cli, writer, originals, tmp_path / "made", "--similarity", str(tmp_path / "none"))
    assert outcome.code == 2
    assert "no such folder" in outcome.err
    assert writer.log == []


def _judging(httpserver: HTTPServer, verdict: Callable[[str], str]) -> None:
    httpserver.expect_request("/v1/chat/completions").respond_with_handler(
        lambda request: _answer(verdict(request.get_json()["messages"][0]["content"]))
    )


def _criteria(prompt: str, accept: str) -> str:
    """An answer to the rubric: the JSON that it asks for, with the first answer of every criterion."""
    from lmdissect.audit.criteria import ACCEPT, CRITERIA, choose_criteria

    wanted = choose_criteria("style")
    assert all(CRITERIA[name].question in prompt for name in wanted)
    return json.dumps({name: accept if name == ACCEPT else next(iter(CRITERIA[name].answers)) for name in wanted})


@pytest.fixture
def probes(run_cli: Run, texts: dict[str, dict[str, str]], tmp_path: Path) -> Path:
    path = tmp_path / "probes.jsonl"
    ids = list(texts["original"])[:3]
    rows = [{"document_id": key, "variant": name, "text": texts[name][key]} for key in ids for name in ("original", "casual")]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    assert run_cli("probes", "import", str(path), "--out", str(tmp_path / "set")).code == 0
    return tmp_path / "set"


def test_a_judge_is_asked_once_and_its_word_counts(run_cli: Run, httpserver: HTTPServer, probes: Path) -> None:
    _judging(httpserver, lambda prompt: f"```json\n{_criteria(prompt, 'reject')}\n```")
    arguments = ("audit", str(probes), "--similarity", "off", "--judge-model", "j", "--judge-url", httpserver.url_for("/v1"))
    first = run_cli(*arguments)
    assert first.code == 0, first.err
    assert "judge 3" in first.out
    audit = read_audit(probes)
    assert audit is not None
    assert audit.summaries["casual"]["num_accepted"] == 0
    assert audit.settings["judge"]["name"] == f"j at {httpserver.url_for('/v1')}"  # type: ignore[index]
    assert len(httpserver.log) == 3
    run_cli(*arguments, "--rules", str(_lenient(probes.parent)))  # other rules: the pairs are measured again, the judge is not paid again
    assert len(httpserver.log) == 3
    assert (probes.parent / "set-judge" / "ledger.sqlite").is_file()
    assert not list(probes.rglob("*.sqlite"))


def _lenient(folder: Path) -> Path:
    path = folder / "rules.yaml"
    path.write_text("factors: {style: [{measure: length_ratio, minimum: 0.01, reason: anything}]}\n", encoding="utf-8")
    return path


def test_what_a_judge_does_not_answer_in_form_is_not_accepted(run_cli: Run, httpserver: HTTPServer, probes: Path) -> None:
    _judging(httpserver, lambda _prompt: "It looks fine to me!")
    outcome = run_cli("audit", str(probes), "--similarity", "off", "--judge-model", "j", "--judge-url", httpserver.url_for("/v1"))
    assert outcome.code == 0, outcome.err
    assert "not judged" in outcome.out
    assert len(httpserver.log) == 9  # three attempts for each


def test_a_judge_that_fails_rejects_nothing(run_cli: Run, httpserver: HTTPServer, probes: Path) -> None:
    failing = {"error": {"message": "the context is too small", "type": "x", "param": None, "code": None}}
    arguments = ("audit", str(probes), "--similarity", "off", "--judge-model", "j", "--judge-url", httpserver.url_for("/v1"))
    httpserver.expect_request("/v1/chat/completions").respond_with_json(failing, status=400)
    outcome = run_cli(*arguments)
    assert outcome.code == 1
    assert "nothing was written" in outcome.err or "too small" in outcome.err
    assert read_audit(probes) is None


@pytest.mark.parametrize(
    ("status", "outcome", "is_asked_again"), [(400, "bad_request", False), (500, "server_error", True), (403, "forbidden", True)]
)
def test_a_pair_that_the_judges_server_does_not_answer_is_not_judged(
    run_cli: Run, httpserver: HTTPServer, probes: Path, status: int, outcome: str, is_asked_again: bool
) -> None:
    """It does not hold up the audit of the others, and gets its opinion when there is one."""
    poison = read_probe_set(str(probes)).by_variant()["casual"]
    last, trouble = list(poison.values())[-1], {"error": {"message": "not this one", "type": "x", "param": None, "code": None}}

    def respond(request: Request) -> Response:
        prompt = request.get_json()["messages"][0]["content"]
        return Response(json.dumps(trouble), status=status) if last in prompt and is_poisonous else _answer(_criteria(prompt, "accept"))

    httpserver.expect_request("/v1/chat/completions").respond_with_handler(respond)
    arguments = ("audit", str(probes), "--similarity", "off", "--judge-model", "j", "--judge-url", httpserver.url_for("/v1"))
    is_poisonous = True
    for _ in range(2):
        done = run_cli(*arguments)
        assert done.code == 0, done.err
        assert f"did not answer 1 of {3 if _ == 0 else 1} questions ({outcome} 1; first: HTTP {status}" in " ".join(done.err.split())
        assert len(_judged(probes)) == 2
    is_poisonous = False
    assert run_cli(*arguments).code == 0
    assert len(_judged(probes)) == (3 if is_asked_again else 2)


def _judged(probes: Path) -> list[str]:
    audit = read_audit(probes)
    assert audit is not None
    return [verdict.document_id for verdict in audit.verdicts if "judge_accept" in verdict.measures]


def test_a_judge_whose_key_is_refused_later_says_so(run_cli: Run, httpserver: HTTPServer, probes: Path) -> None:
    trouble = {"error": {"message": "not any more", "type": "x", "param": None, "code": None}}
    httpserver.expect_oneshot_request("/v1/chat/completions").respond_with_handler(
        lambda request: _answer(_criteria(request.get_json()["messages"][0]["content"], "accept"))
    )
    arguments = ("audit", str(probes), "--similarity", "off", "--judge-model", "j", "--judge-url", httpserver.url_for("/v1"))
    assert run_cli(*arguments, "--limit", "1", "--judge-ledger", str(probes.parent / "set-judge")).code == 0
    httpserver.expect_request("/v1/chat/completions").respond_with_json(trouble, status=403)
    refused = run_cli(*arguments)
    assert refused.code == 2
    assert "HTTP 403" in refused.err
    assert read_audit(probes) is None


def test_rules_of_a_factor_of_ones_own_are_remembered(run_cli: Run, probes: Path) -> None:
    recipes = probes.parent / "mine.yaml"
    recipes.write_text(
        "recipes: [{variant: casual, factor: mood, instruction: i, audit: [{measure: length_ratio, minimum: 9, reason: long}]}]", encoding="utf-8"
    )
    arguments = ("audit", str(probes), "--similarity", "off", "--factor", "casual=mood")
    assert run_cli(*arguments, "--recipes", str(recipes)).code == 0
    rules = probes.parent / "rules.yaml"
    rules.write_text("factors: {topic: [{measure: length_ratio, minimum: 0.1, reason: any}]}", encoding="utf-8")
    again = run_cli(*arguments, "--rules", str(rules))
    assert again.code == 0, again.err
    audit = read_audit(probes)
    assert audit is not None
    assert audit.settings["rules"]["casual"]  # type: ignore[index]


def test_a_book_with_rules_for_any_factor_replaces_what_was_remembered(run_cli: Run, probes: Path) -> None:
    rules = probes.parent / "rules.yaml"
    rules.write_text("factors: {any: [{measure: length_ratio, minimum: 0.1, reason: loose}]}", encoding="utf-8")
    outcome = run_cli("audit", str(probes), "--similarity", "off", "--rules", str(rules))
    assert outcome.code == 0, outcome.err
    audit = read_audit(probes)
    assert audit is not None
    assert {tuple(rule["measure"] for rule in found) for found in audit.settings["rules"].values()} == {("length_ratio",)}  # type: ignore[union-attr]


@pytest.fixture
def gloomy(run_cli: Run, texts: dict[str, dict[str, str]], tmp_path: Path) -> Path:
    """A folder with a variant and a factor that the built-in rules do not know."""
    path = tmp_path / "gloomy.jsonl"
    names = {"original": "original", "gloomy": "casual"}
    rows = [
        {"document_id": key, "variant": name, "text": texts[source][key]} for key in list(texts["original"])[:3] for name, source in names.items()
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    assert run_cli("probes", "import", str(path), "--factor", "gloomy=mood", "--out", str(tmp_path / "set")).code == 0
    return tmp_path / "set"


def _bounded(probes: Path) -> list[str]:
    """Names of the measures that the audit of the folder bounded for the gloomy texts."""
    audit = read_audit(probes)
    assert audit is not None
    return [rule["measure"] for rule in audit.settings["rules"]["gloomy"]]  # type: ignore[index]


def _gloomy_recipe(folder: Path) -> str:
    path = folder / "mine.yaml"
    body = "recipes: [{variant: gloomy, factor: mood, instruction: i, audit: [{measure: length_ratio, minimum: 9, reason: long}]}]"
    path.write_text(body, encoding="utf-8")
    return str(path)


def test_remembered_rules_are_all_that_a_variant_has(run_cli: Run, gloomy: Path) -> None:
    """A recipe's list replaces all rules; the built-in ones for any factor do not join it in a later audit."""
    arguments = ("audit", str(gloomy), "--similarity", "off")
    assert run_cli(*arguments, "--recipes", _gloomy_recipe(gloomy.parent)).code == 0
    first = read_audit(gloomy)
    assert run_cli(*arguments).code == 0
    assert _bounded(gloomy) == ["length_ratio"]
    assert read_audit(gloomy) == first


def test_rules_for_any_factor_are_not_remembered(run_cli: Run, gloomy: Path) -> None:
    arguments = ("audit", str(gloomy), "--similarity", "off")
    assert run_cli(*arguments).code == 0
    assert _bounded(gloomy) == ["kept_word_share"]
    rules = gloomy.parent / "rules.yaml"
    rules.write_text("factors: {topic: [{measure: length_ratio, minimum: 0.1, reason: any}]}", encoding="utf-8")
    without = run_cli(*arguments, "--rules", str(rules))
    assert without.code == 0, without.err
    assert "NO RULES for gloomy" in without.out
    assert _bounded(gloomy) == []
    rules.write_text("factors: {any: [{measure: length_ratio, minimum: 0.1, reason: loose}]}", encoding="utf-8")
    assert run_cli(*arguments, "--rules", str(rules)).code == 0
    assert _bounded(gloomy) == ["length_ratio"]
    assert run_cli(*arguments).code == 0
    assert _bounded(gloomy) == ["kept_word_share"]


def test_an_edited_audit_is_made_anew_or_named(run_cli: Run, gloomy: Path) -> None:
    import yaml

    arguments = ("audit", str(gloomy), "--similarity", "off")
    recipes = _gloomy_recipe(gloomy.parent)
    assert run_cli(*arguments, "--recipes", recipes).code == 0
    path = gloomy / "probes.yaml"
    path.write_text(path.read_text(encoding="utf-8").replace("measure: length_ratio", "measure: lenght_ratio"), encoding="utf-8")
    refused = run_cli(*arguments)
    assert refused.code == 2
    assert "rules of its last audit: recipe 'gloomy': no measure 'lenght_ratio'" in refused.err
    assert "--recipes" in refused.err
    assert run_cli(*arguments, "--recipes", recipes).code == 0
    description = yaml.safe_load(path.read_text(encoding="utf-8"))
    description["audit"]["settings"] = {}
    path.write_text(yaml.safe_dump(description), encoding="utf-8")
    shown = run_cli("probes", "show", str(gloomy))
    assert (shown.code, "audit.settings.rules: Field required" in shown.err) == (1, True)
    assert run_cli(*arguments).code == 0
    assert _bounded(gloomy) == ["kept_word_share"]


def test_rewriting_again_keeps_an_audit_by_other_rules(run_cli: Run, writer: HTTPServer, originals: Path, tmp_path: Path) -> None:
    assert _rewrite(run_cli, writer, originals, tmp_path / "made", "--similarity", "off").code == 0
    assert run_cli("audit", str(tmp_path / "made"), "--similarity", "off", "--rules", str(_lenient(tmp_path))).code == 0
    mine = read_audit(tmp_path / "made" / "probes")
    assert _rewrite(run_cli, writer, originals, tmp_path / "made", "--similarity", "off").code == 0
    assert read_audit(tmp_path / "made" / "probes") == mine


def test_a_set_of_which_nothing_was_accepted_says_so_everywhere(run_cli: Run, probes: Path) -> None:
    rules = probes.parent / "hard.yaml"
    rules.write_text("factors: {style: [{measure: length_ratio, minimum: 50, reason: never}]}", encoding="utf-8")
    assert run_cli("audit", str(probes), "--similarity", "off", "--rules", str(rules)).code == 0
    shown = run_cli("probes", "show", str(probes))
    assert "rejected by the audit: casual 3" in shown.out
    assert "\ncasual\t" not in shown.out.split("document ")[1]
    assert "\ncasual\t" in run_cli("probes", "show", str(probes), "--rejected").out.split("document ")[1]
    compared = run_cli("compare", "--base", "wheel:none", "--tuned", "wheel:none", "--probes", str(probes), "--out", str(probes.parent / "compare"))
    assert compared.code == 2
    assert "its audit rejected 3 texts" in compared.err


def test_a_misspelt_measure_is_found_before_anything_is_paid(run_cli: Run, writer: HTTPServer, originals: Path, tmp_path: Path) -> None:
    recipes = tmp_path / "mine.yaml"
    recipes.write_text(
        "recipes: [{variant: gloomy, factor: mood, instruction: i, audit: [{measure: simlarity, minimum: 9, reason: x}]}]", encoding="utf-8"
    )
    for more in ((), ("--dry-run",)):
        outcome = _rewrite(run_cli, writer, originals, tmp_path / "made", "--recipes", str(recipes), "--factor", "mood=gloomy", *more)
        assert outcome.code == 2
        assert "simlarity" in outcome.err
    assert writer.log == []


def test_a_judge_needs_a_place_for_its_answers(run_cli: Run, probes: Path) -> None:
    outcome = run_cli(
        "audit", str(probes.parent / "probes.jsonl"), "--similarity", "off", "--judge-model", "j", "--judge-url", "http://127.0.0.1:1/v1"
    )
    assert outcome.code == 2
    assert "--judge-ledger" in outcome.err


def test_the_default_embedder_has_one_name() -> None:
    assert options.DEFAULT_SIMILARITY == DEFAULT_EMBEDDER
