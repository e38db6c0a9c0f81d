"""Options that several verbs share, and what they mean: declared once."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from lmdissect.errors import UserInputError

if TYPE_CHECKING:
    from pydantic import BaseModel

    from lmdissect.models import TrustOptions
    from lmdissect.records import ProbeSet, RejectedRecord

__all__ = [
    "BatchTokens",
    "Bos",
    "Control",
    "Device",
    "Draws",
    "Dtype",
    "Factors",
    "Level",
    "Limit",
    "MaxTokens",
    "Out",
    "Pickle",
    "Probes",
    "RemoteCode",
    "Seed",
    "Strict",
    "WindowTokens",
    "build",
    "read_probes",
    "report_rejected",
    "trust_options",
]

_SHOWN_REJECTIONS = 5

Out = Annotated[Path, typer.Option("--out", metavar="DIR", help="Output folder; run the same command again to go on or to reuse it.")]
Probes = Annotated[
    str,
    typer.Option("--probes", metavar="P", help="Probe set: folder, hub id, the paper's JSON list, natural pairs, or long-form JSONL, CSV, Parquet."),
]
Control = Annotated[str | None, typer.Option("--control", metavar="FILE", help="Rewrites that change nothing, merged in as the variant paraphrase.")]
Factors = Annotated[list[str] | None, typer.Option("--factor", metavar="NAME=FACTOR", help="Factor that a variant changes; may be repeated.")]
Limit = Annotated[int | None, typer.Option("--limit", metavar="N", min=1, help="Use N documents, chosen by --seed; fewer are inside more.")]
MaxTokens = Annotated[
    int | None, typer.Option("--max-tokens", metavar="N", min=1, help="Keep the first N tokens of a text (recorded). [default: all]")
]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Seed of every draw.")]
Bos = Annotated[str, typer.Option("--bos", help="Prefix: auto (what the tokenizer adds), always (BOS, else EOS), never.")]
Dtype = Annotated[str, typer.Option("--dtype", help="Weights: auto (float32 on CPU, bfloat16 on CUDA), float32, bfloat16, float16.")]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:1, mps.")]
BatchTokens = Annotated[int, typer.Option("--batch-tokens", min=1, help="Tokens in one forward pass, padding included.")]
WindowTokens = Annotated[int | None, typer.Option("--window-tokens", min=4, help="Longest model input. [default: the model's own limit]")]
Draws = Annotated[int, typer.Option("--draws", min=100, help="Bootstrap resamples and sign-flip permutations.")]
Level = Annotated[float, typer.Option("--level", help="Confidence level.")]
Strict = Annotated[bool, typer.Option("--strict", help="Stop with exit code 2 if any record had to be set aside.")]
Pickle = Annotated[bool, typer.Option("--allow-pickle", help="Load pickled weights (.bin): they can run code.")]
RemoteCode = Annotated[bool, typer.Option("--trust-remote-code", help="Run model code that comes with the weights (hub: pinned revision only).")]

_Config = TypeVar("_Config", bound="BaseModel")


def build(config: type[_Config], **fields: object) -> _Config:
    """A settings object from command-line values, with one clear line where a value is not allowed.

    Raises:
        UserInputError: A value is out of its range.
    """
    from pydantic import ValidationError

    try:
        return config.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        name = "--" + "-".join(str(part) for part in first["loc"]).replace("_", "-") if first["loc"] else "settings"
        message = f"{name}: {first['msg'].removeprefix('Value error, ')} (given: {first['input']!r})" if first["loc"] else first["msg"]
        raise UserInputError(message) from error


def trust_options(*, allow_pickle: bool, trust_remote_code: bool) -> "TrustOptions":
    """What the user allowed."""
    from lmdissect.models import TrustOptions

    return TrustOptions(allow_pickle, trust_remote_code)


def read_probes(source: str, *, control: str | None, factors: Sequence[str] | None, limit: int | None, seed: int, strict: bool) -> "ProbeSet":
    """Read a probe set, say what was set aside, keep ``limit`` documents.

    Raises:
        UserInputError: Records were set aside and ``strict`` is on, or the set cannot be read.
    """
    from lmdissect.cli.probes import parse_factors
    from lmdissect.probes import limit_documents, read_probe_set

    probe_set = read_probe_set(source, factors=parse_factors(factors or []), control=control)
    if unknown := sorted({pair.partition("=")[0] for pair in factors or []} - set(probe_set.factors)):
        message = f"--factor {unknown[0]}: {source} has no variant '{unknown[0]}' (it has {', '.join(probe_set.factors)})"
        raise UserInputError(message)
    report_rejected(probe_set.rejected, strict=strict)
    return limit_documents(probe_set, limit, seed)


def report_rejected(rejected: Sequence["RejectedRecord"], *, strict: bool) -> None:
    """Name and count the records that were set aside.

    Raises:
        UserInputError: There are some and ``strict`` is on.
    """
    from lmdissect.cli.probes import printable

    if not rejected:
        return
    for record in rejected[:_SHOWN_REJECTIONS]:
        print(printable(f"set aside: {record.source}: {record.record}: {record.reason}"), file=sys.stderr)
    if len(rejected) > _SHOWN_REJECTIONS:
        print(f"set aside: {len(rejected)} records in all", file=sys.stderr)
    if strict:
        message = f"{len(rejected)} records had to be set aside and --strict is on: mend the input, or leave --strict out"
        raise UserInputError(message)
