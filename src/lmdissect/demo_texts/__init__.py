"""Small texts that ship with the package, so that the method can be tried with nothing downloaded. README.md beside them is their data card."""

from importlib import resources
from pathlib import Path

from lmdissect.errors import UserInputError

__all__ = ["DEMO_GENERATOR", "DEMO_TEXTS", "demo_text_path"]

DEMO_TEXTS = ("train", "biomedical", "general")
"""Names of the demo files: a small training corpus, and two probe sets in long form."""

DEMO_GENERATOR = "Claude, one prompt frame for control and variants"
"""Who wrote every text of the two probe sets, originals too."""


def demo_text_path(name: str) -> Path:
    """Path of one demo file.

    Args:
        name: ``train`` (fields document_id, text), ``biomedical`` or ``general`` (fields document_id, variant, text).

    Raises:
        UserInputError: There is no demo file of that name.
    """
    if name not in DEMO_TEXTS:
        message = f"no demo text named '{name}': choose one of {', '.join(DEMO_TEXTS)}"
        raise UserInputError(message)
    return Path(str(resources.files(__name__) / f"{name}.jsonl"))
