"""Which files PubMed and C4 publish, and under which addresses."""

import re
from dataclasses import dataclass
from typing import Literal

import httpx2

from lmdissect.corpus.fetch import Fetcher
from lmdissect.errors import RunFailedError, UserInputError

__all__ = ["C4_URL", "PUBMED_URL", "RemoteFile", "c4_files", "parse_numbers", "pubmed_files"]

PUBMED_URL = "https://ftp.ncbi.nlm.nih.gov/pubmed/"
C4_URL = "https://huggingface.co/datasets/allenai/c4/resolve/main/en/"

_PUBMED_FOLDERS = {"baseline": "baseline/", "updates": "updatefiles/"}
_PUBMED_NAME = re.compile(r"pubmed\d\dn(\d{4,})\.xml\.gz")
_C4_SHARDS = {"train": 1024, "validation": 8}
_RANGE = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?")


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """One file to fetch; ``has_md5`` says whether an `.md5` lies beside it."""

    name: str
    url: str
    has_md5: bool


def parse_numbers(text: str) -> list[int]:
    """``1-3,7`` as 1, 2, 3, 7.

    Raises:
        UserInputError: It has another form.
    """
    numbers: set[int] = set()
    for part in text.split(","):
        found = _RANGE.fullmatch(part.strip())
        if found is None or int(found[2] or found[1]) < int(found[1]):
            message = f"--files {text}: write numbers and ranges of them, for example --files 1-3,7"
            raise UserInputError(message)
        numbers.update(range(int(found[1]), int(found[2] or found[1]) + 1))
    return sorted(numbers)


def pubmed_files(fetcher: Fetcher, base_url: str, part: Literal["baseline", "updates"], numbers: list[int] | None) -> list[RemoteFile]:
    """PubMed's files of these numbers (default: all), as the listing of the folder has them: the year in their names changes.

    Raises:
        UserInputError: The folder has no file of some number.
        RunFailedError: The listing cannot be fetched, or lists no such file.
    """
    folder = str(httpx2.URL(base_url if base_url.endswith("/") else f"{base_url}/").join(_PUBMED_FOLDERS[part]))
    listed = {int(found[1]): found[0] for found in _PUBMED_NAME.finditer(fetcher.text(folder))}
    if not listed:
        message = f"{folder} lists no file named like pubmed26n0001.xml.gz: check --base-url"
        raise RunFailedError(message)
    wanted = sorted(listed) if numbers is None else numbers
    if missing := [number for number in wanted if number not in listed]:
        message = f"--files: {folder} has no file number {missing[0]} (it has {min(listed)} to {max(listed)})"
        raise UserInputError(message)
    return [RemoteFile(listed[number], folder + listed[number], has_md5=True) for number in wanted]


def c4_files(base_url: str, split: Literal["train", "validation"], numbers: list[int] | None) -> list[RemoteFile]:
    """C4's English files of these numbers, counted from 0 as in their names (default: all).

    Raises:
        UserInputError: There is no file of some number.
    """
    count = _C4_SHARDS[split]
    wanted = list(range(count)) if numbers is None else numbers
    if missing := [number for number in wanted if number >= count]:
        message = f"--files: C4's {split} split has no file number {missing[0]} (it has 0 to {count - 1})"
        raise UserInputError(message)
    names = [f"c4-{split}.{number:05d}-of-{count:05d}.json.gz" for number in wanted]
    return [RemoteFile(name, (base_url if base_url.endswith("/") else f"{base_url}/") + name, has_md5=False) for name in names]
