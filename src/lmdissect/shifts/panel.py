"""Runs of one point as arrays: every seed of it has scored the same documents.

Shape letters: S seeds, D documents.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
import numpy.typing as npt

from lmdissect.errors import LmdissectError, MismatchedScoresError
from lmdissect.factors import CONTROL, ORIGINAL, control_variant, sort_variants
from lmdissect.formats.shift_tables import read_document_values
from lmdissect.records import NORMALIZATIONS, StudyGap, StudyRun
from lmdissect.shifts.resampling import Floats
from lmdissect.store import Manifest

__all__ = ["Panel", "read_panels"]

_NAMED_IDS = 3


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Panel:
    """The runs of one experiment, point, step and probe set. They differ in the training seed alone.

    A text counts where every seed has scored it: in `gain` a document's column is a number for all seeds or NaN for all.

    Attributes:
        runs: One per seed, by seed.
        seeds: Their seeds, shape (S,).
        document_ids: Documents whose original every seed has, shape (D,), in the order of the first run.
        left_out: Ids of documents whose original some seed lacks.
        texts_left_out: Per variant, how many texts of the documents above some seeds have and others lack.
        factors: Factor of each variant, in report order.
        control: The control variant, or None.
        headline: The reference of each variant's row that is read first: ``original`` or ``control``.
        normalizations: Those that all runs have.
        gain: ``[normalization][variant]`` -> shape (S, D); texts cut by a token limit are NaN under ``document``.
        truncated: ``[variant]`` -> shape (D,): whether a token limit cut that text under any seed.
        kept_words: ``[variant]`` -> shape (D,): share of the original's words that the variant keeps, NaN where there is no such text.
    """

    runs: tuple[StudyRun, ...]
    seeds: tuple[int, ...]
    document_ids: tuple[str, ...]
    left_out: tuple[str, ...]
    texts_left_out: Mapping[str, int]
    factors: Mapping[str, str]
    control: str | None
    headline: Mapping[str, str]
    normalizations: tuple[str, ...]
    gain: Mapping[str, Mapping[str, Floats]]
    truncated: Mapping[str, npt.NDArray[np.bool_]]
    kept_words: Mapping[str, Floats]

    @property
    def experiment(self) -> str:
        """Name of the experiment."""
        return self.runs[0].experiment

    @property
    def point(self) -> str:
        """Label of the point."""
        return self.runs[0].point

    @property
    def fields(self) -> Mapping[str, Any]:
        """The point's varied settings."""
        return self.runs[0].fields

    @property
    def probes(self) -> str:
        """Name of the probe set."""
        return self.runs[0].probes

    @property
    def step(self) -> int | None:
        """Optimiser step at which the runs were measured on their way; None at the end."""
        return self.runs[0].step

    @property
    def label(self) -> str:
        """The point, and the step where it was measured on its way: what a reason names."""
        return _label(self.point, self.step)

    @property
    def pairings(self) -> tuple[tuple[str, str], ...]:
        """(variant, reference) pairs in report order: every variant against the original, and all but the control against it."""
        pairs: list[tuple[str, str]] = []
        for variant, factor in self.factors.items():
            pairs.append((variant, "original"))
            if self.control is not None and factor != CONTROL:
                pairs.append((variant, "control"))
        return tuple(pairs)

    def shift(self, normalization: str, variant: str, reference: str) -> Floats:
        """Shift of every document under every seed, shape (S, D); NaN where a text is missing, or cut where whole texts are needed.

            shift(s, d) = gain of the reference - gain of the variant

        Args:
            normalization: One of `normalizations`.
            variant: One of `factors`.
            reference: ``original``, or ``control`` for the net shift.

        Raises:
            KeyError: There is no such variant, normalization or control.
        """
        gains = self.gain[normalization]
        if reference == "control" and self.control is None:
            message = "these runs have no control"
            raise KeyError(message)
        values: Floats = gains[self.control if reference == "control" and self.control else ORIGINAL] - gains[variant]
        return np.where(np.isnan(gains[ORIGINAL]), np.nan, values)


@dataclass(frozen=True, slots=True)
class _RunValues:
    """The table `documents` of one run, by normalization and variant."""

    run: StudyRun
    manifest: Manifest
    document_ids: npt.NDArray[np.object_]
    columns: Mapping[tuple[str, str], Mapping[str, npt.NDArray[Any]]]
    """``[normalization, variant]`` -> number (index into document_ids), gain, truncated, kept_words, text_hash of every row."""

    @property
    def normalizations(self) -> tuple[str, ...]:
        return tuple(name for name in NORMALIZATIONS if any(found == name for found, _ in self.columns))

    @property
    def variants(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(variant for _, variant in self.columns))


