"""Fetch the public files of PubMed and C4 into a folder."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lmdissect.corpus.fetch import Fetcher
from lmdissect.corpus.remote import C4_URL, PUBMED_URL, c4_files, parse_numbers, pubmed_files
from lmdissect.interrupts import StopRequest
from lmdissect.progress import Progress, SilentProgress
from lmdissect.store import lock_folder, output_folder

__all__ = ["DownloadRequest", "DownloadSummary", "download"]


@dataclass(frozen=True, slots=True)
class DownloadRequest:
    """What to fetch.

    Attributes:
        collection: `pubmed` or `c4`.
        part: Of PubMed, `baseline` or `updates`.
        split: Of C4, `train` or `validation`.
        files: Numbers of the files (``1-3,7``); None for all.
        base_url: A mirror; None for the publisher.
    """

    collection: Literal["pubmed", "c4"]
    part: Literal["baseline", "updates"] = "baseline"
    split: Literal["train", "validation"] = "validation"
    files: str | None = None
    base_url: str | None = None


@dataclass(frozen=True, slots=True)
class DownloadSummary:
    """How many files were fetched, and how many were there and whole."""

    num_fetched: int
    num_present: int


def download(
    request: DownloadRequest, out: Path, *, progress: Progress | None = None, stop: StopRequest | None = None, first_wait_s: float = 1.0
) -> DownloadSummary:
    """Fetch the files that are not there yet.

    Args:
        request: What to fetch.
        out: Folder; created where missing.
        progress: Where progress is shown.
        stop: Looked at between two blocks of a file, before each attempt and while one is waited for.
        first_wait_s: Longest wait after a first fault, in seconds.

    Raises:
        UserInputError: A file does not exist there, or the numbers make no sense.
        RunFailedError: The server cannot be reached or sends damaged files.
        OutputLockedError: Another process fetches into the folder.
        OutOfSpaceError: The disk is full.
        InterruptedRunError: ``stop`` was set; what was received is kept.
    """
    numbers = parse_numbers(request.files) if request.files is not None else None
    shown = progress or SilentProgress()
    num_fetched = num_present = 0
    with lock_folder(output_folder(out)), Fetcher(progress=shown, stop=stop, first_wait_s=first_wait_s) as fetcher:
        if request.collection == "pubmed":
            files = pubmed_files(fetcher, request.base_url or PUBMED_URL, request.part, numbers)
        else:
            files = c4_files(request.base_url or C4_URL, request.split, numbers)
        for remote in files:
            if fetcher.file(remote.url, out / remote.name, md5_url=f"{remote.url}.md5" if remote.has_md5 else None):
                num_fetched += 1
            else:
                num_present += 1
    return DownloadSummary(num_fetched, num_present)
