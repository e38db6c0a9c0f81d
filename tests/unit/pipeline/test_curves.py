"""Curves over the varied fields, as figures and as text."""

import json
from typing import Any

import pyarrow as pa
import pytest

from lmdissect.pipeline.curves import _draw, curve_points, draw_curves, text_tables

VARIED = ("corpus.size", "finetune.lora.rank", "finetune.learning_rate")


def shift_row(size: object, rank: object, rate: float, seed: int, estimate: float, **more: Any) -> dict[str, Any]:
    return {
        "corpus.size": size,
        "finetune.lora.rank": rank,
        "finetune.learning_rate": rate,
        "seed": seed,
        "probes": "p",
        "variant": "casual",
        "reference": "original",
        "normalization": "token",
        "estimate": estimate,
        "ci_low": estimate - 0.01,
        "ci_high": estimate + 0.01,
        **more,
    }


def tables(rows: list[dict[str, Any]]) -> dict[str, pa.Table]:
    gains = [{**row, "variant": "original", "estimate": 2 * row["estimate"]} for row in rows if row["reference"] == "original"]
    return {
        "shifts": pa.Table.from_pylist(rows),
        "gains": pa.Table.from_pylist([{k: v for k, v in row.items() if k != "reference"} for row in gains]),
    }


ROWS = [
    shift_row(size, rank, 1e-3 if rank else 1e-4, seed, size / 1000 + (0.1 if rank is None else 0.0) + seed / 100)
    for size in (10, 100)
    for rank in (4, None)
    for seed in (0, 1)
]


def test_fields_that_tell_nothing_apart_are_left_out_of_the_key() -> None:
    points, unit = curve_points(tables(ROWS), "corpus.size", ["finetune.lora.rank", "finetune.learning_rate"])
    assert {point.group for point in points} == {"rank=4", "rank=full"}
    assert unit == "nats/token"
    alone, _ = curve_points(
        tables([row for row in ROWS if row["corpus.size"] == 10]), "finetune.lora.rank", ["corpus.size", "finetune.learning_rate"]
    )
    assert {point.group for point in alone} == {""}


def test_curves_that_share_no_place_are_not_joined() -> None:
    rows = [shift_row(10, None, rate, 0, 0.1) for rate in (1e-4, 4e-4, 8e-4)] + [shift_row(10, 8, rate, 0, -0.1) for rate in (5e-4, 1e-3)]
    points, _ = curve_points(tables(rows), "finetune.learning_rate", ["corpus.size", "finetune.lora.rank"])
    assert {(point.group, point.estimate > 0) for point in points} == {("rank=full", True), ("rank=8", False)}
    lines = text_tables(tables(rows), ["finetune.learning_rate"], VARIED)
    assert [line.split()[:2] for line in lines[2:7]] == [[rate, f"(rank={rank})"] for rate, rank in (
        ("0.0001", "full"), ("0.0004", "full"), ("0.0008", "full"), ("0.0005", "8"), ("0.001", "8"),
    )]  # fmt: skip


def test_adapters_are_told_rather_than_the_rates_that_go_with_them() -> None:
    orders = [["finetune.learning_rate", "finetune.lora.rank"], ["finetune.lora.rank", "finetune.learning_rate"]]
    found = [{point.group for point in curve_points(tables(ROWS), "corpus.size", order)[0]} for order in orders]
    assert found == [{"rank=4", "rank=full"}] * 2


def test_one_place_of_its_own_is_no_curve_of_its_own() -> None:
    rows = [{**shift_row(10, 1, 0.1, 0, 0.1), "share": share, "policy": "refuse" if share == 0 else "exclude"} for share in (0.0, 0.3, 0.6)]
    points, _ = curve_points(tables(rows), "share", ["policy"])
    assert {point.group for point in points} == {""}


def test_fields_that_end_alike_and_sections_are_told_in_short() -> None:
    mixes = [json.dumps({"files": ["web" * 30], "share": share}) for share in (0.2, 0.6)]
    rows = [{**shift_row(size, 1, 0.1, 0, 0.1), "corpus.mix": mix, "a.limit": 3, "b.limit": mix} for size in (1, 2) for mix in mixes]
    points, _ = curve_points(tables(rows), "corpus.size", ["corpus.mix"])
    assert {point.group for point in points} == {"mix=share=0.2", "mix=share=0.6"}
    points, _ = curve_points(tables(rows), "corpus.mix", ["corpus.size", "a.limit"])
    assert len({point.x for point in points}) == 2


def test_other_tokenizers_give_curves_per_byte() -> None:
    _, unit = curve_points(tables([{**row, "normalization": "byte"} for row in ROWS]), "corpus.size", [])
    assert unit == "nats/byte"