def read_panels(runs: Sequence[StudyRun]) -> tuple[list[Panel], list[StudyGap]]:
    """Group runs into panels, in the order in which each point first appears.

    A run whose shifts cannot be read is left out, and so are all runs of a seed that is there twice. Of runs that cannot be compared (other texts under one id, another
    tokenizer, base model, setting or factor, no document in common) the largest set that can is kept, of equals the one with the lowest seed.

    Returns:
        The panels, and what was left out with the reason.
    """
    groups: dict[tuple[str, str, int | None, str], list[StudyRun]] = {}
    for run in runs:
        groups.setdefault((run.experiment, run.point, run.step, run.probes), []).append(run)
    panels: list[Panel] = []
    gaps: list[StudyGap] = []
    for (experiment, point, step, probes), members in groups.items():
        label = _label(point, step)
        found: list[_RunValues] = []
        for run in sorted(members, key=lambda member: member.seed):
            try:
                found.append(_read_run(run))
            except LmdissectError as error:
                gaps.append(StudyGap("runs", experiment, label, probes, "all", f"seed {run.seed}: {error}"))
        kept, reasons = _alike(found)
        if kept:
            panels.append(_build(kept))
        gaps += [StudyGap("runs", experiment, label, probes, "all", reason) for reason in reasons]
    return panels, gaps


def _label(point: str, step: int | None) -> str:
    return point if step is None else f"{point} step {step}".strip()


def _read_run(run: StudyRun) -> _RunValues:
    manifest, table = read_document_values(run.shift_folder)
    encoded = table["document_id"].combine_chunks().dictionary_encode()
    document_ids = np.asarray(encoded.dictionary.to_pylist(), dtype=object)
    names = {name: table[name].combine_chunks().dictionary_encode() for name in ("normalization", "variant")}
    codes = {name: column.indices.to_numpy() for name, column in names.items()}
    values = {
        "number": encoded.indices.to_numpy(),
        "gain": table["tuned_value"].to_numpy() - table["base_value"].to_numpy(),
        "truncated": table["truncated"].combine_chunks().to_numpy(zero_copy_only=False),
        "kept_words": table["kept_words"].to_numpy(),
        "text_hash": table["text_hash"].to_numpy(),
    }
    columns: dict[tuple[str, str], dict[str, npt.NDArray[Any]]] = {}
    for n, normalization in enumerate(names["normalization"].dictionary.to_pylist()):
        for v, variant in enumerate(names["variant"].dictionary.to_pylist()):
            rows = np.flatnonzero((codes["normalization"] == n) & (codes["variant"] == v))
            if len(rows):
                columns[normalization, variant] = {name: column[rows] for name, column in values.items()}
    if not any(variant == ORIGINAL for _, variant in columns):
        message = f"{run.shift_folder}: no original has a score under both models"
        raise MismatchedScoresError(message)
    return _RunValues(run, manifest, document_ids, columns)


def _build(found: Sequence[_RunValues]) -> Panel:
    normalizations = found[0].normalizations
    document_ids, left_out = _shared_documents(found, normalizations[0])
    index = {document_id: number for number, document_id in enumerate(document_ids)}
    places = [np.asarray([index.get(name, -1) for name in values.document_ids], dtype=np.int64) for values in found]
    described = found[0].manifest.details["variants"]
    factors = {name: described[name]["factor"] for name in sort_variants(described, {name: described[name]["factor"] for name in described})}
    gain: dict[str, dict[str, Floats]] = {name: {} for name in normalizations}
    truncated: dict[str, npt.NDArray[np.bool_]] = {}
    kept_words: dict[str, Floats] = {}
    texts_left_out: dict[str, int] = {}
    for variant in (ORIGINAL, *factors):
        rows = [_spread(values, places[number], (normalizations[0], variant), len(document_ids)) for number, values in enumerate(found)]
        truncated[variant] = np.asarray(np.nansum([row["truncated"] for row in rows], axis=0) > 0)
        kept_words[variant] = reduce(lambda here, there: np.where(np.isnan(here), there, here), [row["kept_words"] for row in rows])
        for normalization in normalizations:
            key = (normalization, variant)
            gains_SD = np.stack([_spread(values, places[number], key, len(document_ids))["gain"] for number, values in enumerate(found)])
            missing_SD = np.isnan(gains_SD)
            if normalization == normalizations[0]:
                texts_left_out[variant] = int((missing_SD.any(axis=0) & ~missing_SD.all(axis=0)).sum())
            gains_SD[:, missing_SD.any(axis=0)] = np.nan
            if normalization == "document":
                gains_SD[:, truncated[variant]] = np.nan
            gain[normalization][variant] = gains_SD
    return Panel(
        runs=tuple(values.run for values in found),
        seeds=tuple(values.run.seed for values in found),
        document_ids=tuple(document_ids),
        left_out=tuple(left_out),
        texts_left_out={variant: count for variant, count in texts_left_out.items() if count},
        factors=factors,
        control=control_variant(factors),
        headline={name: described[name]["headline_reference"] for name in factors},
        normalizations=normalizations,
        gain=gain,
        truncated=truncated,
        kept_words={variant: kept_words[variant] for variant in factors},
    )


def _spread(values: _RunValues, places: npt.NDArray[np.int64], key: tuple[str, str], num_documents: int) -> dict[str, Floats]:
    """Columns of one run over the panel's documents, each of shape (D,), NaN where the run has no such text."""
    spread = {name: np.full(num_documents, np.nan) for name in ("gain", "truncated", "kept_words")}
    columns = values.columns.get(key)
    if columns is not None:
        where = places[columns["number"]]
        for name, column_D in spread.items():
            column_D[where[where >= 0]] = columns[name][where >= 0]
    return spread


