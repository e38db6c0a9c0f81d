"""Recipes: the built-in book is complete, a user's file is checked with its place, and what is asked for is what is chosen."""

from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from lmdissect.errors import UnreadableInputError, UserInputError
from lmdissect.factors import CONTROL, FACTORS, VARIANT_FACTORS
from lmdissect.recipes import AuditRule, Recipe, read_recipes, select_recipes

PUBLISHED = {"nonbiomedical", "biomedical", "casual", "rap", "academic", "counterfactual", "paraphrase"}


def _write(path: Path, *recipes: dict[str, object]) -> Path:
    path.write_text(yaml.safe_dump({"recipes": list(recipes)}), encoding="utf-8")
    return path


def test_the_book_has_every_variant_of_the_paper_with_its_factor() -> None:
    book = read_recipes()
    assert set(book) >= PUBLISHED
    assert {name: recipe.factor for name, recipe in book.items()} == {name: VARIANT_FACTORS[name] for name in book}


def test_there_is_one_control_and_a_combination_of_each_kind() -> None:
    book = read_recipes()
    assert [name for name, recipe in book.items() if recipe.factor == CONTROL] == ["paraphrase"]
    for name, recipe in book.items():
        if "+" in recipe.factor:
            singles = [book[part].factor for part in name.split("_")]
            assert singles == recipe.factor.split("+"), "a combination is named after the two variants it combines"


@pytest.mark.parametrize("recipe", read_recipes().values(), ids=lambda recipe: recipe.variant)
def test_a_recipe_says_what_stays(recipe: Recipe) -> None:
    assert recipe.keeps
    assert set(recipe.factor.split("+")) <= set(FACTORS)


def test_a_users_file_adds_and_wins(tmp_path: Path) -> None:
    path = _write(
        tmp_path / "mine.yaml",
        {"variant": "angry", "factor": "sentiment", "instruction": "Rage.", "audit": [{"measure": "length_ratio", "minimum": 0.5, "reason": "r"}]},
        {"variant": "casual", "factor": "style", "instruction": "Chat."},
    )
    book = read_recipes([path])
    assert book["angry"].audit == (AuditRule(measure="length_ratio", minimum=0.5, reason="r"),)
    assert book["casual"].instruction == "Chat."
    assert "rap" in book


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("recipes: [{variant: x, factor: style}]", "recipes.0.instruction: Field required"),
        ("recipes: [{variant: x, factor: Style!, instruction: i}]", "recipes.0.factor"),
        ("recipes: [{variant: x, factor: style, instruction: i, speed: 3}]", "recipes.0.speed: Extra inputs"),
        ("recipes: [{variant: x, factor: style, instruction: i}, {variant: x, factor: topic, instruction: i}]", "two recipes for the variant 'x'"),
        ("recipes: [{variant: x, factor: style, instruction: i, audit: [{measure: m, reason: r}]}]", "give minimum, maximum, or both"),
        ("recipes: [", "cannot be read as a recipe file"),
        ("a: &a [x, x]\nb: [*a, *a]", "line 2: aliases (*name) are not read; write the value out"),
        ("- 1", "a recipe file is"),
    ],
)
def test_a_broken_file_is_named_with_its_place(tmp_path: Path, content: str, words: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(UnreadableInputError, match=r"mine\.yaml") as caught:
        read_recipes([path])
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UnreadableInputError, match=r"none\.yaml"):
        read_recipes([tmp_path / "none.yaml"])


def test_bounds_the_wrong_way_round_are_refused() -> None:
    with pytest.raises(ValidationError, match="above maximum"):
        AuditRule(measure="length_ratio", minimum=2, maximum=1, reason="r")


@pytest.mark.parametrize(
    ("wanted", "with_control", "chosen"),
    [
        (["style=casual"], True, ["paraphrase", "casual"]),
        (["style=casual"], False, ["casual"]),
        (["casual", "style=casual", "counterfactual"], True, ["paraphrase", "casual", "counterfactual"]),
        (["topic+style=everyday_casual"], True, ["paraphrase", "everyday_casual"]),
        (["control=paraphrase"], True, ["paraphrase"]),
        (["style"], False, ["casual", "rap", "academic"]),
    ],
)
def test_what_is_asked_for_is_chosen(wanted: list[str], *, with_control: bool, chosen: list[str]) -> None:
    assert [recipe.variant for recipe in select_recipes(read_recipes(), wanted, with_control=with_control)] == chosen


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        ("casual=style", "did you mean style=casual"),
        ("topic=casual", "changes style, so write style=casual"),
        ("style=angry", "known are"),
        ("angry", "--recipes"),
    ],
)
def test_what_cannot_be_chosen_says_what_to_write(request_: str, words: str) -> None:
    with pytest.raises(UserInputError) as caught:
        select_recipes(read_recipes(), [request_], with_control=True)
    assert words in str(caught.value)
