"""Which points make a curve, and what a curve's rows are."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from lmdissect.formats.study_tables import SCHEMAS
from lmdissect.shifts.curves import Curve, curve_rows, find_curves, shared_values
from lmdissect.shifts.panel import read_panels
from lmdissect.shifts.pooled import point_rows
from study_panels import make_panel
from study_runs import CONFIG, save_run

NAN = float("nan")


def _described(curves: Sequence[Curve]) -> list[tuple[str, str, tuple[float | None, ...]]]:
    return [(curve.axis, curve.group, curve.xs) for curve in curves]


SIZE, RANK, RATE, SHARE = "corpus.size", "finetune.lora.rank", "finetune.learning_rate", "corpus.mix.share"


@pytest.mark.parametrize(
    ("points", "expected"),
    [
        pytest.param([{SIZE: 600}, {SIZE: 60}, {SIZE: 200}], [(SIZE, "", (60.0, 200.0, 600.0))], id="sizes in order"),
        pytest.param([{SIZE: 60}], [], id="one value is no curve"),
        pytest.param([{"corpus.variant": "casual"}, {"corpus.variant": "original"}], [], id="words are no axis"),
        pytest.param([{"finetune.checkpointing": True}, {"finetune.checkpointing": False}], [], id="neither are yes and no"),
        pytest.param(
            [{SIZE: size, RANK: rank} for rank in (8, 64) for size in (60, 600)],
            [(SIZE, "rank=8", (60.0, 600.0)), (SIZE, "rank=64", (60.0, 600.0)), (RANK, "size=60", (8.0, 64.0)), (RANK, "size=600", (8.0, 64.0))],
            id="a grid of two",
        ),
        pytest.param([{RANK: 4}, {RANK: None}, {RANK: 1}], [(RANK, "", (1.0, 4.0, None))], id="all weights come last"),
        pytest.param([{RANK: 4}, {RANK: None}], [], id="one rank beside all weights is no curve"),
        pytest.param(
            [*({RANK: rank, RATE: {"grid": [1e-3, 2e-3], "size": 96}} for rank in (1, 4)), {RANK: None, RATE: 2e-4}],
            [(RANK, "", (1.0, 4.0, None))],
            id="all weights with a rate of their own",
        ),
        pytest.param(
            [*({RANK: None, RATE: rate} for rate in (1e-4, 2e-4)), *({RANK: 8, RATE: rate} for rate in (1e-3, 2e-3))],
            [(RATE, "rank=full", (1e-4, 2e-4)), (RATE, "rank=8", (1e-3, 2e-3))],
            id="rates of adapters and of all weights are two curves",
        ),
        pytest.param(
            [{RANK: 1, RATE: 1e-3}, {RANK: 4, RATE: 1e-3}, {RANK: None, RATE: 1e-4}, {RANK: None, RATE: 2e-4}],
            [(RANK, "", (1.0, 4.0)), (RATE, "", (1e-4, 2e-4))],
            id="two runs of all weights could be meant",
        ),
        pytest.param(
            [{SHARE: 0, "corpus.on_overlap": "refuse"}, {SHARE: 0.3, "corpus.on_overlap": "exclude_probes"}],
            [(SHARE, "", (0.0, 0.3))],
            id="what is done about overlaps tells nothing apart",
        ),
        pytest.param(
            [{SIZE: size, "corpus.on_overlap": way} for way in ("exclude_training", "exclude_probes") for size in (10, 100)],
            [(SIZE, "on_overlap=exclude_training", (10.0, 100.0)), (SIZE, "on_overlap=exclude_probes", (10.0, 100.0))],
            id="but where it is varied, the texts differ",
        ),
        pytest.param([{SHARE: None}, {SHARE: 0.3}], [(SHARE, "", (0.0, 0.3))], id="nothing mixed in is 0"),
        pytest.param([{SIZE: None}, {SIZE: 10}, {SIZE: 20}], [(SIZE, "", (10.0, 20.0))], id="an unset size is nowhere"),
    ],
)
def test_points_that_make_a_curve(points: Sequence[Mapping[str, Any]], expected: object) -> None:
    assert _described(find_curves([make_panel(fields) for fields in points])) == expected


def test_experiments_and_probe_sets_are_kept_apart() -> None:
    panels = [make_panel({SIZE: size}, experiment=name, probes=probes) for name in "ab" for probes in "pq" for size in (1, 2)]
    curves = find_curves([*panels, make_panel({SIZE: 3}, experiment="c")])
    assert [(curve.experiment, curve.probes, curve.xs) for curve in curves] == [(name, probes, (1.0, 2.0)) for name in "ab" for probes in "pq"]


def test_steps_make_a_curve_of_each_point() -> None:
    panels = [make_panel({SIZE: size}, step=step) for size in (10, 20) for step in (None, 8, 2)]
    assert _described(find_curves(panels)) == [
        (SIZE, "", (10.0, 20.0)),
        ("step", "corpus.size=10", (2.0, 8.0)),
        ("step", "corpus.size=20", (2.0, 8.0)),
    ]
    assert _described(find_curves([make_panel({}, step=step) for step in (2, 8)])) == [("step", "", (2.0, 8.0))]


def test_rows_of_a_curve(tmp_path: Path) -> None:
    gains = {"original": [0.3, 0.2, 0.4], "casual": [0.1, 0.1, 0.2]}
    runs = [save_run(tmp_path, gains, point=f"rank={rank}", fields={RANK: rank}) for rank in (1, 16, None)]
    panels, _ = read_panels(runs)
    rows = curve_rows(find_curves(panels), {panel: point_rows(panel, CONFIG)[0] for panel in panels})
    assert {frozenset(row) for row in rows} == {frozenset(SCHEMAS["curves"].names)}
    assert list(dict.fromkeys((row["point"], row["x"], row["x_label"]) for row in rows)) == [
        ("rank=1", 1.0, "1"),
        ("rank=16", 16.0, "16"),
        ("rank=None", None, "full"),
    ]
    assert len(rows) == 3 * 3 * (2 + 1)
    assert {row["statistic"] for row in rows} == {"gain", "shift"}


def test_documents_that_all_points_have(tmp_path: Path) -> None:
    first = make_panel({SIZE: 1}, {"original": [[1.0, 2.0, 3.0]], "casual": [[0.0, 0.0, 0.0]]}, document_ids="abc")
    other = make_panel({SIZE: 2}, {"original": [[7.0, 5.0, 6.0], [8.0, 6.0, 7.0]], "casual": [[0.0, 0.0, NAN]] * 2}, document_ids="cab")
    shared = shared_values([first, other], "casual", "original")
    assert shared.left_out == ("1 document that not every point has: left out",)
    assert (shared.normalization, shared.seeds) == ("token", ()), "one seed in common is no spread of seeds"
    assert [array.tolist() for array in shared.values] == [[[1.0, 3.0]], [[5.0, 7.0], [6.0, 8.0]]]
