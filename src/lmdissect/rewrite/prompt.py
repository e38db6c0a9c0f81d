"""The prompt: one frame for the control and all variants, the document fenced as data.

The frame is two files (`prompts/system.jinja`, `prompts/user.jinja`). What differs between a variant and the control comes from the recipe alone. The
document stands between two lines with a code made from its own hash, which does not occur in it: no text can close its own fence.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources

from jinja2 import DictLoader, Environment, StrictUndefined

from lmdissect.recipes import Recipe
from lmdissect.store import fingerprint, hash_text

__all__ = ["REWRITE_FIELD", "Prompt", "fence_code", "frame_lines", "instruction_hash", "prompt_hash", "write_prompt"]

REWRITE_FIELD = "rewrite"
"""The one field of a structured answer."""

_FILES = ("system.jinja", "user.jinja")
_CODE_CHARS = 12
_SHORTEST_LINE = 20


@dataclass(frozen=True, slots=True)
class Prompt:
    """What one request says.

    Attributes:
        messages: Turns as (role, text): system, an exchange for every example, the task.
        document: The original text in it.
        variant: The variant it asks for.
        code: The fence's code.
    """

    messages: tuple[tuple[str, str], ...]
    document: str
    variant: str
    code: str


@cache
def _frame() -> Mapping[str, str]:
    folder = resources.files("lmdissect.rewrite") / "prompts"
    return {name: (folder / name).read_text(encoding="utf-8") for name in _FILES}


@cache
def frame_lines() -> tuple[str, ...]:
    """Lines of the frame that stand in every prompt word for word, to know them again in an answer."""
    lines = (line.strip() for text in _frame().values() for line in text.split("\n"))
    return tuple(line for line in lines if len(line) >= _SHORTEST_LINE and "{" not in line and not line.startswith("["))


@cache
def _environment() -> Environment:
    # The output is a prompt, not a page: escaping would change the document.
    return Environment(loader=DictLoader(dict(_frame())), undefined=StrictUndefined, autoescape=False, trim_blocks=True, lstrip_blocks=True)  # noqa: S701


def prompt_hash(*, structured: bool) -> str:
    """Hash of what every variant's prompt has in common: the frame's files and whether JSON was asked for."""
    return fingerprint({"frame": dict(_frame()), "structured": structured})


def instruction_hash(recipe: Recipe) -> str:
    """Hash of what a recipe adds to the frame: instruction, what must stay, examples."""
    return fingerprint(recipe.model_dump(mode="json", include={"instruction", "keeps", "examples"}))


def fence_code(document: str) -> str:
    """A code that does not occur in ``document``, the same one every time."""
    number = 0
    while (code := hash_text(f"{number}:{document}")[:_CODE_CHARS]) in document:
        number += 1
    return code


def write_prompt(recipe: Recipe, document: str, *, structured: bool) -> Prompt:
    """The prompt that asks for ``recipe`` of ``document``; with ``structured`` it asks for a JSON object."""
    system = _environment().get_template("system.jinja").render()
    messages = [("system", system)]
    for example in recipe.examples:
        answer = json.dumps({REWRITE_FIELD: example.rewrite}, ensure_ascii=False) if structured else example.rewrite
        messages += [("user", _task(recipe, example.document, structured=structured)), ("assistant", answer)]
    messages.append(("user", _task(recipe, document, structured=structured)))
    return Prompt(tuple(messages), document, recipe.variant, fence_code(document))


def _task(recipe: Recipe, document: str, *, structured: bool) -> str:
    return (
        _environment()
        .get_template("user.jinja")
        .render(instruction=recipe.instruction.strip(), keeps=recipe.keeps, document=document, code=fence_code(document), structured=structured)
    )
