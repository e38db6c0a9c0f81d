"""The rules of an audit: bounds on measures, by factor and by variant, each with its reason."""

from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from lmdissect.audit.measures import MEASURES
from lmdissect.errors import UnreadableInputError, UserInputError
from lmdissect.plain_yaml import read_yaml
from lmdissect.recipes import AuditRule, Recipe
from lmdissect.store import fingerprint

__all__ = ["BUILTIN_RULES", "RuleBook", "broken_rules", "read_rules", "rules_hash"]

BUILTIN_RULES = Path(str(resources.files("lmdissect.audit") / "rules.yaml"))
"""The rules that ship; docs/audit.md says where their bounds come from."""

OWN_FACTOR = "any"
"""Entry of the book for factors that it does not know: a user's own."""


class RuleBook(BaseModel):
    """Rules by factor and by variant. A variant has the rules of its factor, but where it has its own for the same measure."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    factors: dict[str, tuple[AuditRule, ...]] = Field(description="factor to its rules; the entry 'any' serves factors that are not listed")
    variants: dict[str, tuple[AuditRule, ...]] = Field(default={}, description="variant to rules of its own")

    @model_validator(mode="after")
    def _names_known_measures(self) -> Self:
        for name, rules in (*self.factors.items(), *self.variants.items()):
            _check_measures(name, rules)
        return self

    def knows(self, variant: str, factor: str) -> bool:
        """Whether there are rules for this variant or its factor, other than those for a factor that is not known."""
        return variant in self.variants or _parts(factor) in {_parts(name) for name in self.factors}

    def rules_for(self, variant: str, factor: str, recipe: Recipe | None = None) -> tuple[AuditRule, ...]:
        """Rules of one variant: those of its recipe where that has any, else the book's.

        Raises:
            UserInputError: The recipe names a measure that does not exist.
        """
        if recipe is not None and recipe.audit is not None:
            _check_measures(f"recipe '{variant}'", recipe.audit)
            return recipe.audit
        own = self.variants.get(variant, ())
        named = {rule.measure for rule in own}
        by_parts = {_parts(name): rules for name, rules in self.factors.items()}
        inherited = by_parts.get(_parts(factor), self.factors.get(OWN_FACTOR, ()))
        return (*(rule for rule in inherited if rule.measure not in named), *own)


def _check_measures(where: str, rules: Iterable[AuditRule]) -> None:
    for rule in rules:
        if rule.measure not in MEASURES:
            message = f"{where}: no measure '{rule.measure}'; known are {', '.join(MEASURES)}"
            raise UserInputError(message)


def read_rules(path: Path = BUILTIN_RULES) -> RuleBook:
    """Rules from a YAML file with the keys ``factors`` and ``variants``.

    Raises:
        UnreadableInputError: The file is missing, not YAML, or not a book of rules; the message names the place.
        UserInputError: A rule names a measure that does not exist; the message lists those that do.
    """
    try:
        return RuleBook.model_validate(read_yaml(path))
    except UserInputError as error:
        message = f"{path}: {error}"
        raise UserInputError(message) from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "content"
        message = f"{path}: {where}: {first['msg'].removeprefix('Value error, ')}; docs/audit.md shows how rules are written"
        raise UnreadableInputError(message) from error
    except (ValueError, OSError) as error:
        reason = error.strerror if isinstance(error, OSError) else " ".join(str(error).split())
        message = f"{path}: cannot be read as rules ({reason}); check the path and the YAML"
        raise UnreadableInputError(message) from error


def _parts(factor: str) -> tuple[str, ...]:
    """``topic+style`` and ``style+topic`` are one combination."""
    return tuple(sorted(factor.split("+")))


def broken_rules(rules: Iterable[AuditRule], measures: Mapping[str, float]) -> list[tuple[str, str]]:
    """Measure and one-line reason of every rule that a pair breaks. A measure that the pair does not have breaks none."""
    broken = []
    for rule in rules:
        value = measures.get(rule.measure)
        if value is None:
            continue
        if rule.minimum is not None and value < rule.minimum:
            broken.append((rule.measure, f"{rule.measure} is {value:.4g}, below {rule.minimum:.4g}: {rule.reason}"))
        elif rule.maximum is not None and value > rule.maximum:
            broken.append((rule.measure, f"{rule.measure} is {value:.4g}, above {rule.maximum:.4g}: {rule.reason}"))
    return broken


def rules_hash(rules: Mapping[str, Iterable[AuditRule]]) -> str:
    """SHA-256 of the bounds by variant: equal rules give equal hashes, whatever their reasons say."""
    bounds: dict[str, Any] = {
        variant: sorted([rule.measure, rule.minimum, rule.maximum] for rule in found) for variant, found in sorted(rules.items())
    }
    return fingerprint([bounds])
