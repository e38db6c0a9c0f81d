"""The examples run as they stand, on a comparison like the demo's."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from lmdissect.pipeline.study import make_study
from lmdissect.shifts import ShiftConfig, measure_shifts
from score_tables import documents_from_gains, save_scores

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
NOTEBOOK = EXAMPLES / "read-results.ipynb"


@pytest.fixture
def working_folder(tmp_path: Path) -> Path:
    """A folder with `runs/demo/biomedical` in it, made from numbers."""
    gains = {
        "original": [0.5, 0.4, 0.3, 0.6],
        "casual": [0.1, 0.2, 0.1, 0.2],
        "counterfactual": [0.5, 0.3, 0.3, 0.5],
        "paraphrase": [0.4, 0.4, 0.2, 0.5],
    }
    base, tuned = documents_from_gains(gains)
    save_scores(tmp_path / "scores" / "base", base, model="base")
    save_scores(tmp_path / "scores" / "tuned", tuned, model="tuned")
    measure_shifts(tmp_path / "scores" / "base", tmp_path / "scores" / "tuned", ShiftConfig(num_draws=100), tmp_path / "runs" / "demo" / "biomedical")
    return tmp_path


def test_script(working_folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / "read_results.py"), "runs/demo/biomedical"],
        cwd=working_folder,
        env=_environment(working_folder),
        check=True,
        capture_output=True,
        text=True,
    )
    assert re.search(r"style +casual +original +0\.30* ", done.stdout)
    assert "ok     scored under equal conditions" in done.stdout
    assert not done.stderr


def test_script_given_another_folder(working_folder: Path) -> None:
    """A study is told in sentences, a folder of results names what is inside: never a traceback."""
    demo = working_folder / "runs" / "demo"
    make_study([demo / "biomedical"], demo / "study", config=ShiftConfig(num_draws=100))
    outcomes = [
        subprocess.run(
            [sys.executable, str(EXAMPLES / "read_results.py"), folder],
            cwd=working_folder,
            env=_environment(working_folder),
            check=False,
            capture_output=True,
            text=True,
        )
        for folder in ("runs/demo/study", "runs/demo")
    ]
    assert [outcome.returncode for outcome in outcomes] == [0, 1]
    assert re.search(r"^(moved|not shown): ", outcomes[0].stdout, re.MULTILINE)
    assert re.search(r"^not computed: .*: \S", outcomes[0].stdout, re.MULTILINE)
    assert outcomes[1].stderr == "runs/demo holds no tables itself, and results inside: open one of runs/demo/biomedical, runs/demo/study\n"


@pytest.mark.parametrize("start", [".", "examples"])
def test_notebook(start: str, working_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the folder that a user works in, and from the notebook's own, where Jupyter starts its kernel."""
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    for name, value in _environment(working_folder).items():
        monkeypatch.setenv(name, value)
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    (working_folder / start).mkdir(exist_ok=True)
    nbclient.NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(working_folder / start)}}).execute()
    outputs = {cell["id"]: cell.get("outputs", []) for cell in notebook["cells"] if cell["cell_type"] == "code"}
    assert not [output for found in outputs.values() for output in found if output["output_type"] == "error" or output.get("name") == "stderr"]
    shown = outputs["open"][0]["data"]
    assert "factor shifts of one model pair: base base; tuned tuned" in shown["text/plain"]
    assert "<table" in shown["text/html"]
    assert "casual" in outputs["shifts"][0]["data"]["text/html"]
    assert any("image/png" in output.get("data", {}) for output in outputs["figure"])
    assert "True" in outputs["checks"][0]["data"]["text/plain"]


def test_notebook_is_stored_without_outputs() -> None:
    stored = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    code = [cell for cell in stored["cells"] if cell["cell_type"] == "code"]
    assert code
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)


def _environment(folder: Path) -> dict[str, str]:
    """Of a user's shell, with the state of Jupyter and matplotlib inside ``folder``."""
    own = {"IPYTHONDIR": "ipython", "JUPYTER_RUNTIME_DIR": "jupyter", "JUPYTER_CONFIG_DIR": "jupyter-config", "MPLCONFIGDIR": "matplotlib"}
    return {**os.environ, **{name: str(folder / value) for name, value in own.items()}, "PYTHONWARNINGS": "ignore"}
