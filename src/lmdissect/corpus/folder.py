"""A corpus on disk: a folder of Parquet shards with a manifest, and how a split of it is named."""

from pathlib import Path

from lmdissect.errors import UnreadableInputError
from lmdissect.store import Manifest, read_artifact

__all__ = ["ALL_SPLITS", "DATA", "STAGE", "WHOLE", "corpus_shards", "read_corpus_manifest"]

STAGE = "corpus"
DATA = "data"
WHOLE = "documents"
"""Name of the shards of a corpus without splits."""

ALL_SPLITS = "all"


def read_corpus_manifest(folder: Path) -> Manifest:
    """Manifest of a corpus whose files were all verified against it.

    Raises:
        UnreadableInputError: The folder holds no finished corpus.
        DamagedArtifactError: A file is missing or changed.
    """
    return read_artifact(folder, STAGE)


def corpus_shards(path: Path) -> list[Path] | None:
    """Shards of a corpus folder ``DIR``, or of one of its splits, ``DIR#train``, in order; None where ``path`` is no folder.

    A corpus with splits is never read whole by accident: that would put its probes into the training documents.

    Raises:
        UnreadableInputError: The folder holds no finished corpus, its split is not named, there is no such split, or it is empty.
        DamagedArtifactError: A file of it is missing or changed.
    """
    folder, split = path, ""
    if not path.exists() and "#" in path.name:
        name, _, split = path.name.rpartition("#")
        folder = path.with_name(name)
    if not folder.is_dir() or not any((folder / name).is_file() for name in ("manifest.json", "started.json")):
        return None
    manifest = read_corpus_manifest(folder)
    splits = list(manifest.config["split"])
    if splits and not split:
        example = "train" if "train" in splits else splits[0]
        message = f"{folder} has the splits {', '.join(splits)}: say which, as {folder}#{example}, or {folder}#{ALL_SPLITS} for all of them"
        raise UnreadableInputError(message)
    if split and split not in {*splits, ALL_SPLITS}:
        known = ", ".join(splits) if splits else "none: it was made without --split"
        message = f"{folder} has no split '{split}' (its splits: {known})"
        raise UnreadableInputError(message)
    wanted = {split} if split and split != ALL_SPLITS else {*splits, WHOLE}
    shards = [folder / name for name in sorted(manifest.files) if name.startswith(f"{DATA}/") and _split_name(name) in wanted]
    if not shards:
        message = f"{folder}: its split '{split}' holds no document; name another one, or make the corpus with a larger share"
        raise UnreadableInputError(message)
    return shards


def _split_name(shard: str) -> str:
    """``data/train-00000.parquet`` is of the split ``train``."""
    return shard.removeprefix(f"{DATA}/").rpartition("-")[0]
