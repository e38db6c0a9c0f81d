"""Texts as they come in, checked one by one: what cannot be used is set aside with its place and the reason."""

import functools
import re
from collections.abc import Callable, Mapping

from lmdissect.records import ProbeText, RejectedRecord

__all__ = ["Collection", "is_encodable", "is_variant_name", "plain_id", "quoted"]

_VARIANT_NAME = re.compile(r"\w[\w.+-]{0,63}")
_MAX_QUOTED_CHARS = 100
_VARIANT_RULE = "letters, digits, underscores, inside also . + -; 64 at most"


class Collection:
    """Probe texts and rejected records of one or several files."""

    def __init__(self) -> None:
        self.rejected: list[RejectedRecord] = []
        self.metadata: dict[str, Mapping[str, object]] = {}
        self._texts: dict[tuple[str, str], str] = {}

    @property
    def texts(self) -> tuple[ProbeText, ...]:
        """All texts, in input order."""
        return tuple(ProbeText(document_id, variant, text) for (document_id, variant), text in self._texts.items())

    def text(self, document_id: str, variant: str) -> str | None:
        """One text, or None where there is none."""
        return self._texts.get((document_id, variant))

    def reject(self, source: str, place: str, reason: str) -> None:
        """Set one record aside."""
        self.rejected.append(RejectedRecord(source, place, reason))

    def rejecter(self, source: str) -> Callable[[str, str], None]:
        """`reject` for the records of one source."""
        return functools.partial(self.reject, source)

    def add(self, source: str, place: str, document_id: object, variant: object, text: object) -> bool:
        """Take one text, or set it aside. Text is kept exactly as given.

        Returns:
            Whether the text was taken.
        """
        known_id = plain_id(document_id)
        reason = _fault(known_id, document_id, variant, text)
        if reason is None:
            assert known_id is not None and isinstance(variant, str) and isinstance(text, str)  # noqa: S101, PT018 - what no fault means
            reason = self._clash(known_id, variant, text)
            if reason is None:
                self._texts[known_id, variant] = text
                return True
        self.reject(source, _named(place, known_id, variant), reason)
        return False

    def _clash(self, document_id: str, variant: str, text: str) -> str | None:
        there = self._texts.get((document_id, variant))
        if there is None:
            return None
        return "repeats an earlier record" if there == text else "another text of a document and variant seen before; the first is kept"


def plain_id(value: object) -> str | None:
    """A string or whole number as a document id; None for anything else, and for blank ones."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return value if isinstance(value, str) and value.strip() and is_encodable(value) else None


def is_encodable(text: str) -> bool:
    """Whether ``text`` can be written as UTF-8: a lone surrogate cannot."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def is_variant_name(value: object) -> bool:
    """Whether ``value`` is a word that can name a variant: letters, digits, underscores, and ``.+-`` inside; 64 characters at most."""
    return isinstance(value, str) and _VARIANT_NAME.fullmatch(value) is not None


def quoted(text: str) -> str:
    """``text`` as a message may hold it: on one line, short, and without control characters, which untrusted input can carry."""
    shown = text if text.isprintable() else ascii(text)
    return shown if len(shown) <= _MAX_QUOTED_CHARS else f"{shown[: _MAX_QUOTED_CHARS - 1]}…"


def _fault(known_id: str | None, document_id: object, variant: object, text: object) -> str | None:
    """Why a text cannot be used; None where it can."""
    if known_id is None:
        return _id_fault(document_id)
    if not is_variant_name(variant):
        return "variant missing" if variant is None else f"variant is not a word ({_VARIANT_RULE})"
    return _text_fault(text)


def _text_fault(text: object) -> str | None:
    if text is None:
        return "text missing"
    if not isinstance(text, str):
        return f"text is not a string ({type(text).__name__})"
    if not text.strip():
        return "text is empty or white space"
    return None if is_encodable(text) else "text holds a lone surrogate or invalid bytes, and cannot be encoded as UTF-8"


def _id_fault(value: object) -> str:
    if value is None:
        return "id missing"
    if isinstance(value, str):
        return "id holds a lone surrogate or invalid bytes" if value.strip() else "id is blank"
    return f"id is not a string ({type(value).__name__})"


def _named(place: str, document_id: str | None, variant: object) -> str:
    """Place of a record with what is known of it."""
    known = [f"document {quoted(document_id)}"] if document_id is not None else []
    if is_variant_name(variant):
        known.append(f"variant {variant}")
    return f"{place} ({', '.join(known)})" if known else place
