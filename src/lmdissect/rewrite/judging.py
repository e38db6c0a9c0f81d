"""Is an answer a rewrite? Everything that is not gets a name, and none of it becomes a probe.

Only form is judged here: whether there is a rewrite at all. Whether it changed what it should, and nothing else, is the audit's question.

A lead-in ("Here is the rewritten document:"), a remark after the end ("Let me know if ..."), a code fence or the document's own marker lines around the
text are taken off where they stand apart from it, and that is recorded. Where they do not stand apart, the answer is rejected and asked for again.
"""

import json
import re
from dataclasses import dataclass

from lmdissect.language import identify_language, same_language
from lmdissect.recipes import Recipe
from lmdissect.rewrite.outcomes import Outcome, RawAnswer
from lmdissect.rewrite.prompt import REWRITE_FIELD, Prompt, frame_lines

__all__ = ["JudgedAnswer", "judge_answer", "without_reasoning"]

_LONGEST_REFUSAL_CHARS = 700
_ECHO_CHARS = 60
_TEXTS = r"(?:version|text|document|passage|abstract)"
_STEMS = (
    r"(?:rewrit|rewrot|re-writ|rephras|paraphras|reword"
    rf"|revis(?:e|ed|ing) (?:the |your )?{_TEXTS}\b(?! of (?!(?:the|your) (?:original|{_TEXTS}))))"
)
_HERE_IS = r"(?:here(?:'s|\u2019s| is| are)|below is|this is|the following is)"
_LEAD_IN = re.compile(
    r"^(?:\W*(?:sure|certainly|of course|absolutely|okay|ok|no problem)\b[^\n:]{0,60}?[,.!:]\s*)?"
    rf"(?:\W*{_HERE_IS}\b[^\n:]{{0,120}}?\b(?:{_STEMS}\w*|{_TEXTS})\b[^\n:]{{0,120}}"
    rf"|\W*{_HERE_IS}\b[^\n:]{{0,120}}?\b(?:translation|output|result)\b[^\n:]{{0,120}}(?=:?[ \t]*\n)"
    rf"|\W*(?:the )?{_STEMS}\w*(?: {_TEXTS})?(?=\W{{0,4}}:))",
    re.IGNORECASE,
)
_OF_ITSELF = re.compile(
    rf"\W*(?:{_HERE_IS}\b[^\n.:]{{0,80}}\b{_STEMS}|(?:i|i(?:'|\u2019)ve|i have|my|your)\b(?: \w+){{0,3}} {_STEMS}|(?:the |a )?{_STEMS}\w* {_TEXTS}\b)",
    re.IGNORECASE,
)
_LEAD_IN_END = re.compile(r"\s*(?:\*\*|__)?\s*:\s*(?:\*\*|__)?[ \t]*\n*|(?<!,)[ \t]*\n[ \t]*\n\s*")
"""A colon, or a blank line: a line of a poem may begin like a lead-in, and goes on in the next one."""
_BARE_LEAD_IN = re.compile(r"^\W*(?:sure|certainly|of course|absolutely)\b[^\n]{0,20}(?::[ \t]*\n|[!.][ \t]*\n[ \t]*\n)\s*", re.IGNORECASE)
_AFTERWORD = re.compile(
    r"\W{0,3}(?:note\s*:|please note|let me know (?:if|whether|what|how|should)\b|i hope (?:this|that)|feel free to|this (?:rewrite|version|rewritten \w+)\b"
    r"|i(?:'ve|\u2019ve| have) (?:rewritten|kept|changed))",
    re.IGNORECASE,
)
_CLOSING = re.compile(r"\b(?:let me know if you|feel free to ask|i hope this helps)\b", re.IGNORECASE)
_THOUGHT_TAGS = r"(?:think|thinking|thoughts?|reasoning)"
_THOUGHT = re.compile(rf"<{_THOUGHT_TAGS}>|\u25c1think\u25b7", re.IGNORECASE)
_THOUGHT_END = re.compile(rf"</{_THOUGHT_TAGS}>|\u25c1/think\u25b7", re.IGNORECASE)
_TEMPLATE_TOKEN = re.compile(r"<\|\w{2,20}\|>")
"""A piece of a chat template: a server that leaves it in leaves reasoning in, too."""
_OPENING_BRACE = re.compile(r"(?:```[\w-]*\n\s*)?\{")
_OWN_FIELD = re.compile(rf'\{{\s*"{REWRITE_FIELD}"\s*:')
_CODE_FENCE = re.compile(r"^```[\w-]*\n(.*?)\n?```$", re.DOTALL)
_DECLINED = r"(?:help(?! but\b| \w+ing\b)|assist|comply|rewrite|fulfil|provide|complete|continue|do that|process|generate|engage)"
_REFUSAL = re.compile(
    r"^\W*(?:(?:i(?:'|\u2019)?m|i am) (?:very |really |truly )?sorry\b(?! to (?:say|report|tell|hear)\b)|i apologi[sz]e"
    r"|as an? (?:ai|artificial intelligence|(?:large )?language model|llm)(?:,| model| assistant))"
    rf"|\bi(?: am|'m|\u2019m) (?:not able|unable|not allowed) to {_DECLINED}"
    rf"|\bi (?:cannot|can't|can\u2019t|can not|won't|won\u2019t|will not|must decline to) {_DECLINED}"
    r"|\b(?:against|violates?) my (?:guidelines|policy|policies|programming)"
    r"|\bas an? (?:ai|artificial intelligence|large language|language) (?:language )?(?:model|assistant)\b",
    re.IGNORECASE,
)
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
_WORD = re.compile(r"\w+")


