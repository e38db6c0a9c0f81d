"""Points of a study made from arrays, without files.

panel = make_panel({"corpus.size": 10}, {"original": [[0.3, 0.1]], "casual": [[0.1, 0.1]]})
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lmdissect.records import StudyRun
from lmdissect.shifts.panel import Panel

__all__ = ["make_panel"]


def make_panel(
    fields: Mapping[str, Any],
    gains: Mapping[str, Sequence[Sequence[float]]] | None = None,
    *,
    step: int | None = None,
    experiment: str = "study",
    probes: str = "probes",
    document_ids: Sequence[str] | None = None,
    point: str | None = None,
) -> Panel:
    """A point made from gains per token: variant -> one row per seed, one column per document. There is no control."""
    chosen = gains or {"original": [[0.3, 0.1]], "casual": [[0.1, 0.1]]}
    arrays = {variant: np.asarray(rows, dtype=np.float64) for variant, rows in chosen.items()}
    num_seeds, num_documents = arrays["original"].shape
    label = point if point is not None else " ".join(f"{name}={value}" for name, value in fields.items())
    runs = [
        StudyRun(
            experiment=experiment,
            point=label,
            fields=fields,
            seed=seed,
            probes=probes,
            base_model="b",
            tuned_model="t",
            step=step,
            shift_folder=Path("nowhere"),
        )
        for seed in range(num_seeds)
    ]
    variants = [name for name in arrays if name != "original"]
    return Panel(
        runs=tuple(runs),
        seeds=tuple(range(num_seeds)),
        document_ids=tuple(document_ids or [f"d{number}" for number in range(num_documents)]),
        left_out=(),
        texts_left_out={},
        factors=dict.fromkeys(variants, "style"),
        control=None,
        headline=dict.fromkeys(variants, "original"),
        normalizations=("token",),
        gain={"token": arrays},
        truncated={name: np.zeros(num_documents, dtype=bool) for name in arrays},
        kept_words={name: np.full(num_documents, 0.7) for name in variants},
    )
