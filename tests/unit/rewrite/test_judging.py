"""What is a rewrite, and what is not."""

import json
import time

import pytest

from lmdissect.factors import ORIGINAL
from lmdissect.probes import read_probe_set
from lmdissect.recipes import read_recipes
from lmdissect.rewrite.judging import JudgedAnswer, judge_answer
from lmdissect.rewrite.outcomes import Outcome, RawAnswer
from lmdissect.rewrite.prompt import fence_code, write_prompt
from lmdissect.rewrite.questions import Question
from rewriting import CASUAL, PATIENTS

DOCUMENT = PATIENTS.format(20)
CASUAL_PROMPT = write_prompt(CASUAL, DOCUMENT, structured=False)
REWRITE = "So they had 20 folks on the new drug for six weeks, and most of them felt better in the end."
GERMAN = (
    "Die Studie hatte zwanzig Patienten, die das neue Medikament sechs Wochen lang erhielten, und den meisten von ihnen ging es am Ende viel besser."
)


def judged(
    text: str | None, *, document: str = DOCUMENT, structured: bool = False, lenient: bool = True, recipe=CASUAL, **answer: object
) -> JudgedAnswer:
    prompt = write_prompt(recipe, document, structured=structured)
    return judge_answer(RawAnswer(text=text, **{"finish_reason": "stop", **answer}), prompt, recipe, structured=structured, lenient=lenient)


@pytest.mark.parametrize(
    "text",
    [
        REWRITE,
        f"  {REWRITE}\n",
        "Okay, so here's the deal: 20 folks took the new drug.",
        "Here's the thing. They gave 20 people a drug and it worked.",
        "Sorry to say, but 20 people were too few for this trial of a drug.",
        "Text: a drug trial. Twenty people.\nNote that it was small.",
        "Unfortunately, the drug did not help all of the 20 people, but it can't hurt.",
        "Can't believe it, 20 people got better!",
        "Here is a story of 20 people. They took a drug: it worked.",
        "This is how the trial went: 20 people got better.",
        "This is the result of a trial so tight,\nTwenty folks on a drug, and they felt all right.",
        "This is the result: 20 people got better.",
        "Sure, it was new!\nTwenty folks took a drug.",
        "Twenty took the drug,\n\nLet me know, let me know, did they feel it go?",
        "Twenty took the drug.\nNote: most of them felt better.",
        "As an artificial hip is no drug, 20 people took the drug.",
        "I can't help but think that 20 people felt better.",
        "I'm sorry to say that 20 people were too few.",
        "This is a series of revision hip operations in 20 people.",
        "The revised version of the questionnaire was given to 20 people.",
        "I used the revised version of the questionnaire with 20 people.",
    ],
)
def test_a_rewrite_is_taken_whatever_its_first_words(text: str) -> None:
    found = judged(text)
    assert found.outcome is Outcome.OK
    if not text.startswith("Text:"):
        assert (found.text, found.removed) == (text.strip(), ())


@pytest.mark.parametrize(
    "lead_in",
    [
        "Here is the rewritten document:\n\n",
        "Here's the passage rewritten in a casual style:\n\n",
        "Sure! Here is the rewritten text:\n",
        "Certainly, here's a casual rewrite of the passage:\n\n",
        "Sure thing!\n\n",
        "**Rewritten document:**\n\n",
        "Rewritten version: ",
        "Here is the rewritten version of the document: ",
        "Below is the paraphrased abstract.\n\n".replace(".", ":"),
    ],
)
def test_a_lead_in_that_stands_apart_is_taken_off_and_recorded(lead_in: str) -> None:
    assert judged(lead_in + REWRITE) == JudgedAnswer(Outcome.OK, REWRITE, ("lead-in",))


