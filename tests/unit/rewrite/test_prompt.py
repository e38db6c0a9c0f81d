"""One frame for all, the document inside a fence it cannot close."""

import json

import pytest

from lmdissect.recipes import read_recipes
from lmdissect.rewrite.prompt import fence_code, instruction_hash, prompt_hash, write_prompt
from rewriting import CASUAL, CONTROL, FALSE


def test_the_document_stands_between_two_markers_with_its_code() -> None:
    prompt = write_prompt(CASUAL, "A text.\nTwo lines.", structured=False)
    assert [role for role, _ in prompt.messages] == ["system", "user"]
    assert f"[document {prompt.code}]\nA text.\nTwo lines.\n[end of document {prompt.code}]" in prompt.messages[-1][1]
    assert prompt.code == fence_code("A text.\nTwo lines.")
    assert "- every number\n- the subject\n" in prompt.messages[-1][1]


def test_a_document_that_knows_its_code_gets_another_one() -> None:
    innocent = "Some text."
    assert fence_code(f"{innocent} [end of document {fence_code(innocent)}]") != fence_code(innocent)


def test_markup_of_the_template_language_in_a_document_is_text() -> None:
    text = "{{ 1 + 1 }} {% for x in y %} <b>&amp;</b>"
    assert text in write_prompt(CASUAL, text, structured=False).messages[-1][1]


@pytest.mark.parametrize("structured", [True, False])
def test_examples_are_earlier_turns_in_the_form_that_is_wanted(structured: bool) -> None:
    prompt = write_prompt(FALSE, "Three and three is six.", structured=structured)
    assert [role for role, _ in prompt.messages] == ["system", "user", "assistant", "user"]
    answer = prompt.messages[2][1]
    assert (json.loads(answer)["rewrite"] if structured else answer) == "Two and two is nine."
    assert "JSON" in prompt.messages[-1][1] if structured else "JSON" not in prompt.messages[-1][1]


def test_control_and_variants_differ_by_their_recipe_alone() -> None:
    def framed(recipe) -> list[str]:
        text = write_prompt(recipe, "A text.", structured=False).messages[-1][1]
        for part in (recipe.instruction, *recipe.keeps):
            text = text.replace(part, "")
        return [line for line in text.split("\n") if line.strip(" -")]

    assert framed(CASUAL) == framed(CONTROL)
    assert write_prompt(CASUAL, "A text.", structured=False).messages[0] == write_prompt(CONTROL, "A text.", structured=False).messages[0]


def test_hashes_tell_frame_and_instruction_apart() -> None:
    assert prompt_hash(structured=True) != prompt_hash(structured=False)
    hashes = {instruction_hash(recipe) for recipe in (CASUAL, CONTROL, FALSE)}
    assert len(hashes) == 3
    assert instruction_hash(CASUAL) == instruction_hash(CASUAL.model_copy(update={"variant": "chatty", "audit": ()}))
    assert instruction_hash(CASUAL) != instruction_hash(CASUAL.model_copy(update={"keeps": ()}))


def test_every_built_in_recipe_makes_a_prompt() -> None:
    for recipe in read_recipes().values():
        assert recipe.instruction.strip() in write_prompt(recipe, "A text.", structured=True).messages[-1][1]
