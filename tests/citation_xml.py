"""PubMed XML in both of its forms, made for tests."""

import gzip
from collections.abc import Sequence
from pathlib import Path

DOCTYPE = (
    '<!DOCTYPE PubmedArticleSet PUBLIC "-//NLM//DTD PubMedArticle, 1st January 2025//EN" "https://dtd.nlm.nih.gov/ncbi/pubmed/out/pubmed_250101.dtd">'
)


def citation_xml(pmid: int, abstract: str | None = "Some text.", *, version: int = 1, title: str = "A title.", language: str = "eng") -> str:
    """One `MedlineCitation`; ``abstract`` is the text of its one section, or, where it begins with ``<Abstract``, its XML."""
    sections = f"<Abstract><AbstractText>{abstract}</AbstractText></Abstract>" if abstract is not None else ""
    if abstract is not None and abstract.startswith("<Abstract"):
        sections = abstract
    return (
        f'<MedlineCitation Status="MEDLINE" Owner="NLM"><PMID Version="{version}">{pmid}</PMID><DateCompleted><Year>1999</Year></DateCompleted>'
        f"<Article><Journal><JournalIssue><PubDate><Year>2007</Year></PubDate></JournalIssue><Title>A journal</Title></Journal>"
        f"<ArticleTitle>{title}</ArticleTitle>{sections}<Language>{language}</Language>"
        f"<PublicationTypeList><PublicationType>Journal Article</PublicationType></PublicationTypeList>"
        f"<VernacularTitle>Ein Titel</VernacularTitle><ArticleDate><Year>2006</Year></ArticleDate></Article>"
        f"<MeshHeadingList><MeshHeading><DescriptorName>Asthma</DescriptorName><QualifierName>therapy</QualifierName></MeshHeading></MeshHeadingList>"
        f'<OtherAbstract Type="Publisher"><AbstractText>Another text.</AbstractText></OtherAbstract>'
        f"<CommentsCorrectionsList><CommentsCorrections><PMID>777</PMID></CommentsCorrections></CommentsCorrectionsList></MedlineCitation>"
    )


def deletion_xml(*pmids: int, version: int = 1) -> str:
    """One `DeleteCitation`."""
    return "<DeleteCitation>" + "".join(f'<PMID Version="{version}">{pmid}</PMID>' for pmid in pmids) + "</DeleteCitation>"


def article_set(records: Sequence[str], doctype: str = DOCTYPE) -> str:
    """Records as a `PubmedArticleSet`, each citation in a `PubmedArticle` with its other half."""
    data = "<PubmedData><History/><ReferenceList><Reference><ArticleIdList/></Reference></ReferenceList></PubmedData>"
    wrapped = [f"<PubmedArticle>\n{record}\n{data}\n</PubmedArticle>" if record.startswith("<MedlineCitation") else record for record in records]
    body = "\n".join(wrapped)
    return f'<?xml version="1.0" encoding="utf-8"?>\n{doctype}\n<PubmedArticleSet>\n{body}\n</PubmedArticleSet>\n'


def medline_set(records: Sequence[str]) -> str:
    """Records as a `MedlineCitationSet`, the form until 2016."""
    body = "\n".join(records)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n<MedlineCitationSet>\n{body}\n</MedlineCitationSet>\n'


def write_xml(path: Path, text: str) -> Path:
    """``text`` as a file, gzip where its name says so."""
    content = text.encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(content, mtime=0) if path.name.endswith(".gz") else content)
    return path
