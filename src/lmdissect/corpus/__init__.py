"""Corpus files -> documents."""

from lmdissect.corpus.build import SET_ASIDE, CorpusSummary, build_corpus
from lmdissect.corpus.citation import AbstractSection, Citation, DeletedCitation
from lmdissect.corpus.config import CorpusConfig
from lmdissect.corpus.pubmed import read_citations
from lmdissect.corpus.read import read_corpus
from lmdissect.corpus.rows import row_format
from lmdissect.corpus.select import mix_documents, sample_documents, split_held_out

__all__ = [
    "SET_ASIDE",
    "AbstractSection",
    "Citation",
    "CorpusConfig",
    "CorpusSummary",
    "DeletedCitation",
    "build_corpus",
    "mix_documents",
    "read_citations",
    "read_corpus",
    "row_format",
    "sample_documents",
    "split_held_out",
]