@dataclass(frozen=True, slots=True)
class JudgedAnswer:
    """What an answer is.

    Attributes:
        outcome: ``ok``, or why it is no rewrite.
        text: The rewrite; None unless ``ok``.
        removed: What was taken off it: ``reasoning``, ``lead-in``, ``afterword``, ``code fence``, ``marker lines``.
        detail: What was seen, in a few words.
    """

    outcome: Outcome
    text: str | None = None
    removed: tuple[str, ...] = ()
    detail: str | None = None


def judge_answer(answer: RawAnswer, prompt: Prompt, recipe: Recipe, *, structured: bool, lenient: bool) -> JudgedAnswer:
    """Name what came back for ``prompt``.

    Args:
        answer: What came back.
        prompt: What was asked.
        recipe: For what; a recipe whose factor is ``language`` may change the language.
        structured: Whether JSON was asked for.
        lenient: Whether plain text is taken where JSON was asked for: some servers ignore the wish without a word.
    """
    if (ended := _ended_by_the_server(answer)) is not None:
        return ended
    found = _rewrite_in(answer.text or "", prompt.document, structured=structured, lenient=lenient)
    if isinstance(found, Outcome):
        return JudgedAnswer(found, detail=answer.text)
    said, has_thought = found
    text, removed = _bared(said, prompt)
    if has_thought:
        removed = ("reasoning", *removed)
    problem = _problem(text, prompt, recipe)
    return JudgedAnswer(problem[0], None, removed, problem[1]) if problem is not None else JudgedAnswer(Outcome.OK, text, removed)


def _ended_by_the_server(answer: RawAnswer) -> JudgedAnswer | None:
    """What the server says of an answer, whatever its text is; None where it says that it is whole."""
    if answer.problem is not None:
        return JudgedAnswer(answer.problem, detail=answer.detail)
    if answer.finish_reason == "content_filter":
        return JudgedAnswer(Outcome.CONTENT_FILTER, detail=answer.text)
    if answer.refusal:
        return JudgedAnswer(Outcome.REFUSAL, detail=answer.refusal)
    if answer.finish_reason == "length":
        return JudgedAnswer(Outcome.CUT_OFF, detail=f"after {answer.output_tokens} tokens" if answer.output_tokens is not None else None)
    return None


def without_reasoning(text: str, original: str) -> str | None:
    """``text`` without the blocks in which a model thinks before it answers; None where a block has no end.

    Some servers swallow the tag that opens the block (it is part of the chat template), so a closing tag alone ends one too, and the last one ends all. An
    original with such tags is about them: nothing is taken off then.
    """
    ends = _ends_of_reasoning(text, original)
    rest = text[ends[-1] :].lstrip() if ends else text
    return None if _THOUGHT.search(rest) and not _is_about_thoughts(original) else rest


def _is_about_thoughts(original: str) -> bool:
    return _THOUGHT.search(original) is not None or _THOUGHT_END.search(original) is not None


def _ends_of_reasoning(text: str, original: str) -> list[int]:
    """Where a block of reasoning may end in ``text``."""
    return [] if _is_about_thoughts(original) else [found.end() for found in _THOUGHT_END.finditer(text)]


def _rewrite_in(said: str, original: str, *, structured: bool, lenient: bool) -> tuple[str, bool] | Outcome:
    """The rewrite in an answer, and whether reasoning was taken off it; or what the answer is instead.

    JSON is looked for before reasoning is taken off, in the whole and behind each end of a block: the reasoning may stand inside of the field, where cutting
    it out would leave a piece of JSON.
    """
    places = (0, *_ends_of_reasoning(said, original)) if structured else ()
    found = next(((start, text) for start in places if (text := _unpacked(said[start:])) is not None), None)
    if found is not None:
        rewrite = without_reasoning(found[1], original)
        has_thought = found[0] > 0 or rewrite != found[1]
    else:
        rewrite = without_reasoning(said, original)
        has_thought = rewrite != said
        if structured and rewrite is not None and not (lenient and not _OPENING_BRACE.match(said.lstrip()) and _is_plain(rewrite, original)):
            return Outcome.INVALID_JSON
    if rewrite is None or (_TEMPLATE_TOKEN.search(rewrite) and not _TEMPLATE_TOKEN.search(original)):
        return Outcome.PREAMBLE
    return rewrite, has_thought


