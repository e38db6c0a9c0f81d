"""When two probe sets are the same: by texts, pairing and factors, whatever the order of rows."""

from lmdissect.records import ProbeSet
from lmdissect.store import fingerprint, hash_text

__all__ = ["probe_fingerprint"]


def probe_fingerprint(probe_set: ProbeSet) -> str:
    """SHA-256 (hex) over the sorted (document id, variant, hash of the text) and the factor of every variant.

    The order of rows, the source and the rejected records are no part of it.
    """
    texts = sorted((text.document_id, text.variant, hash_text(text.text)) for text in probe_set.texts)
    return fingerprint({"factors": dict(probe_set.factors), "texts": texts})
