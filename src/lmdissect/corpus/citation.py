"""One citation of PubMed, as its XML says."""

from dataclasses import dataclass

__all__ = ["AbstractSection", "Citation", "DeletedCitation"]


@dataclass(frozen=True, slots=True)
class AbstractSection:
    """One `AbstractText`: its label ("METHODS") or None, and its text."""

    label: str | None
    text: str


@dataclass(frozen=True, slots=True)
class Citation:
    """One version of one citation.

    Attributes:
        pmid: PubMed id.
        version: Version of the citation, from 1.
        title: Title of the article; empty where there is none.
        sections: Sections of the abstract that have text; empty where there is no abstract.
        languages: Language codes of the article ("eng"); the abstract of an article in another language is mostly English.
        journal: Title of the journal; empty where there is none.
        year: Year of the issue, or None.
        publication_types: Its types ("Journal Article").
        mesh_terms: Its MeSH descriptors ("Asthma"), without qualifiers.
    """

    pmid: int
    version: int
    title: str
    sections: tuple[AbstractSection, ...]
    languages: tuple[str, ...]
    journal: str
    year: int | None
    publication_types: tuple[str, ...]
    mesh_terms: tuple[str, ...]

    @property
    def abstract(self) -> str:
        """The sections' texts with a space between them, without labels: what the published probes hold."""
        return " ".join(section.text for section in self.sections)


@dataclass(frozen=True, slots=True)
class DeletedCitation:
    """One version of a citation that a file takes back."""

    pmid: int
    version: int
