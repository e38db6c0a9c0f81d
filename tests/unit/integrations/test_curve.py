"""The curve's tables and figure, from shift tables written by hand."""

from pathlib import Path
from typing import Any

import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest

from lmdissect.formats.shift_tables import SCHEMAS
from lmdissect.integrations.curve import CURVE_SCHEMAS, MeasuredStep, draw_curve, read_curve, write_curve, write_curve_figure
from lmdissect.report.rendering import drawing_style


def _row(table: str, **fields: Any) -> dict[str, Any]:
    empty = {"string": "", "int64": 1, "double": 0.0}
    return {**{field.name: empty[str(field.type)] for field in SCHEMAS[table]}, **fields}


def _shift(variant: str, estimate: float, *, reference: str = "original", normalization: str = "token") -> dict[str, Any]:
    interval = {"estimate": estimate, "ci_low": estimate - 0.1, "ci_high": estimate + 0.2}
    return _row("shifts", variant=variant, factor="style", reference=reference, normalization=normalization, **interval)


def _point(step: int, estimate: float) -> MeasuredStep:
    gain = {"estimate": 2 * estimate, "ci_low": estimate, "ci_high": 3 * estimate}
    tables = {
        "shifts": [_shift("casual", estimate), _shift("casual", 9.0, normalization="byte"), _shift("casual", 0.5, reference="control")],
        "gains": [
            _row("gains", variant="original", normalization="token", **gain),
            _row("gains", variant="casual", normalization="token"),
            _row("gains", variant="original", normalization="byte"),
        ],
        "fact_tokens": [
            _row("fact_tokens", variant="counterfactual", selection="changed", statistic="mean", estimate=0.25, ci_low=0.2, ci_high=0.3),
            _row("fact_tokens", variant="counterfactual", selection="number", statistic="mean", estimate=7.0),
        ],
        "losses": [
            _row("losses", variant="original", tuned_loss_nats=3.5),
            _row("losses", variant="casual", tuned_loss_nats=3.0),
        ],
    }
    return MeasuredStep(step, 64 * step, None, tables)


POINTS = [_point(0, 0.0), _point(1, 0.01), _point(8, 0.04)]
LOGGED = [
    {"shift/casual": 1.0, "step": 0},
    {"loss": 3.0, "step": 2},
    {"loss": 2.5, "step": 4},
    {"eval_loss": 1.0, "step": 8},
    {"loss": 2.0, "step": 8},
]


def test_rows_of_all_steps_stand_one_below_the_other(tmp_path: Path) -> None:
    write_curve(tmp_path, POINTS, LOGGED)
    rows = read_curve(tmp_path)
    assert [(row["step"], row["reference"], row["normalization"], row["estimate"]) for row in rows[3:6]] == [
        (1, "original", "token", 0.01),
        (1, "original", "byte", 9.0),
        (1, "control", "token", 0.5),
    ]
    assert [row["num_trained_documents"] for row in rows] == [0, 0, 0, 64, 64, 64, 512, 512, 512]
    assert {row["num_trained_tokens"] for row in rows} == {None}
    assert {(row["original_loss_nats"], row["variant_loss_nats"]) for row in rows} == {(3.5, 3.0)}
    assert [row["step"] for row in read_curve(tmp_path, "curve_fact_tokens")] == [0, 0, 1, 1, 8, 8]


def test_the_training_loss_is_the_one_logged_first_at_or_after_the_step(tmp_path: Path) -> None:
    write_curve(tmp_path, POINTS, LOGGED)
    assert {row["step"]: row["train_loss_nats"] for row in read_curve(tmp_path)} == {0: None, 1: 3.0, 8: 2.0}
    write_curve(tmp_path, POINTS, LOGGED[:3])
    assert {row["step"]: row["train_loss_nats"] for row in read_curve(tmp_path)} == {0: None, 1: 3.0, 8: None}


@pytest.mark.parametrize("name", CURVE_SCHEMAS)
def test_both_files_hold_the_same_columns(tmp_path: Path, name: str) -> None:
    write_curve(tmp_path, POINTS, LOGGED)
    assert pq.read_schema(tmp_path / f"{name}.parquet").names == pa_csv.read_csv(tmp_path / f"{name}.csv").column_names == CURVE_SCHEMAS[name].names
    assert CURVE_SCHEMAS[name].names[0] == "step"


def test_the_headline_is_per_token_and_named(tmp_path: Path) -> None:
    assert POINTS[1].headline() == {
        "shift/casual": 0.01,
        "shift/casual_low": 0.01 - 0.1,
        "shift/casual_high": 0.01 + 0.2,
        "net_shift/casual": 0.5,
        "net_shift/casual_low": 0.5 - 0.1,
        "net_shift/casual_high": 0.5 + 0.2,
        "fact_tokens/counterfactual": 0.25,
        "fact_tokens/counterfactual_low": 0.2,
        "fact_tokens/counterfactual_high": 0.3,
        "gain": 0.02,
        "gain_low": 0.01,
        "gain_high": 0.03,
        "probe_loss/original": 3.5,
        "probe_loss/casual": 3.0,
    }


def test_the_figure_shows_shifts_against_the_original_per_token(tmp_path: Path) -> None:
    write_curve(tmp_path, POINTS, LOGGED)
    with drawing_style():
        figure = draw_curve(read_curve(tmp_path), read_curve(tmp_path, "curve_gains"))
        above, below = figure.axes
        lines = [line for line in below.lines if len(line.get_xdata()) == 3]
        assert [line.get_ydata().tolist() for line in lines] == [[0.0, 0.01, 0.04]]
        assert lines[0].get_xdata().tolist() == [-1.0, 0.0, 3.0]  # step 0 one doubling before step 1
        assert [line.get_ydata().tolist() for line in above.lines if len(line.get_xdata()) == 3] == [[0.0, 0.02, 0.08]]
        assert [text.get_text() for text in below.get_legend().get_texts()] == ["casual (style)"]
    write_curve_figure(tmp_path)
    first = {kind: (tmp_path / f"curve.{kind}").read_bytes() for kind in ("png", "svg")}
    assert first["png"].startswith(b"\x89PNG")
    write_curve_figure(tmp_path)
    assert {kind: (tmp_path / f"curve.{kind}").read_bytes() for kind in ("png", "svg")} == first


def test_one_step_alone_can_be_drawn(tmp_path: Path) -> None:
    write_curve(tmp_path, POINTS[:1], [])
    write_curve_figure(tmp_path)
    assert (tmp_path / "curve.svg").is_file()
