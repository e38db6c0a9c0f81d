"""Speed and memory of the statistics for many documents, side by side with a plain numpy bootstrap and scipy.stats.bootstrap; and coverage over seeds.

    python benchmarks/resampling.py                 everything, under a minute on one core; writes docs/benchmarks-statistics.md
    python benchmarks/resampling.py --documents 20000 --columns 15    a quick look; writes nothing
    python benchmarks/resampling.py --coverage      the table in `lmdissect.shifts.seeds`: share of intervals that hold the truth, a minute
    python benchmarks/resampling.py --coverage-curves    the same for half points and ranks, the table in docs/method.md under "Many runs", a minute

Every measurement is a fresh process, so that peak memory is its own. Ours does the whole of what a study needs: means, percentile intervals and sign-flip tests.
The peers do means and percentile intervals alone, with as many draws as they can in reasonable time at that size; their time for all draws is extrapolated in
proportion (every draw costs the same), and labelled so. `lmdissect, plain` is our own code below 20,000 documents, with its sign-flip test.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "benchmarks-statistics.md"
NUM_DOCUMENTS, NUM_COLUMNS, NUM_DRAWS = 100_000, 150, 10_000
TOOLS = ("lmdissect, in blocks", "lmdissect, plain", "numpy, plain", "scipy.stats.bootstrap")
PEER_DRAWS = {"lmdissect, in blocks": NUM_DRAWS, "lmdissect, plain": 200, "numpy, plain": 20, "scipy.stats.bootstrap": 4}
COVERAGE_SEEDS, COVERAGE_ADDED = (2, 3, 5, 10), (0.0, 1.0, 10.0)
COVERAGE_STUDIES, COVERAGE_DOCUMENTS = 4_000, 200


CURVE_STUDIES, CURVE_DOCUMENTS, CURVE_SPREADS = 1_000, 60, (0.0, 0.03, 0.1)
CURVE_X, CURVE_SHIFTS = (10.0, 100.0, 1000.0), (0.3, 0.5, 1.0)  # half of the last shift is at 100, where the slope changes
RANKS, RANK_SHIFTS = (1.0, 4.0, 16.0), (0.48, 0.52, 0.8, 1.0)  # the last is full finetuning's: rank 4 is the first to reach half


def make_values(num_documents: int, num_columns: int) -> np.ndarray:
    """Shifts of correlated runs: what a document does under one run it does in part under the others; skewed, as gains are."""
    rng = np.random.default_rng(0)
    values = rng.standard_normal((num_documents, num_columns))
    values += rng.exponential(1.0, (num_documents, 1)) - 1.0 + 0.005
    return values


def run_blocks(values: np.ndarray, num_draws: int) -> Any:
    """Ours, as a study calls it."""
    from lmdissect.shifts import ShiftConfig
    from lmdissect.shifts.estimate import estimate_means

    estimates, _ = estimate_means(values, ShiftConfig(num_draws=num_draws, ci_method="percentile"))
    return [estimates[0].ci_low, estimates[0].ci_high], [estimates[0].p_value, estimates[0].ci_method]


def run_plain(values: np.ndarray, num_draws: int) -> Any:
    """Our own plain way, which smaller sets get."""
    from lmdissect.shifts import bootstrap_means, sign_flip_p_values

    means = bootstrap_means(values, num_draws, np.random.default_rng(1))
    p_values = sign_flip_p_values(values, num_draws, np.random.default_rng(2))
    return np.quantile(means, [0.025, 0.975], axis=0)[:, 0].tolist(), [float(p_values[0]), "percentile"]


def run_numpy(values: np.ndarray, num_draws: int) -> Any:
    """What one writes first: indices, a mean, a loop."""
    rng = np.random.default_rng(1)
    means = np.stack([values[rng.integers(0, len(values), len(values))].mean(axis=0) for _ in range(num_draws)])
    return np.quantile(means, [0.025, 0.975], axis=0)[:, 0].tolist(), [None, "percentile"]


def run_scipy(values: np.ndarray, num_draws: int) -> Any:
    """One call for all columns, which shares the draws among them; batch=1 keeps its memory down."""
    from scipy import stats

    found = stats.bootstrap((values,), np.mean, axis=0, n_resamples=num_draws, batch=1, method="percentile", rng=np.random.default_rng(1))
    return [float(found.confidence_interval.low[0]), float(found.confidence_interval.high[0])], [None, "percentile"]


RUNNERS: dict[str, Callable[[np.ndarray, int], Any]] = dict(zip(TOOLS, (run_blocks, run_plain, run_numpy, run_scipy), strict=True))


def measure(tool: str, num_documents: int, num_columns: int, num_draws: int) -> dict[str, Any]:
    """One run in this process."""
    values = make_values(num_documents, num_columns)
    RUNNERS[tool](values[:50, :2], 100)  # imports are no part of it
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    interval, (p_value, method) = RUNNERS[tool](values, num_draws)
    return {
        "tool": tool,
        "seconds": time.perf_counter() - start,
        "draws": num_draws,
        "interval": interval,
        "p_value": p_value,
        "method": method,
        "input_gb": before / 1e6,
        "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
    }


def measure_apart(tool: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """One run in a process of its own."""
    options = ["--tool", tool, "--documents", str(arguments.documents), "--columns", str(arguments.columns), "--draws", str(PEER_DRAWS[tool])]
    threads = {name: str(arguments.threads) for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}
    done = subprocess.run([sys.executable, __file__, *options], check=True, capture_output=True, text=True, env={**os.environ, **threads})
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def format_page(rows: list[dict[str, Any]], arguments: argparse.Namespace) -> str:
    """The page of a run."""
    size = f"{arguments.documents:,} documents x {arguments.columns} columns x {NUM_DRAWS:,} draws"
    threads = f"{arguments.threads} thread{'s' if arguments.threads > 1 else ''}"
    packages = ", ".join(f"{name} {version(name)}" for name in ("numpy", "scipy"))
    lines = [
        "# Speed of the statistics",
        "",
        f"{size}: a study of five variants and thirty runs. Python {platform.python_version()}, {packages}, {platform.machine()},",
        f"{threads}, load average {os.getloadavg()[0]:.1f} of {os.cpu_count()} cores.",
        f"Made by `python benchmarks/resampling.py --threads {arguments.threads}`; every row is a process of its own. What each does is in the script's first lines.",
        "",
        f"| tool | draws made | seconds | seconds for {NUM_DRAWS:,} draws | peak memory | of which input | 95 % interval of the first column |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        scaled = row["seconds"] * NUM_DRAWS / row["draws"]
        whole = f"{scaled:,.0f} (extrapolated)" if row["draws"] < NUM_DRAWS else f"{scaled:,.1f}"
        low, high = row["interval"]
        interval = f"[{low:.5f}, {high:.5f}]" if row["draws"] >= NUM_DRAWS else f"[{low:.5f}, {high:.5f}] ({row['draws']} draws)"
        cells = (row["tool"], f"{row['draws']:,}", f"{row['seconds']:.1f}", whole, f"{row['peak_gb']:.2f} GB", f"{row['input_gb']:.2f} GB", interval)
        lines.append(f"| {' | '.join(cells)} |")
    lines += [
        "",
        "The first two rows include the sign-flip test, the others do not. How draws are made in blocks, and what that leaves of the plain bootstrap's",
        'distribution, is in `src/lmdissect/shifts/blocks.py` and in [method.md](method.md), "Many runs". `tests/unit/shifts/test_blocks.py` and',
        "`tests/numerics/test_interval_coverage.py` test it. A column that lacks other documents than the rest is a set of draws of its own in the plain way, and",
        "a further column in blocks.",
        "",
    ]
    return "\n".join(lines)


def coverage_table() -> str:
    """Share of nominal 95 % intervals that hold the truth, by number of seeds and the variance that seeds add to the mean."""
    from lmdissect.shifts import ShiftConfig
    from lmdissect.shifts.seeds import estimate_crossed

    config, rng = ShiftConfig(), np.random.default_rng(0)
    lines = ["    seeds    " + "".join(f"{number:>8}" for number in COVERAGE_SEEDS)]
    for added in COVERAGE_ADDED:
        cells = []
        for num_seeds in COVERAGE_SEEDS:
            covered = 0
            for _ in range(COVERAGE_STUDIES):
                documents = rng.standard_normal(COVERAGE_DOCUMENTS)
                of_seeds = np.sqrt(added * num_seeds / COVERAGE_DOCUMENTS) * rng.standard_normal((num_seeds, 1))
                noise = 0.5 * rng.standard_normal((num_seeds, COVERAGE_DOCUMENTS))
                covered += estimate_crossed(documents + of_seeds + noise, config).covers_zero
            cells.append(f"{100 * covered / COVERAGE_STUDIES:8.1f}")
        lines.append(f"    {added:<9g}" + "".join(cells))
    return "\n".join(lines)


def make_curve(rng: np.random.Generator, shifts: tuple[float, ...], num_seeds: int, spread: float) -> list[np.ndarray]:
    """Shifts at every point of a curve, shape (S, D) each: documents of their own throughout, and runs that stray by ``spread`` at every point."""
    documents = 1.0 + 0.1 * rng.standard_normal(CURVE_DOCUMENTS)
    shape = (num_seeds, CURVE_DOCUMENTS)
    return [shift * documents + spread * rng.standard_normal((num_seeds, 1)) + 0.05 * rng.standard_normal(shape) for shift in shifts]


def curve_table() -> str:
    """Share of nominal 95 % intervals that hold the true half point and the true rank, and how often two equal factors are called unequally fast."""
    from lmdissect.shifts import ShiftConfig
    from lmdissect.shifts.capacity import rank_interval
    from lmdissect.shifts.seeds import estimate_crossed
    from lmdissect.shifts.tempo import half_interval

    config, rng = ShiftConfig(), np.random.default_rng(0)
    lines = [f"    runs stray by {'':<12}" + "".join(f"{f'{number} seeds':>10}" for number in COVERAGE_SEEDS)]
    for spread in CURVE_SPREADS:
        cells: dict[str, list[str]] = {"half point": [], "one faster": [], "rank": []}
        for num_seeds in COVERAGE_SEEDS:
            halves, ranks, apart = [], [], []
            for _ in range(CURVE_STUDIES):
                curves = [make_curve(rng, CURVE_SHIFTS, num_seeds, spread) for _ in range(2)]
                found = [half_interval(np.array(CURVE_X), curve, config) for curve in curves if not estimate_crossed(curve[-1], config).covers_zero]
                halves += [low <= CURVE_X[1] <= high for low, high in found]
                apart.append(len(found) > 1 and not (found[0][0] <= found[1][1] and found[1][0] <= found[0][1]))
                points = make_curve(rng, RANK_SHIFTS, num_seeds, spread)
                if not estimate_crossed(points[-1], config).covers_zero:
                    low, high = rank_interval(np.array(RANKS), points, 0.5, config)
                    ranks.append(low <= RANKS[1] <= high)
            for name, values in zip(cells, (halves, apart, ranks), strict=True):
                cells[name].append(f"{100 * np.mean(values):10.1f}")
        lines += [f"    {spread:<6g} {name:<19}" + "".join(values) for name, values in cells.items()]
    return "\n".join(lines)


def main() -> None:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=NUM_DOCUMENTS)
    parser.add_argument("--columns", type=int, default=NUM_COLUMNS)
    parser.add_argument("--draws", type=int, default=NUM_DRAWS)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--tool", choices=TOOLS)
    parser.add_argument("--coverage", action="store_true")
    parser.add_argument("--coverage-curves", action="store_true")
    arguments = parser.parse_args()
    if arguments.coverage:
        print(coverage_table())
    elif arguments.coverage_curves:
        print(curve_table())
    elif arguments.tool:
        print(json.dumps(measure(arguments.tool, arguments.documents, arguments.columns, arguments.draws)))
    else:
        rows = []
        for tool in TOOLS:
            rows.append(measure_apart(tool, arguments))
            print(json.dumps(rows[-1]), flush=True)
        if (arguments.documents, arguments.columns) == (NUM_DOCUMENTS, NUM_COLUMNS):
            PAGE.write_text(format_page(rows, arguments), encoding="utf-8")


if __name__ == "__main__":
    main()