def _shared_documents(found: Sequence[_RunValues], normalization: str) -> tuple[list[str], list[str]]:
    """Documents whose original every run has, and the others."""
    originals = [values.document_ids[values.columns[normalization, ORIGINAL]["number"]].tolist() for values in found]
    shared = reduce(lambda here, there: here & there, (set(names) for names in originals))
    everywhere = dict.fromkeys(name for names in originals for name in names)
    return [name for name in originals[0] if name in shared], [name for name in everywhere if name not in shared]


def _named(found: Sequence[_RunValues]) -> str:
    return "seeds " + ", ".join(str(values.run.seed) for values in found)


def _alike(found: Sequence[_RunValues]) -> tuple[list[_RunValues], list[str]]:
    """The runs that one row can speak for, by seed, and why the others are left out."""
    reasons: list[str] = []
    single: list[_RunValues] = []
    for seed in dict.fromkeys(values.run.seed for values in found):
        same = [values for values in found if values.run.seed == seed]
        if len(same) == 1:
            single += same
        else:
            folders = " and ".join(str(values.run.shift_folder) for values in same)
            reasons.append(f"seed {seed} is there twice ({folders}) and left out: give each run once")
    groups: list[_Alike] = []
    for values in single:
        fitting = next((group for group in groups if group.mismatch(values) is None), None)
        if fitting is None:
            groups.append(fitting := _Alike())
        fitting.add(values)
    if not groups:
        return [], reasons
    kept = max(groups, key=lambda group: len(group.runs))  # the first of the largest: it has the lowest seed
    for values in single:
        if any(values is member for member in kept.runs):
            continue
        if (reason := kept.mismatch(values)) is None:
            kept.add(values)
        else:
            reasons.append(f"seed {values.run.seed} is left out: {reason}")
    return sorted(kept.runs, key=lambda values: values.run.seed), reasons


class _Alike:
    """Runs that one row can speak for."""

    def __init__(self) -> None:
        self.runs: list[_RunValues] = []
        self._shared: set[str] = set()
        """Documents whose original all of them have."""
        self._texts: dict[str, dict[str, str]] = {}
        """Hash of every text that any of them has, by variant and document."""

    def add(self, values: _RunValues) -> None:
        """Take a run that has no mismatch with these."""
        originals = set(_texts(values, ORIGINAL))
        self._shared = self._shared & originals if self.runs else originals
        for variant in values.variants:
            self._texts.setdefault(variant, {}).update(_texts(values, variant))
        self.runs.append(values)

    def mismatch(self, other: _RunValues) -> str | None:
        """Why a run is not one point with these; None if it is."""
        first = self.runs[0]
        seeds = f"seeds {first.run.seed} and {other.run.seed}"
        for what, here, there in _differences(first.manifest.details, other.manifest.details):
            return f"{seeds} differ in {what} ({here}, and {there}): they are not one point"
        if other.normalizations != first.normalizations:
            return f"{seeds} do not have the same normalizations"
        if self._shared.isdisjoint(_texts(other, ORIGINAL)):
            return f"{_named([*self.runs, other])} have no document in common"
        for variant in other.variants:  # the same id must stand for the same text under every seed
            known = self._texts.get(variant, {})
            differing = [name for name, text_hash in _texts(other, variant).items() if known.get(name, text_hash) != text_hash]
            if differing:
                names = ", ".join(differing[:_NAMED_IDS])
                return f"{len(differing)} documents ({names}) have another {variant} text under seed {other.run.seed}: probe sets are mixed"
        return None


def _texts(values: _RunValues, variant: str) -> dict[str, str]:
    """Hash of every text of one variant that a run has, by document."""
    columns = values.columns.get((values.normalizations[0], variant))
    return {} if columns is None else dict(zip(values.document_ids[columns["number"]].tolist(), columns["text_hash"].tolist(), strict=True))


def _differences(first: Mapping[str, Any], other: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """What differs among the facts that must agree: (name, here, there)."""
    pairs = [("the base model's " + name, first["base_model"].get(name), other["base_model"].get(name)) for name in ("weights", "config", "adapter")]
    pairs += [("tokenizer", first[side]["tokenizer"], other[side]["tokenizer"]) for side in ("base_model", "tuned_model")]
    pairs += [(f"--{name.replace('_', '-')}", first.get(name), other.get(name)) for name in ("bos", "max_tokens")]
    for variant in {**first["variants"], **other["variants"]}:
        sides = [details["variants"].get(variant, {}).get("factor", "not there") for details in (first, other)]
        pairs.append((f"the factor of '{variant}'", *sides))
    return [(what, _short(here), _short(there)) for what, here, there in pairs if here != there]


def _short(value: object) -> str:
    limit = 24
    text = str(value)
    return text if len(text) <= limit else f"{text[: limit - 1]}…"
