"""Corpus files -> documents."""

from lmdissect.corpus.read import read_corpus
from lmdissect.corpus.select import sample_documents, split_held_out

__all__ = ["read_corpus", "sample_documents", "split_held_out"]
