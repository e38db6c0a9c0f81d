"""Curves over the varied fields, as figures and as text."""

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


def test_an_experiment_that_varies_nothing_still_says_its_shifts() -> None:
    lines = text_tables(tables([ROWS[0]]), [], [])
    assert lines[1].split()[0] == "points"
    assert lines[2].split() == ["all", "+0.020", "+0.010"]
