"""Seeded subsets that nest: the same documents on every machine, whatever the order of files."""

from collections.abc import Sequence

from lmdissect.errors import NothingToDoError
from lmdissect.records import Document
from lmdissect.store import seeded_rank

__all__ = ["sample_documents", "split_held_out"]


def sample_documents(documents: Sequence[Document], num_documents: int, seed: int) -> list[Document]:
    """The ``num_documents`` documents whose seeded hash of the id is smallest, in that order (all of them where there are fewer).

    A smaller sample with the same seed is the beginning of a larger one.
    """
    return sorted(documents, key=lambda document: seeded_rank(document.document_id, seed, "sample"))[:num_documents]


def split_held_out(documents: Sequence[Document], num_held_out: int, seed: int) -> tuple[list[Document], list[Document]]:
    """Split into (training, held-out) by another seeded hash, so that growing training samples never reach into the held-out documents.

    Raises:
        NothingToDoError: Nothing would be left to train on.
    """
    if num_held_out >= len(documents):
        message = f"{num_held_out} held-out documents of {len(documents)}: none left to train on; hold out fewer"
        raise NothingToDoError(message)
    ranked = sorted(documents, key=lambda document: seeded_rank(document.document_id, seed, "held-out"))
    return ranked[num_held_out:], ranked[:num_held_out]
