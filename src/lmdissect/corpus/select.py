"""Seeded subsets that nest: the same documents on every machine, whatever the order of files."""

from collections.abc import Sequence

from lmdissect.errors import NothingToDoError, UserInputError
from lmdissect.records import Document
from lmdissect.store import seeded_rank

__all__ = ["mix_documents", "sample_documents", "split_held_out"]


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


def mix_documents(domain: Sequence[Document], other: Sequence[Document], share: float, seed: int) -> list[Document]:
    """All of ``domain``, and so many of ``other`` that these are ``share`` of the documents of the mixture.

        number of others = round(share / (1 - share) * number of domain documents)

    The others are drawn as by `sample_documents`: those of a smaller share are among those of a larger one.

    Args:
        domain: What is learned from; its number does not depend on the share, so that points of a curve differ in one thing.
        other: A second corpus, general text for example.
        share: At least 0 and less than 1.
        seed: Of the draw.

    Raises:
        UserInputError: The share is out of range, or ``other`` is too small for it.
    """
    if not 0 <= share < 1:
        message = f"mixing share {share:g}: give at least 0 and less than 1 (the share of the mixture that the second corpus makes up)"
        raise UserInputError(message)
    wanted = round(share / (1 - share) * len(domain))
    if wanted > len(other):
        message = f"mixing share {share:g} with {len(domain)} documents takes {wanted} others, and the second corpus has {len(other)}: add to it, or lower the share"
        raise UserInputError(message)
    return [*domain, *sample_documents(other, wanted, seed)]