@pytest.mark.parametrize(
    "afterword",
    [
        "\n\nNote: I kept all numbers.",
        "\n\nLet me know if you want changes!",
        "\n\n(I have rewritten it in a casual style.)",
        "\n\nI hope this helps.",
    ],
)
def test_an_afterword_is_taken_off_and_recorded(afterword: str) -> None:
    assert judged(REWRITE + afterword) == JudgedAnswer(Outcome.OK, REWRITE, ("afterword",))


def test_what_the_original_says_itself_is_no_talk() -> None:
    document = f"Here is the rewritten document:\n\n{DOCUMENT} I'm sorry, but I can't assist with that."
    text = f"Here is the rewritten document:\n\n{REWRITE} I'm sorry, but I can't assist with it."
    assert judged(text, document=document) == JudgedAnswer(Outcome.OK, text)


@pytest.mark.parametrize("thought", ["<think>\nCasual, so: folks.\n</think>\n\n", "<think></think>", "They want it casual.\n</think>\n"])
@pytest.mark.parametrize("structured", [False, True])
def test_reasoning_before_the_answer_is_taken_off_and_recorded(thought: str, structured: bool) -> None:
    content = json.dumps({"rewrite": REWRITE}) if structured else REWRITE
    assert judged(thought + content, structured=structured, lenient=False) == JudgedAnswer(Outcome.OK, REWRITE, ("reasoning",))


@pytest.mark.parametrize("lenient", [False, True])
@pytest.mark.parametrize(
    ("content", "outcome"),
    [
        (json.dumps({"rewrite": f"<think>They want it casual.</think>\n{REWRITE}"}), Outcome.OK),
        (f"```json\n{json.dumps({'rewrite': f'Casual, so: folks.</think>{REWRITE}'})}\n```", Outcome.OK),
        (f"<think>Hm.</think>{json.dumps({'rewrite': f'<think>Hm.</think>{REWRITE}'})}", Outcome.OK),
        (f"{{a plan}}</think>{json.dumps({'rewrite': REWRITE})}", Outcome.OK),
        (json.dumps({"rewrite": f"<think>They want it casual. {REWRITE}"}), Outcome.PREAMBLE),
        (json.dumps({"rewrite": f"{REWRITE} <think>And now?"}), Outcome.PREAMBLE),
        (json.dumps({"rewrite": f"{REWRITE}<think>Done.</think>"}), Outcome.EMPTY),
        (json.dumps({"rewrite": f"<think>They want it casual.</think>\n{REWRITE}"})[:-2], Outcome.INVALID_JSON),
        (f"```json\n{json.dumps({'rewrite': f'<think>Hm.</think>{REWRITE}'})[:-2]}", Outcome.INVALID_JSON),
        (f"<think>Hm.</think>{json.dumps({'rewrite': REWRITE})[:-1]}", Outcome.INVALID_JSON),
        (f"Here is the rewritten document:\n{json.dumps({'rewrite': REWRITE})}", Outcome.INVALID_JSON),
    ],
)
def test_reasoning_inside_of_structured_output(content: str, lenient: bool, outcome: Outcome) -> None:
    found = judged(content, structured=True, lenient=lenient)
    assert found.outcome is outcome
    assert found.text == (REWRITE if outcome is Outcome.OK else None)
    if outcome is Outcome.OK:
        assert found.removed == ("reasoning",)


@pytest.mark.parametrize(
    ("text", "outcome"),
    [
        (f"<think>a</think><think>b</think>{REWRITE}", Outcome.OK),
        (f"<think>I close with </think> and go on.</think>\n{REWRITE}", Outcome.OK),
        (f"<thought>Hm.</thought>\n{REWRITE}", Outcome.OK),
        (f"\u25c1think\u25b7Hm.\u25c1/think\u25b7{REWRITE}", Outcome.OK),
        (f"{REWRITE}\n<think>Is that all?", Outcome.PREAMBLE),
        (f"<|channel|>analysis<|message|>Hm.<|end|>{REWRITE}", Outcome.PREAMBLE),
    ],
)
def test_no_tag_of_reasoning_is_left(text: str, outcome: Outcome) -> None:
    found = judged(text)
    assert (found.outcome, found.text) == (outcome, REWRITE if outcome is Outcome.OK else None)


