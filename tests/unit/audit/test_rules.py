"""Rules: which apply to a variant, and what breaks them."""

from pathlib import Path

import pytest

from lmdissect.audit import MEASURES, RuleBook, read_rules
from lmdissect.audit.rules import broken_rules, rules_hash
from lmdissect.errors import UnreadableInputError, UserInputError
from lmdissect.factors import FACTORS, VARIANT_FACTORS
from lmdissect.recipes import AuditRule, Recipe, read_recipes

RULE = AuditRule(measure="similarity", minimum=0.5, reason="meaning stays")


def test_builtin_rules_cover_every_factor_and_variant() -> None:
    book = read_rules()
    assert set(FACTORS) <= set(book.factors)
    for variant, factor in VARIANT_FACTORS.items():
        rules = book.rules_for(variant, factor)
        assert len({rule.measure for rule in rules}) == len(rules) > 3, variant
        assert all(rule.reason for rule in rules)
    assert set(book.variants) <= set(VARIANT_FACTORS)


def test_builtin_recipes_leave_the_rules_to_the_book() -> None:
    assert all(recipe.audit is None for recipe in read_recipes().values())


def test_a_variants_rule_replaces_that_of_its_factor() -> None:
    book = RuleBook(
        factors={"style": (RULE, AuditRule(measure="length_ratio", maximum=2, reason="length"))},
        variants={"rap": (RULE.model_copy(update={"minimum": 0.3}),)},
    )
    assert {(rule.measure, rule.minimum) for rule in book.rules_for("rap", "style")} == {("similarity", 0.3), ("length_ratio", None)}
    assert book.rules_for("casual", "style") == book.factors["style"]


def test_unknown_factor_has_the_rules_for_any() -> None:
    book = RuleBook(factors={"any": (RULE,), "style": ()})
    assert book.rules_for("sad", "sentiment") == (RULE,)
    assert RuleBook(factors={"style": ()}).rules_for("sad", "sentiment") == ()


def _recipe(rules: tuple[AuditRule, ...] | None) -> Recipe:
    return Recipe(variant="casual", factor="style", instruction="retell", audit=rules)


def test_a_recipes_own_rules_win_and_an_empty_list_means_none() -> None:
    book = read_rules()
    assert book.rules_for("casual", "style", _recipe((RULE,))) == (RULE,)
    assert book.rules_for("casual", "style", _recipe(())) == ()
    assert book.rules_for("casual", "style", _recipe(None)) == book.rules_for("casual", "style")


def test_unknown_measure_names_those_that_exist() -> None:
    unknown = AuditRule(measure="smilarity", minimum=0.5, reason="x")
    with pytest.raises(UserInputError, match=r"no measure 'smilarity'.*similarity"):
        RuleBook(factors={"style": (unknown,)})
    with pytest.raises(UserInputError, match="recipe 'casual': no measure 'smilarity'") as caught:
        read_rules().rules_for("casual", "style", _recipe((unknown,)))
    assert all(name in str(caught.value) for name in MEASURES)


@pytest.mark.parametrize(
    ("value", "says"),
    [(0.2, "similarity is 0.2, below 0.5: meaning stays"), (0.95, "similarity is 0.95, above 0.9: meaning stays"), (0.5, None), (0.9, None)],
)
def test_a_broken_rule_says_value_bound_and_reason(value: float, says: str | None) -> None:
    rule = AuditRule(measure="similarity", minimum=0.5, maximum=0.9, reason="meaning stays")
    assert broken_rules([rule], {"similarity": value}) == ([("similarity", says)] if says else [])
    assert broken_rules([rule], {}) == []


def test_hash_follows_bounds_not_words() -> None:
    other_words = RULE.model_copy(update={"reason": "other words"})
    other_bound = RULE.model_copy(update={"minimum": 0.6})
    assert rules_hash({"a": [RULE]}) == rules_hash({"a": [other_words]}) != rules_hash({"a": [other_bound]})


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("factors: [", "cannot be read as rules"),
        ("rules: {}", "factors"),
        ("factors: {style: [{measure: similarity, reason: x}]}", "minimum, maximum, or both"),
        ("factors: {style: [{measure: similarity, minimum: low, reason: x}]}", "minimum"),
        ("", "content"),
    ],
)
def test_a_bad_file_is_one_clear_line(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "rules.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UnreadableInputError, match=says) as caught:
        read_rules(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UnreadableInputError, match="No such file"):
        read_rules(tmp_path / "none.yaml")


def test_unknown_measure_in_a_file_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "rules.yaml"
    path.write_text("factors: {style: [{measure: nothing, minimum: 1, reason: x}]}", encoding="utf-8")
    with pytest.raises(UserInputError, match=r"rules\.yaml: style: no measure 'nothing'"):
        read_rules(path)


def test_the_order_of_a_combination_has_no_meaning() -> None:
    book = read_rules()
    assert book.rules_for("mine", "style+topic") == book.rules_for("mine", "topic+style")
    assert len(book.rules_for("mine", "style+topic")) > 1
