"""Which fields of a row hold its id, variant and text, in each of the layouts probe sets are found in.

    long form       document_id, variant, text
    the paper's     type (`pubmed` is the original), id (a list, the first is the PubMed id), text
    natural pairs   id, technical (the original), plain (the variant of that name)
    control         id, original_corpus, paraphrase_corpus, keywords, answer
    hub             text and an id; the variant is the name of the split

A text goes to the collection, which judges it; here only fields are told apart.
"""

import json
from collections.abc import Mapping

from lmdissect.factors import ORIGINAL, VARIANT_FACTORS
from lmdissect.probes.collection import Collection, is_encodable, is_variant_name, plain_id, quoted
from lmdissect.probes.rows import Row

__all__ = ["CONTROL_VARIANT", "add_control_row", "add_row", "add_split_row", "canonical_id", "variant_of_name"]

CONTROL_VARIANT = "paraphrase"
"""Variant that a control file's rewrites become."""

_ORIGINAL_NAMES = frozenset({ORIGINAL, "pubmed", "c4", "technical"})
_ID_KEYS = ("document_id", "pmid", "pubmed", "id")
_PLAIN = "plain"


def variant_of_name(name: object) -> object:
    """Variant a split or type is: the published sets name the originals after their source."""
    return ORIGINAL if isinstance(name, str) and name in _ORIGINAL_NAMES else name


def canonical_id(value: object) -> object:
    """One id out of the shapes ids come in; what is no id is handed back as it is, to be set aside.

    Lists give their first entry (the paper's lists begin with the PubMed id), structs their field `document_id`, `pmid`, `pubmed` or `id`, or
    their only field; a struct of several other fields becomes its JSON with sorted keys.
    """
    while isinstance(value, (list, Mapping)) and value:
        value = value[0] if isinstance(value, list) else _field_with_id(value)
    return value


def _field_with_id(fields: Mapping[object, object]) -> object:
    known = {str(name): entry for name, entry in fields.items() if entry is not None}
    for name in _ID_KEYS:
        if name in known:
            return known[name]
    if len(known) == 1:
        return next(iter(known.values()))
    return json.dumps(known, sort_keys=True, ensure_ascii=False, default=str) if known else None


def add_row(collection: Collection, source: str, row: Row, factors: Mapping[str, str]) -> None:
    """Take the text or texts of one row of a long-form file, the paper's list, or natural pairs.

    Args:
        collection: Where the texts go.
        source: Name of the file.
        row: The row.
        factors: Factors the user gave: a type that neither we nor the user knows is set aside.
    """
    fields = row.fields
    if "document_id" in fields or "variant" in fields:
        collection.add(source, row.place, fields.get("document_id"), fields.get("variant"), fields.get("text"))
    elif "technical" in fields or _PLAIN in fields:
        _add_pair(collection, source, row)
    elif "type" in fields:
        _add_typed(collection, source, row, factors)
    else:
        names = quoted(", ".join(sorted(map(str, fields))[:8])) or "nothing"
        collection.reject(source, row.place, f"not a probe row (it has {names}; needed are document_id, variant and text)")


def _add_pair(collection: Collection, source: str, row: Row) -> None:
    document_id = canonical_id(row.fields.get("id"))
    collection.add(source, row.place, document_id, ORIGINAL, row.fields.get("technical"))
    collection.add(source, row.place, document_id, _PLAIN, row.fields.get(_PLAIN))


def _add_typed(collection: Collection, source: str, row: Row, factors: Mapping[str, str]) -> None:
    variant = variant_of_name(row.fields["type"])
    if variant == ORIGINAL or (isinstance(variant, str) and (variant in VARIANT_FACTORS or variant in factors)):
        collection.add(source, row.place, canonical_id(row.fields.get("id")), variant, row.fields.get("text"))
    else:
        name = variant if is_variant_name(variant) else "of another kind"
        collection.reject(source, row.place, f"unknown type {name} (say which factor it changes with --factor TYPE=FACTOR)")


def add_split_row(collection: Collection, source: str, split: str, row: Row, factors: Mapping[str, str]) -> None:
    """Take the text of one row of a split in hub layout; a row that names its own variant is long form."""
    fields = row.fields
    if "variant" in fields:
        add_row(collection, source, row, factors)
        return
    place = f"split {split}, {row.place}"
    document_id = canonical_id(fields.get(_id_field(fields)))
    variant = variant_of_name(split)
    if collection.add(source, place, document_id, variant, fields.get("text")) and variant == ORIGINAL:
        _add_metadata(collection, source, place, str(document_id), fields)


def _id_field(fields: Mapping[str, object]) -> str:
    """Name of the id field: one we know, else the first that ends in ``id``."""
    known = [name for name in _ID_KEYS if name in fields]
    return next(iter([*known, *(name for name in fields if name.lower().endswith("id"))]), "id")


def add_control_row(collection: Collection, source: str, row: Row) -> None:
    """Take the control rewrite of one document whose original is already there, character for character."""
    document_id = plain_id(canonical_id(row.fields.get("id")))
    original = collection.text(document_id, ORIGINAL) if document_id is not None else None
    if document_id is not None and original is None:
        collection.reject(source, f"{row.place} (document {quoted(document_id)})", "no original with this id")
    elif document_id is not None and row.fields.get("original_corpus") != original:
        collection.reject(source, f"{row.place} (document {quoted(document_id)})", "original_corpus differs from the original of this id")
    elif collection.add(source, row.place, document_id, CONTROL_VARIANT, row.fields.get("paraphrase_corpus")):
        assert document_id is not None  # noqa: S101 - it was taken
        _add_metadata(collection, source, row.place, document_id, row.fields)


def _add_metadata(collection: Collection, source: str, place: str, document_id: str, fields: Mapping[str, object]) -> None:
    """Keep key terms and answer of a document; ones of another type are named, and the text stays."""
    kept: dict[str, object] = {}
    keywords, answer = fields.get("keywords"), fields.get("answer")
    if isinstance(keywords, list) and all(isinstance(word, str) and is_encodable(word) for word in keywords):
        kept["keywords"] = list(keywords)
    elif keywords is not None:
        collection.reject(source, f"{place} (document {quoted(document_id)})", "keywords is not a list of strings; the text is kept without")
    if isinstance(answer, str) and is_encodable(answer):
        kept["answer"] = answer
    elif answer is not None:
        collection.reject(source, f"{place} (document {quoted(document_id)})", "answer is not a string; the text is kept without")
    if kept:
        collection.metadata[document_id] = kept
