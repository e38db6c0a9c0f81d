"""Sheets for human readers: pairs of original and variant with questions, as one HTML form and one CSV file per rater.

    sheet.json        the pairs by key with the hashes of their texts, and the questions; what raters send back is checked against it
    rater-1.html      self-contained form, one pair a page, saved in the browser, answers exported as JSON
    rater-1.csv       the same pairs for a spreadsheet

A sheet is blind: nothing in it tells what the automatic audit said. Every rater gets the same pairs, each in an order of their own.
"""

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lmdissect.audit.criteria import CRITERIA, choose_criteria
from lmdissect.audit.form import write_form
from lmdissect.audit.sheet_index import SHEET_FILE, IndexedPair, SheetIndex, SheetPair, SheetTask, read_sheet
from lmdissect.audit.spreadsheet import write_spreadsheet
from lmdissect.errors import NothingToDoError, StaleArtifactError, UnusableOutputError, UserInputError
from lmdissect.factors import ORIGINAL, sort_variants
from lmdissect.recipes import Recipe
from lmdissect.records import ProbeSet
from lmdissect.store import fingerprint, hash_text, output_folder, output_guard, replace_folder, seeded_rank, write_json

__all__ = ["Sheet", "build_sheet", "write_sheets"]


@dataclass(frozen=True, slots=True)
class Sheet:
    """Pairs to be read, and what is asked about each variant.

    Attributes:
        pairs: In the order of their keys.
        tasks: What was asked of the writer and is asked of the reader, by variant.
    """

    pairs: tuple[SheetPair, ...]
    tasks: Mapping[str, SheetTask]

    def index(self) -> SheetIndex:
        """What `sheet.json` holds. Its fingerprint covers the texts, the pairing and the questions, not the order in which a rater sees them."""
        pairs = tuple(
            IndexedPair(
                key=pair.key,
                document_id=pair.document_id,
                variant=pair.variant,
                original_sha256=hash_text(pair.original),
                text_sha256=hash_text(pair.text),
            )
            for pair in self.pairs
        )
        content = {"tasks": {name: task.model_dump() for name, task in self.tasks.items()}, "pairs": [pair.model_dump() for pair in pairs]}
        return SheetIndex(schema_version=1, fingerprint=fingerprint({"schema_version": 1, **content}), tasks=dict(self.tasks), pairs=pairs)


def build_sheet(
    probe_set: ProbeSet, recipes: Mapping[str, Recipe], *, limit: int | None = None, seed: int = 0, variants: Sequence[str] = ()
) -> Sheet:
    """Choose the pairs of a sheet.

    Args:
        probe_set: Originals and variants, with the texts that an audit rejected: readers must see both kinds.
        recipes: What the writers of variants were asked, by variant; one of another factor than the probe set records is not used.
        limit: Number of documents, chosen by seeded hash of the id (fewer are inside more), or None for all.
        seed: Of that choice.
        variants: Variants to read, or none for all.

    Raises:
        UserInputError: A variant is not in the set.
        NothingToDoError: No document has both an original and a chosen variant.
    """
    table = probe_set.by_variant()
    names = [name for name in sort_variants(table, probe_set.factors) if name != ORIGINAL]
    if unknown := sorted(set(variants) - set(names)):
        message = f"--variant {unknown[0]}: {probe_set.source} has no variant '{unknown[0]}' (it has {', '.join(names)})"
        raise UserInputError(message)
    chosen = [name for name in names if not variants or name in variants]
    originals = table.get(ORIGINAL, {})
    paired = [document_id for document_id in originals if any(document_id in table[name] for name in chosen)]
    if not paired:
        message = f"{probe_set.source}: no document has both an original and a variant ({', '.join(chosen) or 'there is none'}); nothing to read"
        raise NothingToDoError(message)
    documents = sorted(paired, key=lambda document_id: seeded_rank(document_id, seed, "sheet"))[:limit]
    found = [(document_id, name) for document_id in documents for name in chosen if document_id in table[name]]
    pairs = tuple(
        SheetPair(f"P{number:04d}", document_id, name, originals[document_id], table[name][document_id])
        for number, (document_id, name) in enumerate(found, start=1)
    )
    return Sheet(pairs, {name: _task(probe_set.factors[name], recipes.get(name)) for name in chosen if any(pair.variant == name for pair in pairs)})


def _task(factor: str, recipe: Recipe | None) -> SheetTask:
    known = recipe is not None and recipe.factor == factor
    return SheetTask(
        factor=factor,
        instruction=" ".join(recipe.instruction.split()) if recipe is not None and known else "",
        keeps=tuple(" ".join(kept.split()) for kept in recipe.keeps) if recipe is not None and known else (),
        criteria=choose_criteria(factor),
    )


def write_sheets(sheet: Sheet, folder: Path, *, num_raters: int, seed: int = 0) -> Literal["written", "extended", "reused"]:
    """Write the forms of ``num_raters`` raters.

    The folder appears by one rename, complete. Where it holds this very sheet already, files that are missing are added and none is touched: a CSV file may
    be half filled in, with or without the HTML form beside it.

    Raises:
        StaleArtifactError: The folder holds another sheet.
        UnusableOutputError: It holds anything else, or cannot be written.
        OutOfSpaceError: The disk is full.
    """
    folder = folder.resolve()
    index = sheet.index()
    raters = [f"rater-{number}" for number in range(1, num_raters + 1)]
    if _holds(folder, index.fingerprint):
        missing = [path for name in raters for path in _form_files(folder, name) if not path.exists()]
        for path in missing:
            _write_form_file(path, sheet, index.fingerprint, seed)
        return "extended" if missing else "reused"
    output_folder(folder.parent)
    with output_guard(folder):
        temporary = Path(tempfile.mkdtemp(prefix=".tmp-", dir=folder.parent))
        try:
            for name in raters:
                for path in _form_files(temporary, name):
                    _write_form_file(path, sheet, index.fingerprint, seed)
            write_json(temporary / SHEET_FILE, index.model_dump(mode="json"))
            replace_folder(temporary, folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return "written"


def _holds(folder: Path, wanted: str) -> bool:
    """Whether ``folder`` holds the sheet ``wanted``; False where nothing is in the way."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    if not (folder / SHEET_FILE).is_file():
        message = f"{folder} is there and holds no sheet of ours (no {SHEET_FILE}): choose a new or empty --out folder"
        raise UnusableOutputError(message)
    if read_sheet(folder / SHEET_FILE).fingerprint != wanted:
        message = f"{folder} holds a sheet of other pairs or questions: choose another --out, or delete that folder first"
        raise StaleArtifactError(message)
    return True


def _form_files(folder: Path, rater: str) -> tuple[Path, Path]:
    return folder / f"{rater}.csv", folder / f"{rater}.html"


def _write_form_file(path: Path, sheet: Sheet, sheet_fingerprint: str, seed: int) -> None:
    rater = path.stem
    order = sorted(sheet.pairs, key=lambda pair: seeded_rank(pair.key, seed, f"order of {rater}"))
    asked = [criterion for name, criterion in CRITERIA.items() if any(name in task.criteria for task in sheet.tasks.values())]
    write = write_spreadsheet if path.suffix == ".csv" else write_form
    write(path, order, sheet.tasks, asked, sheet_fingerprint=sheet_fingerprint, rater=rater)
