"""Which factor a variant changes, the report order, and the one control."""

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmdissect.errors import UserInputError
from lmdissect.factors import CONTROL, FACTORS, ORIGINAL, VARIANT_FACTORS, control_variant, resolve_factors, sort_variants

REPORT_ORDER = [
    "biomedical",
    "everyday",
    "nonbiomedical",
    "academic",
    "casual",
    "plain",
    "rap",
    "counterfactual",
    "paraphrase",
    "biomedical_academic",
    "everyday_casual",
    "nonbiomedical_casual",
]


def test_builtin_variants_use_known_factors() -> None:
    for factor in VARIANT_FACTORS.values():
        assert set(factor.split("+")) <= set(FACTORS)


def test_builtin_variants_in_report_order() -> None:
    assert list(resolve_factors(VARIANT_FACTORS)) == REPORT_ORDER


def test_original_is_no_variant() -> None:
    assert resolve_factors([ORIGINAL, "casual"]) == {"casual": "style"}


def test_user_mapping_wins_and_adds() -> None:
    resolved = resolve_factors(["casual", "angry"], {"casual": "formality", "angry": "sentiment"})
    assert resolved == {"casual": "formality", "angry": "sentiment"}


def test_user_mapping_names_variants_that_are_not_there() -> None:
    assert resolve_factors(["casual"], {"angry": "sentiment"}) == {"casual": "style"}


def test_unknown_variant_is_an_error_with_the_cure() -> None:
    with pytest.raises(UserInputError, match=r"variant 'angry' has no factor.*--factor angry=FACTOR") as caught:
        resolve_factors(["casual", "angry"])
    assert "\n" not in str(caught.value)


def test_own_factors_come_last_and_combinations_before_them() -> None:
    factors = {"b": "zeal", "a": "zeal", "c": "topic+style", "d": "topic", "e": "anger"}
    assert sort_variants(["a", "b", "c", "d", "e", ORIGINAL], factors) == [ORIGINAL, "d", "c", "e", "a", "b"]


@given(st.permutations([ORIGINAL, *REPORT_ORDER]))
def test_report_order_does_not_depend_on_input_order(names: list[str]) -> None:
    assert sort_variants(names, VARIANT_FACTORS) == [ORIGINAL, *REPORT_ORDER]


@given(st.dictionaries(st.text(min_size=1), st.sampled_from([*FACTORS, "topic+style", "mood"])))
def test_resolving_keeps_every_variant(factors: Mapping[str, str]) -> None:
    resolved = resolve_factors(factors, factors)
    assert resolved == {name: factor for name, factor in factors.items() if name != ORIGINAL}
    assert list(resolved) == sort_variants(resolved, factors)


def test_control_is_found() -> None:
    assert control_variant({"casual": "style", "paraphrase": CONTROL}) == "paraphrase"


def test_no_control() -> None:
    assert control_variant({"casual": "style"}) is None


def test_two_controls_are_refused_by_name() -> None:
    with pytest.raises(UserInputError, match="more than one control variant: again, paraphrase"):
        control_variant({"paraphrase": CONTROL, "again": CONTROL})
