"""What is easy to break quietly: budgets, words, and that the documentation tells the truth about the code."""

import ast
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "lmdissect"
MODULES = sorted(SOURCE.rglob("*.py"))
MAX_FUNCTION_LINES = 75
MAX_MODULE_LINES = 520


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(SOURCE).as_posix())
def test_module_keeps_to_its_budget(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= MAX_MODULE_LINES
    tree = ast.parse(text)
    assert ast.get_docstring(tree), "every module says what it is"
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            first = node.body[0]
            docstring = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str)
            start = (first.end_lineno or node.lineno) if docstring else node.lineno
            assert (node.end_lineno or node.lineno) - start <= MAX_FUNCTION_LINES, node.name


@pytest.mark.parametrize("path", [path for path in MODULES if path.name == "__init__.py"], ids=lambda path: path.parent.name)
def test_public_names_are_sorted(path: Path) -> None:
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == "__all__":
            names = ast.literal_eval(node.value)
            assert sorted(names, key=lambda name: (not name.isupper(), not name[0].isupper(), name)) == names


def test_no_module_is_called_by_a_name_that_says_nothing() -> None:
    assert not {path.stem for path in MODULES} & {"utils", "util", "helpers", "helper", "common", "base", "manager", "misc"}


def tracked_files() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=False, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


def test_no_machine_paths_in_tracked_files() -> None:
    here = re.compile(rf"(?<!\w){re.escape(str(ROOT.parent))}(?!\w)")  # a folder of that name below another is no such path
    for path in tracked_files():
        if path.suffix in {".lock", ".gz"}:
            continue
        text = path.read_text(encoding="utf-8", errors="ignore")
        assert not here.search(text), path


def test_readme_is_short_and_names_real_files() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 150
    for name in re.findall(r"`((?:docs|src)/[\w/.-]+)`", text):
        assert (ROOT / name).exists(), name


@pytest.mark.parametrize("page", ["method.md", "architecture.md"])
def test_documentation_names_real_modules(page: str) -> None:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    for name in re.findall(r"`([a-z_]+/[a-z_]+\.py)`", text):
        assert (SOURCE / name).is_file(), name


def test_readme_python_imports_exist() -> None:
    block = re.search(r"## In Python\n\n((?:    .*\n|\n)+)", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert block
    imports = "\n".join(line.strip() for line in block.group(1).splitlines() if line.strip().startswith("from "))
    exec(compile(imports, "README.md", "exec"), {})


def test_version_is_one() -> None:
    import lmdissect

    assert tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"] == lmdissect.__version__
