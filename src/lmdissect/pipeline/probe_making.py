"""Make a probe set: read originals, rewrite them, write the set, audit it.

OUT/ledger.sqlite, outcomes.parquet, manifest.json   what the rewriting did
OUT/probes                                           the probe set, audited
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lmdissect.corpus import read_corpus
from lmdissect.errors import NothingToDoError
from lmdissect.factors import ORIGINAL
from lmdissect.interrupts import StopRequest
from lmdissect.pipeline.auditing import AuditRequest, audit_folder, check_request, intact_audit
from lmdissect.probes import MADE_PROBES, probe_folder, read_probe_set, write_probe_set
from lmdissect.probes.rows import read_rows
from lmdissect.progress import Progress
from lmdissect.recipes import Recipe
from lmdissect.records import AuditResult, Document, ProbeSet, RejectedRecord
from lmdissect.rewrite import Generator, Price, RewriteConfig, RewriteSummary, make_probe_set, rewrite_documents
from lmdissect.store import seeded_rank

__all__ = ["MadeProbes", "Originals", "ProbeRequest", "limit_originals", "make_probes", "read_originals", "write_probes"]


@dataclass(frozen=True, slots=True)
class Originals:
    """Texts that variants are written of.

    Attributes:
        documents: The texts.
        source: Where they are from, in the user's words.
        rejected: Records that were set aside.
        licence: Terms of the texts, where the source states them.
    """

    documents: tuple[Document, ...]
    source: str
    rejected: tuple[RejectedRecord, ...] = ()
    licence: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeRequest:
    """What to make.

    Attributes:
        originals: Texts.
        recipes: What to write of each.
        generator: Who writes.
        config: How.
        price: Price of the writer; None where it is not known.
        audit: How to audit what was written; None leaves the set unaudited.
    """

    originals: Originals
    recipes: Sequence[Recipe]
    generator: Generator
    config: RewriteConfig
    price: Price | None = None
    audit: AuditRequest | None = None


@dataclass(frozen=True, slots=True)
class MadeProbes:
    """What was made: the probe set as it was written, its folder, what the rewriting did, and what the audit says."""

    probe_set: ProbeSet
    folder: Path
    summary: RewriteSummary
    audit: AuditResult | None


def read_originals(source: str) -> Originals:
    """Originals of a probe set, or the documents of a corpus: a file whose first row names a variant is a probe set, and so is a folder with one.

    Raises:
        UnreadableInputError: The source is missing or of no form we read.
        NothingToDoError: No original is in it.
    """
    path = Path(source.partition("#")[0])
    if _is_probe_set(path):
        probe_set = read_probe_set(source)
        documents = tuple(Document(text.document_id, text.text) for text in probe_set.texts if text.variant == ORIGINAL)
        if not documents:
            message = f"{source}: a probe set without originals: there is nothing to rewrite"
            raise NothingToDoError(message)
        return Originals(documents, source, probe_set.rejected, probe_set.licence)
    corpus, rejected = read_corpus([Path(source)])
    return Originals(tuple(corpus), source, tuple(rejected))


def _is_probe_set(path: Path) -> bool:
    if path.is_dir():
        return probe_folder(str(path)) is not None or (path / "README.md").is_file()
    if not path.exists():
        return "/" in str(path) and not path.parent.is_dir()  # a hub id; a misspelt path is none
    if path.name.removesuffix(".gz").endswith(".json"):
        return True
    if path.name.removesuffix(".gz").endswith((".jsonl", ".csv", ".parquet")):
        first = next(iter(read_rows(path, lambda _place, _reason: None)), None)  # whoever reads it in earnest tells of broken rows
        return first is not None and ("variant" in first.fields or "technical" in first.fields)
    return False


def limit_originals(originals: Originals, num_documents: int | None, seed: int) -> Originals:
    """``num_documents`` of them by a seeded hash of the id, in their order; fewer are inside more. None keeps all."""
    if num_documents is None:
        return originals
    ids = (document.document_id for document in originals.documents)
    kept = set(sorted(ids, key=lambda document_id: seeded_rank(document_id, seed, "probe"))[:num_documents])
    return replace(originals, documents=tuple(document for document in originals.documents if document.document_id in kept))


def make_probes(request: ProbeRequest, out: Path, *, progress: Progress | None = None, stop: StopRequest | None = None) -> MadeProbes:
    """Rewrite, write the probe set and audit it; what is there already is reused.

    Raises:
        LmdissectError: As the stages raise it; what was answered is kept.
    """
    if request.audit is not None:
        check_request(request.audit, {recipe.variant: recipe.factor for recipe in request.recipes})
    summary = rewrite_documents(
        request.originals.documents,
        request.recipes,
        request.generator,
        request.config,
        out,
        price=request.price,
        progress=progress,
        stop=stop,
    )
    return write_probes(request, summary, out, progress=progress, stop=stop)


def write_probes(
    request: ProbeRequest, summary: RewriteSummary, out: Path, *, progress: Progress | None = None, stop: StopRequest | None = None
) -> MadeProbes:
    """Write the probe set of finished rewrites to ``OUT/probes``, in place of an earlier one, and audit it; the audit of an unchanged set is kept.

    Raises:
        NothingToDoError: No rewrite was usable: a set of originals alone measures nothing.
        LmdissectError: As the audit raises it; the set is written by then.
    """
    probe_set = make_probe_set(request.originals.documents, request.recipes, summary, request.originals.source)
    if not probe_set.factors:
        first = f" (first: {probe_set.rejected[0].record}: {probe_set.rejected[0].reason})" if probe_set.rejected else ""
        message = f"no usable rewrite among {len(summary.outcomes)}{first}: see {out / 'outcomes.parquet'}, and try another --model"
        raise NothingToDoError(message)
    probe_set = replace(probe_set, rejected=(*request.originals.rejected, *probe_set.rejected), licence=request.originals.licence)
    folder = out / MADE_PROBES
    if write_probe_set(probe_set, folder, replace=True) == "reused" and (kept := intact_audit(folder)) is not None:
        return MadeProbes(probe_set, folder, summary, kept)  # perhaps by rules of the user's own: another one is for `lmdissect audit` to make
    audit = None if request.audit is None else audit_folder(probe_set, folder, request.audit, progress=progress, stop=stop)
    return MadeProbes(probe_set, folder, summary, audit)
