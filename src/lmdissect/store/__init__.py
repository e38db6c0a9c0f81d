"""Artifacts on disk: canonical fingerprints, atomic writes, manifests written last, verified reads. Knows no stage."""

from lmdissect.store.artifact import (
    ArtifactFolder,
    FileRecord,
    JoinedArtifact,
    Manifest,
    artifact_key,
    join_artifact,
    lock_folder,
    open_artifact,
    read_artifact,
    read_manifest,
    versions,
)
from lmdissect.store.files import (
    output_folder,
    output_guard,
    read_json,
    read_table,
    replace_folder,
    write_bytes,
    write_json,
    write_table,
    write_text,
)
from lmdissect.store.fingerprint import fingerprint, hash_file, hash_text, seeded_rank

__all__ = [
    "ArtifactFolder",
    "FileRecord",
    "JoinedArtifact",
    "Manifest",
    "artifact_key",
    "fingerprint",
    "hash_file",
    "hash_text",
    "join_artifact",
    "lock_folder",
    "open_artifact",
    "output_folder",
    "output_guard",
    "read_artifact",
    "read_json",
    "read_manifest",
    "read_table",
    "replace_folder",
    "seeded_rank",
    "versions",
    "write_bytes",
    "write_json",
    "write_table",
    "write_text",
]
