"""The study artifact: every analysis of many runs, from which a study report is written.

A study is made of runs: one tuned model against its base on one probe set. Runs that differ in the training seed alone are one *point*; `experiment` and `point` name it,
`fields` holds the varied settings as JSON. Every table is Parquet and CSV. An estimate is never empty: what cannot be computed is left out and listed in the
manifest under `details.unavailable` (list of {table, experiment, point, probes, variant, reason}).

    runs             one row per run: experiment, point, fields, seed, probes, base_model, tuned_model, training_documents, num_target_tokens, num_documents,
                     shift_folder, base_scores, tuned_scores (null where not kept): paths from the study's folder
    estimates        gains and shifts of every point, its seeds taken together (intervals over documents and, from two seeds on, over seeds)
    seeds            the same for every seed by itself
    curves           estimates along an axis (a varied field with more than one value, or `step` where a run was measured on its way); x null = all weights.
                     `selection`: whole texts, or for facts the changed words too (as in `facts`, mean per token)
    changes          whether a shift changes along a curve: its last point against its first, document by document
    positions        gain and shift by bins of token position
    cumulative       share of the per-document shift made before a position
    tempo            where on a curve half of the last value is reached: "rapid" against "slow" as a number
    capacity         smallest LoRA rank that reaches a share of full finetuning's shift
    independence     training corpus x factor: what moves when the corpus differs in one factor alone
    interactions     topic x style and other 2 x 2 interactions
    facts            shift on the tokens whose words differ
    cloze            true term against the counterfactual's in the true context: log-probability and rank, base and tuned
    fingerprint      the control's own shift (who wrote the variants shows), along every axis, and how much of the original each variant keeps
    natural          style by natural pairs beside style by synthetic variants
    moved_documents  documents whose shift is largest and smallest
    moved_tokens     token strings whose log-probability changed most
    statements       what may be said: one sentence per finding, with its verdict; written by rules from the numbers

`verdict` is `moved` (the interval has a width and leaves out 0, and the adjusted p is below 1 - level), `not shown` (it does not), or `not measured` (with the
reason in the sentence).
Units: nats per token unless `normalization` says otherwise. A table that gives each number once gives it per token, or per byte where tokenizers differ at its
point or at one that it is compared with. Intervals are at `details.level`.
"""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pa_csv

from lmdissect.errors import UnreadableInputError
from lmdissect.store import ArtifactFolder, Manifest, read_artifact, read_table, write_bytes

__all__ = [
    "ANALYSES",
    "CHANGED_WORDS",
    "OVER_DOCUMENTS",
    "OVER_RUNS",
    "SCHEMAS",
    "STAGE",
    "TABLES",
    "VERDICTS",
    "WHOLE_TEXT",
    "read_study_tables",
    "write_study_table",
]

STAGE = "study"
VERDICTS = ("moved", "not shown", "not measured")
OVER_DOCUMENTS, OVER_RUNS = "documents", "documents and training runs"
"""Values of `interval_over`: for the training runs at hand, or for others like them too."""
WHOLE_TEXT, CHANGED_WORDS = "all", "changed"
"""Values of `selection` along a curve: all tokens of a text, or those of the words that differ."""
ANALYSES = (
    "learned",
    "forgotten",
    "curves",
    "position",
    "capacity",
    "tempo",
    "independence",
    "interactions",
    "facts",
    "cloze",
    "natural",
    "fingerprint",
    "moved",
)
"""Sections of a study, in report order; `statements.analysis` is one of them."""

_KINDS = {"s": pa.string(), "i": pa.int64(), "f": pa.float64(), "b": pa.bool_()}
_POINT = {"experiment": "s", "point": "s", "probes": "s"}
_VARIANT = {"variant": "s", "factor": "s", "reference": "s"}
_INTERVAL = {"estimate": "f", "ci_low": "f", "ci_high": "f"}
_TEST = {"p_value": "f", "p_holm": "f"}
_COUNTS = {"num_seeds": "i", "num_documents": "i"}
_VALUE = {
    "statistic": "s",  # gain | shift
    **_VARIANT,  # of a gain: the text's variant (`original` too), factor null for originals, reference null
    "normalization": "s",
    "is_headline": "b",  # the row of a variant to read first (method: net or against the original)
    **_COUNTS,
    **_INTERVAL,
    "ci_method": "s",
    "df": "f",  # Satterthwaite; null for one seed
    "var_documents": "f",  # variance components; null for one seed
    "var_seeds": "f",
    "var_residual": "f",
    **_TEST,
}
_CURVE = {
    "experiment": "s",
    "axis": "s",
    "group": "s",
    "probes": "s",
    **_VARIANT,
    "selection": "s",  # as in `curves`
    "normalization": "s",
    **_COUNTS,
    "interval_over": "s",  # documents and training runs | documents
}
"""Columns of a row about a whole curve."""


def _schema(**columns: str) -> pa.Schema:
    return pa.schema([(name, _KINDS[kind]) for name, kind in columns.items()])


