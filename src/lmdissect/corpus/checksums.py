"""Hashes of input files, and the `.md5` that NLM puts beside each of its files."""

import hashlib
import re
from pathlib import Path

from lmdissect.errors import UnreadableInputError

__all__ = ["checked_hash", "parse_md5"]

_BLOCK_BYTES = 1 << 20
_MAX_MD5_FILE_BYTES = 1 << 16
_MD5 = re.compile(r"(?<![0-9a-fA-F])[0-9a-fA-F]{32}(?![0-9a-fA-F])")


def parse_md5(text: str, name: str) -> str | None:
    """The MD5 of the file ``name`` that an `.md5` file tells, in lower case; None where it tells none.

    Both forms in use are read: NLM's ``MD5(name)= hash`` and md5sum's ``hash  name``. Of several lines the one that names the file counts; one line
    counts whatever it names, since a file may be renamed.
    """
    lines = [(line, found[0].lower()) for line in text.splitlines() if (found := _MD5.search(line))]
    named = [digest for line, digest in lines if re.search(rf"(?<![\w.-]){re.escape(name)}(?![\w.-])", line)]
    return next(iter(named), lines[0][1] if len(lines) == 1 else None)


def checked_hash(path: Path) -> str:
    """SHA-256 (hex) of ``path``, whose MD5 is compared with the `.md5` beside it, where there is one, in the same reading.

    Raises:
        UnreadableInputError: The file cannot be read, or does not match its `.md5`, or that holds no MD5.
    """
    expected = _expected_md5(path)
    sha256, md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
    try:
        with path.open("rb") as stream:
            while block := stream.read(_BLOCK_BYTES):
                sha256.update(block)
                if expected is not None:
                    md5.update(block)
    except OSError as error:
        message = f"{path}: cannot be read ({error.strerror or error}); check the path"
        raise UnreadableInputError(message) from error
    if expected is not None and md5.hexdigest() != expected:
        message = f"{path}: its MD5 is {md5.hexdigest()}, and {path.name}.md5 says {expected}: the file is damaged or not complete, fetch it again"
        raise UnreadableInputError(message)
    return sha256.hexdigest()


def _expected_md5(path: Path) -> str | None:
    beside = path.with_name(f"{path.name}.md5")
    try:
        with beside.open("rb") as stream:
            content = stream.read(_MAX_MD5_FILE_BYTES)
    except FileNotFoundError:
        return None
    except OSError as error:
        message = f"{beside}: cannot be read ({error.strerror or error}); mend or remove it"
        raise UnreadableInputError(message) from error
    expected = parse_md5(content.decode("utf-8", "replace"), path.name)
    if expected is None:
        message = f"{beside}: holds no MD5 of {path.name}; fetch it again, or remove it"
        raise UnreadableInputError(message)
    return expected
