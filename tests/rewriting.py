"""Documents, recipes and settings that the tests of rewriting share."""

import subprocess
import sys
from pathlib import Path

from lmdissect.recipes import Recipe, RewriteExample
from lmdissect.records import Document

CASUAL = Recipe(variant="casual", factor="style", instruction="Tell it to a friend.", keeps=("every number", "the subject"))
CONTROL = Recipe(variant="paraphrase", factor="control", instruction="Say it in other words.", keeps=("everything",))
FALSE = Recipe(
    variant="counterfactual",
    factor="factual",
    instruction="Make it false.",
    examples=(RewriteExample(document="Two and two is four.", rewrite="Two and two is nine."),),
)
PATIENTS = (
    "The trial had {} patients who were given the new drug for six weeks, and the authors report that most of them were better at the end of it."
)


def documents(number: int) -> list[Document]:
    """So many short documents, each with its own text."""
    return [Document(f"d{index}", PATIENTS.format(index)) for index in range(number)]


def server_process(*arguments: str) -> "tuple[subprocess.Popen[str], str]":
    """The misbehaving server in a process of its own, and its URL."""
    script = Path(__file__).parent / "llm_servers.py"
    process = subprocess.Popen([sys.executable, str(script), *arguments], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, process.stdout.readline().strip()