def test_every_field_and_probe_set_has_a_figure_and_the_same_one_each_time() -> None:
    both = [*ROWS, *({**row, "probes": "q"} for row in ROWS)]
    files = draw_curves(tables(both), ["corpus.size", "finetune.lora.rank"], VARIED)
    assert set(files) == {f"figures/{field}-{probes}.{kind}" for field in VARIED[:2] for probes in "pq" for kind in ("png", "svg")}
    assert all(content.startswith(b"\x89PNG") for name, content in files.items() if name.endswith("png"))
    assert files == draw_curves(tables(both), ["corpus.size", "finetune.lora.rank"], VARIED)


@pytest.mark.parametrize(
    "values",
    [(10, 1000), (0.0, 0.5), ("original", "casual"), (4, None), (True, False)],
    ids=["logarithmic", "linear", "words", "ranks", "switches"],
)
def test_an_axis_of_any_kind_is_drawn(values: tuple[object, object]) -> None:
    rows = [shift_row(value, 1, 0.1, 0, 0.1 * number) for number, value in enumerate(values)]
    assert set(draw_curves(tables(rows), ["corpus.size"], VARIED)) == {"figures/corpus.size-p.png", "figures/corpus.size-p.svg"}


def test_no_interval_of_a_variant_is_cut_off() -> None:
    rows = [shift_row(size, 1, 0.1, 0, size / 100, variant=variant) for size, variant in ((1, "casual"), (2, "casual"), (1, "rap"), (90, "rap"))]
    points, unit = curve_points(tables(rows), "corpus.size", [])
    for axes in _draw(points, "corpus.size", unit).axes:
        low, high = axes.get_ylim()
        for collection in axes.collections:
            heights = [y for path in collection.get_paths() for y in path.vertices[:, 1]]
            assert low <= min(heights) <= max(heights) <= high, axes.get_title(loc="left")


def test_a_field_of_one_value_has_no_curve() -> None:
    assert draw_curves(tables([row for row in ROWS if row["corpus.size"] == 10]), ["corpus.size"], VARIED) == {}
    assert draw_curves({"points": pa.table({"seed": [0]})}, ["corpus.size"], VARIED) == {}


def test_the_text_has_means_over_seeds_and_their_range() -> None:
    lines = text_tables(tables(ROWS), ["corpus.size"], VARIED)
    assert lines[0] == "p: shift of each variant against the original, nats/token; mean of 2 seeds [least, greatest]"
    assert lines[1].split() == ["corpus.size", "gain", "on", "the", "originals", "casual"]
    assert lines[2].split()[:2] == ["10", "(rank=4)"]
    assert lines[2].endswith("+0.015 [+0.010, +0.020]")
    assert [line.split()[0] for line in lines[2:6]] == ["10", "100", "10", "100"]


def test_a_mean_over_fewer_seeds_says_so_and_is_not_joined_to_the_others() -> None:
    rows = [shift_row(size, 1, 0.1, seed, size / 100) for size, seed in ((1, 0), (1, 1), (2, 0), (3, 0), (3, 1))]
    lines = text_tables(tables(rows), ["corpus.size"], VARIED)
    assert lines[0].endswith("; mean of 2 seeds [least, greatest] unless the cell says of how many")
    assert lines[2].endswith("+0.010 [+0.010, +0.010]")
    assert lines[3].endswith("+0.020 (1 of 2)")
    points, unit = curve_points(tables(rows), "corpus.size", [])
    (axes, *_) = _draw(points, "corpus.size", unit).axes
    (line,) = [line for line in axes.lines if line.get_linewidth() == 1.4]
    assert list(line.get_xdata()) == [1, 3]


def test_fields_that_vary_without_being_looked_along_tell_rows_apart() -> None:
    rows = [{**shift_row(10, 1, 0.1, seed, estimate), "models.base": base} for base, estimate in (("a", 1.0), ("b", 0.0)) for seed in (0, 1)]
    lines = text_tables(tables(rows), [], ["models.base"])
    assert [line.split()[:2] for line in lines[2:4]] == [["all", "(base=a)"], ["all", "(base=b)"]]
    assert [line.endswith(f"  {mean} [{mean}, {mean}]") for line, mean in zip(lines[2:4], ("+1.000", "0.000"), strict=True)] == [True, True], lines


def test_an_experiment_that_varies_nothing_still_says_its_shifts() -> None:
    lines = text_tables(tables([ROWS[0]]), [], [])
    assert lines[1].split()[0] == "points"
    assert lines[2].split() == ["all", "+0.020", "+0.010"]