def _is_plain(text: str, original: str) -> bool:
    """Whether a text holds nothing of the JSON that was asked for."""
    return not _OPENING_BRACE.match(text.lstrip()) and not (_OWN_FIELD.search(text) and not _OWN_FIELD.search(original))


def _unpacked(text: str) -> str | None:
    """The rewrite inside of structured output; None where it is not what was asked for."""
    bare = text.strip()
    if (fenced := _CODE_FENCE.match(bare)) is not None:
        bare = fenced[1].strip()
    try:
        content = json.loads(bare)
    except (ValueError, RecursionError):
        return None
    rewrite = content.get(REWRITE_FIELD) if isinstance(content, dict) else None
    return rewrite if isinstance(rewrite, str) and not _LONE_SURROGATE.search(rewrite) else None


def _bared(text: str, prompt: Prompt) -> tuple[str, tuple[str, ...]]:
    """``text`` without what stands apart around it, and the names of what was taken off."""
    removed: list[str] = []
    bare = text.strip()
    without = _without_lead_in(bare, prompt.document)
    if without != bare:
        bare, removed = without, [*removed, "lead-in"]
    without = _without_afterword(bare)
    if without != bare and _without_afterword(prompt.document.strip()) == prompt.document.strip():
        bare, removed = without, [*removed, "afterword"]
    if (fenced := _CODE_FENCE.match(bare)) is not None and not _CODE_FENCE.match(prompt.document.strip()):
        bare, removed = fenced[1].strip(), [*removed, "code fence"]
    lines = bare.split("\n")
    if lines[0].strip() == f"[document {prompt.code}]":
        lines = lines[1:]
    if lines and lines[-1].strip() == f"[end of document {prompt.code}]":
        lines = lines[:-1]
    if (without := "\n".join(lines).strip()) != bare:
        bare, removed = without, [*removed, "marker lines"]
    return bare, tuple(removed)


def _without_lead_in(text: str, original: str) -> str:
    for pattern, end in ((_LEAD_IN, _LEAD_IN_END), (_BARE_LEAD_IN, None)):
        found = pattern.match(text)
        if found is None or pattern.match(original.strip()):
            continue
        if end is None:
            return text[found.end() :].strip()
        ending = end.match(text, found.end())
        if ending is not None and (rest := text[ending.end() :].strip()):
            return rest
    return text


def _without_afterword(text: str) -> str:
    """``text`` without its last paragraph, where that stands behind a blank line and talks to the reader."""
    lines = text.split("\n")
    blank = next((index for index in range(len(lines) - 1, 0, -1) if not lines[index].strip()), None)
    if blank is None or not _AFTERWORD.match(lines[blank + 1].lstrip() if blank + 1 < len(lines) else ""):
        return text
    return "\n".join(lines[:blank]).rstrip() or text


def _problem(text: str, prompt: Prompt, recipe: Recipe) -> tuple[Outcome, str | None] | None:
    """What is wrong with a bare rewrite, the plainest first; None where it can be taken."""
    if not any(character.isalnum() for character in text):
        return Outcome.EMPTY, None
    if _words(text) in _words(prompt.document):
        return Outcome.UNCHANGED_COPY, None
    if (echo := _echo(text, prompt)) is not None:
        return Outcome.ECHOED_PROMPT, echo
    if (talk := _talk(text, prompt.document)) is not None:
        return talk, text
    if "language" not in recipe.factor.split("+") and same_language(prompt.document, text) is False:
        return Outcome.WRONG_LANGUAGE, identify_language(text)[0]
    return None


def _talk(text: str, original: str) -> Outcome | None:
    """Whether the writer speaks for itself: it declines, or talks of its rewrite. Words that the original has too are no such thing."""
    if len(text) <= _LONGEST_REFUSAL_CHARS and _REFUSAL.search(text) and not _REFUSAL.search(original):
        return Outcome.REFUSAL
    if _OF_ITSELF.match(text) and not _OF_ITSELF.match(original.strip()):
        return Outcome.PREAMBLE
    if _CLOSING.search(text.rpartition("\n")[2]) and not _CLOSING.search(original):
        return Outcome.PREAMBLE
    return None


def _words(text: str) -> str:
    """Its words alone, a space around each: a copy is a copy whatever its line breaks and punctuation."""
    return f" {' '.join(_WORD.findall(text.casefold()))} "


def _echo(text: str, prompt: Prompt) -> str | None:
    """A piece of the prompt that has no business in a rewrite: the fence's code, a line of the frame, or a long sentence of task or examples."""
    if prompt.code in text:
        return f"the marker {prompt.code}"
    turns = "\n".join(turn for _, turn in prompt.messages[1:]).replace(prompt.document, "\n")
    sentences = (sentence.strip() for sentence in re.split(r"\n|(?<=[.!?]) ", turns))
    pieces = (*frame_lines(), *(sentence for sentence in sentences if len(sentence) >= _ECHO_CHARS))
    return next((piece for piece in pieces if piece in text and piece not in prompt.document), None)