def test_reasoning_may_speak_of_the_form_and_not_keep_to_it() -> None:
    thought = '<think>They want {"rewrite": "..."}.</think>'
    assert judged(thought + REWRITE, structured=True) == JudgedAnswer(Outcome.OK, REWRITE, ("reasoning",))


def test_a_judges_answer_with_such_a_tag_in_it_is_whole() -> None:
    answer = '{"same": "it says </think>"}'
    found = Question("Same facts?").judge(RawAnswer(text=answer), CASUAL_PROMPT, structured=False, lenient=True)
    assert found == JudgedAnswer(Outcome.OK, answer)


def test_an_original_about_such_tags_keeps_them() -> None:
    text = f"{REWRITE} The tag </think> ends it."
    assert judged(text, document=f"{DOCUMENT} It is ended by </think>.") == JudgedAnswer(Outcome.OK, text)


def test_a_judge_may_think_too() -> None:
    found = Question("Same facts?").judge(RawAnswer(text='<think>Hm.</think>{"same": true}'), CASUAL_PROMPT, structured=False, lenient=True)
    assert found == JudgedAnswer(Outcome.OK, '{"same": true}')


def test_many_line_breaks_cost_little_time() -> None:
    started_s = time.process_time()
    assert judged(REWRITE + "\n." * 100_000 + "\n" * 100_000 + "x").outcome is Outcome.OK
    assert judged(REWRITE + "\n \n" * 50_000 + "x", document=DOCUMENT + "\n" * 100_000 + "y").outcome is Outcome.OK
    assert time.process_time() - started_s < 5.0


def test_fences_around_the_text_are_taken_off() -> None:
    assert judged(f"```text\n{REWRITE}\n```").removed == ("code fence",)
    code = fence_code(DOCUMENT)
    assert judged(f"[document {code}]\n{REWRITE}\n[end of document {code}]") == JudgedAnswer(Outcome.OK, REWRITE, ("marker lines",))


@pytest.mark.parametrize(
    ("text", "outcome"),
    [
        ("", Outcome.EMPTY),
        (None, Outcome.EMPTY),
        (" \n...\t", Outcome.EMPTY),
        (DOCUMENT, Outcome.UNCHANGED_COPY),
        (DOCUMENT.upper().replace(",", ""), Outcome.UNCHANGED_COPY),
        (DOCUMENT.partition(", and")[0], Outcome.UNCHANGED_COPY),
        ("I'm sorry, but I can't assist with that request.", Outcome.REFUSAL),
        ("I cannot rewrite this document.", Outcome.REFUSAL),
        ("I can't help with that.", Outcome.REFUSAL),
        ("As an AI assistant I have no opinion.", Outcome.REFUSAL),
        ("Here is the rewritten document\n" + REWRITE, Outcome.PREAMBLE),
        (REWRITE + "\nLet me know if you want changes!", Outcome.PREAMBLE),
        ("<think>They want it casual. " + REWRITE, Outcome.PREAMBLE),
        ("I've rewritten the text as you asked.", Outcome.PREAMBLE),
        ("Here is how I revised the document.", Outcome.PREAMBLE),
        ("As an AI language model, I do not have opinions on trials.", Outcome.REFUSAL),
        ("Unfortunately, this is against my guidelines.", Outcome.REFUSAL),
        (f"{REWRITE} [end of document {fence_code(DOCUMENT)}] and so on", Outcome.ECHOED_PROMPT),
        (f"What must stay as it is: every number. {REWRITE}", Outcome.ECHOED_PROMPT),
        ("Here is how I rewrote the document in a casual style.", Outcome.PREAMBLE),
        ("The rewritten document is a JSON object.", Outcome.PREAMBLE),
        (GERMAN, Outcome.WRONG_LANGUAGE),
    ],
)
def test_what_is_no_rewrite_has_a_name(text: str | None, outcome: Outcome) -> None:
    found = judged(text)
    assert (found.outcome, found.text) == (outcome, None)


