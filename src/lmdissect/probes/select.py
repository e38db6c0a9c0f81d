"""Take fewer documents of a probe set, the same ones on every machine."""

from dataclasses import replace

from lmdissect.factors import ORIGINAL
from lmdissect.records import ProbeSet
from lmdissect.store import seeded_rank

__all__ = ["limit_documents"]


def limit_documents(probe_set: ProbeSet, num_documents: int | None, seed: int) -> ProbeSet:
    """Keep ``num_documents`` documents that have an original, chosen by a seeded hash of the id, with all their variants.

    A smaller limit with the same seed keeps a subset. Texts stay in input order. None keeps everything.
    """
    if num_documents is None:
        return probe_set
    with_original = {text.document_id for text in probe_set.texts if text.variant == ORIGINAL}
    kept = set(sorted(with_original, key=lambda document_id: seeded_rank(document_id, seed, "probe"))[:num_documents])
    texts = tuple(text for text in probe_set.texts if text.document_id in kept)
    present = {text.variant for text in texts}
    factors = {variant: factor for variant, factor in probe_set.factors.items() if variant in present}
    return replace(probe_set, texts=texts, factors=factors)
