"""The `.md5` beside a file, in the forms in which it is found."""

import hashlib
from pathlib import Path

import pytest

from lmdissect.corpus.checksums import checked_hash, parse_md5
from lmdissect.errors import UnreadableInputError

HASH = "0123456789abcdef0123456789abcdef"
OTHER = "f" * 32


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (f"MD5(pubmed25n0001.xml.gz)= {HASH}\n", HASH),
        (f"MD5 (pubmed25n0001.xml.gz) = {HASH.upper()}", HASH),
        (f"{HASH}  pubmed25n0001.xml.gz\n", HASH),
        (f"{HASH} *./pubmed25n0001.xml.gz\n", HASH),
        (HASH, HASH),
        (f"MD5(renamed.xml.gz)= {HASH}\n", HASH),
        (f"{OTHER}  pubmed25n0002.xml.gz\n{HASH}  pubmed25n0001.xml.gz\n", HASH),
        (f"{OTHER}  pubmed25n0002.xml.gz\n{HASH}  pubmed25n0003.xml.gz\n", None),
        (f"{OTHER}  pubmed25n0001.xml.gz.old\n{HASH}  pubmed25n0001.xml.gz\n", HASH),
        ("", None),
        ("<html>Not found</html>", None),
        (f"sha256: {HASH}{HASH}", None),
    ],
)
def test_md5_is_found_in_every_form(text: str, found: str | None) -> None:
    assert parse_md5(text, "pubmed25n0001.xml.gz") == found


def test_hash_is_checked_in_the_same_reading(tmp_path: Path) -> None:
    path = tmp_path / "c.xml.gz"
    path.write_bytes(b"content")
    assert checked_hash(path) == hashlib.sha256(b"content").hexdigest()
    beside = tmp_path / "c.xml.gz.md5"
    beside.write_text(f"MD5(c.xml.gz)= {hashlib.md5(b'content', usedforsecurity=False).hexdigest()}\n", encoding="utf-8")
    assert checked_hash(path) == hashlib.sha256(b"content").hexdigest()
    beside.write_text("nothing here", encoding="utf-8")
    with pytest.raises(UnreadableInputError, match=r"c\.xml\.gz\.md5: holds no MD5 of c\.xml\.gz; fetch it again, or remove it"):
        checked_hash(path)
    with pytest.raises(UnreadableInputError, match="cannot be read"):
        checked_hash(tmp_path / "missing")
