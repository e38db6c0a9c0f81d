"""Canonical hashes: equal content gives equal hashes on every machine, and what has no stable form is refused."""

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path

__all__ = ["canonical_json", "fingerprint", "hash_file", "hash_text", "seeded_rank"]

_BLOCK_BYTES = 1 << 20


def canonical_json(value: object) -> str:
    """``value`` as JSON with sorted keys and no spaces.

    Only None, bool, int, finite float, str, lists, tuples and str-keyed mappings have a canonical form. Anything else is refused: a silent
    ``str(value)`` would let a fingerprint change from one run to the next.

    Raises:
        TypeError: A value of another type.
        ValueError: A NaN or infinite float.
    """
    return json.dumps(_canonical(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def _canonical(value: object) -> object:
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            message = f"no canonical form for the float {value}"
            raise ValueError(message)
        return value
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            message = "only string keys have a canonical form"
            raise TypeError(message)
        return {key: _canonical(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_canonical(entry) for entry in value]
    message = f"no canonical form for {type(value).__name__}"
    raise TypeError(message)


def fingerprint(value: object) -> str:
    """SHA-256 (hex) of the canonical JSON of ``value``."""
    return hash_text(canonical_json(value))


def hash_text(text: str) -> str:
    """SHA-256 (hex) of the UTF-8 bytes of ``text``; lone surrogates are hashed as they stand."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def hash_file(*paths: Path) -> str:
    """SHA-256 (hex) of a file's bytes, read in blocks; of several files, of their bytes one after the other."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as stream:
            while block := stream.read(_BLOCK_BYTES):
                digest.update(block)
    return digest.hexdigest()


def seeded_rank(name: str, seed: int, purpose: str) -> str:
    """Sort key that orders names at random but the same way on every machine; the first k of an order are inside the first k + 1."""
    return hash_text(f"{purpose}:{seed}:{name}")
