"""Corpus files -> documents."""

from lmdissect.corpus.read import hash_corpus, read_corpus
from lmdissect.corpus.select import sample_documents, split_held_out

__all__ = ["hash_corpus", "read_corpus", "sample_documents", "split_held_out"]
