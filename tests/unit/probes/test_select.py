"""Fewer documents of a probe set."""

from lmdissect.probes import limit_documents
from lmdissect.records import ProbeSet, ProbeText

TEXTS = tuple(
    ProbeText(str(number), variant, f"{variant} {number}")
    for number in range(30)
    for variant in ("original", "casual", "rap")
    if variant != "rap" or number == 3
)
PROBES = ProbeSet(texts=(ProbeText("orphan", "casual", "no original"), *TEXTS), factors={"casual": "style", "rap": "style"}, source="here")


def _ids(probes: ProbeSet) -> set[str]:
    return {text.document_id for text in probes.texts}


def test_no_limit_keeps_everything() -> None:
    assert limit_documents(PROBES, None, seed=0) is PROBES


def test_limits_are_nested_paired_and_independent_of_order() -> None:
    few, more = limit_documents(PROBES, 5, seed=1), limit_documents(PROBES, 12, seed=1)
    assert len(_ids(few)) == 5
    assert len(_ids(more)) == 12
    assert _ids(few) < _ids(more)
    assert "orphan" not in _ids(limit_documents(PROBES, 30, seed=1))
    assert [text for text in TEXTS if text.document_id in _ids(few)] == list(few.texts)
    turned = ProbeSet(texts=PROBES.texts[::-1], factors=PROBES.factors, source="here")
    assert _ids(limit_documents(turned, 5, seed=1)) == _ids(few)
    assert {frozenset(_ids(limit_documents(PROBES, 5, seed=seed))) for seed in range(5)} != {frozenset(_ids(few))}


def test_factors_of_variants_that_are_gone_are_gone() -> None:
    chosen = [limit_documents(PROBES, 5, seed=seed) for seed in range(8)]
    assert any("3" in _ids(probes) for probes in chosen)
    assert any("3" not in _ids(probes) for probes in chosen)
    for probes in chosen:
        assert set(probes.factors) == ({"casual", "rap"} if "3" in _ids(probes) else {"casual"})