SCHEMAS = {
    "runs": _schema(
        **_POINT,
        fields="s",
        seed="i",
        base_model="s",
        tuned_model="s",
        training_documents="i",
        num_target_tokens="i",
        num_documents="i",
        shift_folder="s",
        base_scores="s",  # scores artifacts of the two models, null where they are not kept: `lmdissect view` reads them
        tuned_scores="s",
    ),
    "estimates": _schema(**_POINT, fields="s", **_VALUE, share="f", share_ci_low="f", share_ci_high="f"),
    "seeds": _schema(**_POINT, seed="i", statistic="s", **_VARIANT, normalization="s", num_documents="i", **_INTERVAL),
    "curves": _schema(**_POINT, axis="s", group="s", x="f", x_label="s", selection="s", **_VALUE),  # selection: all | changed
    "changes": _schema(**_CURVE, first_x="f", last_x="f", **_INTERVAL, **_TEST),
    "positions": _schema(
        **_POINT,
        **_VARIANT,
        document_set="s",
        bin_start="i",
        bin_end="i",
        **_COUNTS,
        **_INTERVAL,
        gain="f",
        gain_ci_low="f",
        gain_ci_high="f",
    ),
    "cumulative": _schema(**_POINT, **_VARIANT, position="i", **_COUNTS, share="f", ci_low="f", ci_high="f"),
    "tempo": _schema(**_CURVE, last_x="f", last_estimate="f", half_x="f", ci_low="f", ci_high="f"),
    # rank, ci_low and ci_high are null where they lie above largest_rank
    "capacity": _schema(**_CURVE, share_of_full="f", full_estimate="f", largest_rank="f", rank="f", ci_low="f", ci_high="f"),
    "independence": _schema(
        **_POINT,
        training_corpus="s",
        compared_with="s",  # null: the shift after training on `training_corpus`; else that shift minus the one after training on this corpus
        **_VARIANT,
        normalization="s",
        **_COUNTS,
        **_INTERVAL,
        **_TEST,
    ),
    "interactions": _schema(**_POINT, variant="s", first_variant="s", second_variant="s", normalization="s", **_COUNTS, **_INTERVAL, **_TEST),
    "facts": _schema(
        **_POINT,
        variant="s",
        selection="s",  # changed | number | named | key_term
        statistic="s",  # mean | sum
        **_COUNTS,
        num_original_tokens="i",
        num_variant_tokens="i",
        **_INTERVAL,
        **_TEST,
    ),
    "cloze": _schema(
        **_POINT,
        variant="s",
        selection="s",  # key_term | number | named | changed
        measure="s",  # true_logprob | other_logprob | contrast | true_rank | true_first: mean over documents of the change (tuned - base)
        terms="s",  # all | recalled (the term does not stand earlier in its context)
        normalization="s",  # term (sum of nats) | token
        is_headline="b",  # contrast, all terms, sum of nats
        **_COUNTS,
        num_terms="i",
        num_candidates="i",  # strings that a rank is among
        base_mean="f",
        tuned_mean="f",
        **_INTERVAL,
        **_TEST,
    ),
    "fingerprint": _schema(
        **_POINT,
        axis="s",  # null: the point by itself
        group="s",
        x="f",
        x_label="s",
        variant="s",
        writer="s",
        kept_words_median="f",
        normalization="s",
        **_COUNTS,
        **_INTERVAL,  # the control's own shift; other variants stand here for kept_words, with their shift against the original
        **_TEST,
    ),
    "natural": _schema(**_POINT, kind="s", variant="s", normalization="s", **_COUNTS, **_INTERVAL, **_TEST),  # kind: natural | synthetic
    "moved_documents": _schema(**_POINT, **_VARIANT, normalization="s", document_id="s", rank="i", shift="f", gain="f"),
    "moved_tokens": _schema(
        **_POINT,
        variant="s",
        token="s",  # noqa: S106 - a column's kind
        direction="s",
        rank="i",
        num_occurrences="i",
        num_documents="i",
        **_INTERVAL,
    ),
    "statements": _schema(
        analysis="s", order="i", **_POINT, axis="s", group="s", share_of_full="f", variant="s", factor="s", sentence="s", verdict="s", **_INTERVAL
    ),
}
"""Columns of every table."""

TABLES = tuple(SCHEMAS)


def write_study_table(artifact: ArtifactFolder, name: str, table: pa.Table) -> list[str]:
    """Write table ``name`` into the artifact.

    Returns:
        Names of the files written.
    """
    artifact.write_table(f"{name}.parquet", table)
    sink = pa.BufferOutputStream()
    pa_csv.write_csv(table, sink)
    write_bytes(artifact.folder / f"{name}.csv", sink.getvalue().to_pybytes())
    return [f"{name}.parquet", f"{name}.csv"]


def read_study_tables(folder: Path) -> tuple[Manifest, dict[str, list[dict[str, Any]]]]:
    """Manifest and all tables (as lists of rows) of a study artifact, verified.

    Raises:
        UnreadableInputError: No finished study there, or one whose tables have other columns: another version of this program made it.
        DamagedArtifactError: A file is missing or changed.
    """
    manifest = read_artifact(folder, STAGE)
    tables = {}
    for name in TABLES:
        path = folder / f"{name}.parquet"
        table = read_table(path) if path.is_file() else None
        if table is None or table.schema.names != SCHEMAS[name].names:
            message = f"{path} is of another version of this program: make the study again, with lmdissect study ... --out {folder} --replace, or lmdissect run"
            raise UnreadableInputError(message)
        tables[name] = table.to_pylist()
    return manifest, tables