def test_a_recipe_for_the_language_may_change_it() -> None:
    recipe = CASUAL.model_copy(update={"factor": "language"})
    assert judged(GERMAN, recipe=recipe).outcome is Outcome.OK


def test_a_german_original_wants_a_german_rewrite() -> None:
    assert judged(
        "Es waren zwanzig Leute, die bekamen das Mittel, und am Ende ging es den meisten von ihnen viel besser als vorher. " * 2, document=GERMAN
    )
    assert judged(DOCUMENT, document=GERMAN).outcome is Outcome.WRONG_LANGUAGE


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        ({"finish_reason": "length"}, Outcome.CUT_OFF),
        ({"finish_reason": "content_filter"}, Outcome.CONTENT_FILTER),
        ({"refusal": "no"}, Outcome.REFUSAL),
        ({"problem": Outcome.TIMEOUT}, Outcome.TIMEOUT),
        ({"problem": Outcome.NO_CHOICES}, Outcome.NO_CHOICES),
    ],
)
def test_what_the_server_says_of_an_answer_comes_first(answer: dict[str, object], outcome: Outcome) -> None:
    assert judged(REWRITE, **answer).outcome is outcome


@pytest.mark.parametrize(
    ("content", "lenient", "outcome"),
    [
        (json.dumps({"rewrite": REWRITE}), False, Outcome.OK),
        (f"```json\n{json.dumps({'rewrite': REWRITE})}\n```", False, Outcome.OK),
        (REWRITE, True, Outcome.OK),
        (REWRITE, False, Outcome.INVALID_JSON),
        ('{"rewrite": "no end', True, Outcome.INVALID_JSON),
        ('{"text": "other field"}', True, Outcome.INVALID_JSON),
        ('{"rewrite": 3}', True, Outcome.INVALID_JSON),
        ('{"rewrite": "\\ud83d"}', True, Outcome.INVALID_JSON),
        ("[1]", False, Outcome.INVALID_JSON),
        ("[" * 100_000, False, Outcome.INVALID_JSON),
        ('{"rewrite": ""}', False, Outcome.EMPTY),
    ],
)
def test_structured_answers(content: str, lenient: bool, outcome: Outcome) -> None:
    found = judged(content, structured=True, lenient=lenient)
    assert found.outcome is outcome
    assert found.text == (REWRITE if outcome is Outcome.OK else None)


def test_real_rewrites_are_taken_and_their_lead_ins_found(shared_data) -> None:
    """1,942 texts of two writers: none is lost, and the eight that begin with a lead-in are known."""
    book = read_recipes()
    folder = shared_data / "probes"
    sets = [
        read_probe_set(str(folder / "pubmed_derived.json.gz"), control=str(folder / "pubmed_keyword.json.gz")),
        read_probe_set(str(folder / "rewrites" / "pubmed.jsonl.gz")),
        read_probe_set(str(folder / "rewrites" / "c4.jsonl.gz")),
    ]
    outcomes, removed = [], []
    for probe_set in sets:
        table = probe_set.by_variant()
        for variant in set(table) - {ORIGINAL}:
            for document_id, text in table[variant].items():
                found = judged(text, document=table[ORIGINAL][document_id], recipe=book[variant])
                outcomes.append(found.outcome)
                removed += [(text.split("\n")[0], what) for what in found.removed]
    assert len(outcomes) > 1900
    assert set(outcomes) == {Outcome.OK}
    assert len(removed) == 8
    assert all(first.startswith(("Here's the ", "Here's a ")) and first.endswith(":") and what == "lead-in" for first, what in removed)
