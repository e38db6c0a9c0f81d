"""Recipes from the built-in book and from files that users write."""

from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from lmdissect.errors import UnreadableInputError, UserInputError
from lmdissect.factors import CONTROL
from lmdissect.plain_yaml import read_yaml
from lmdissect.recipes.recipe import Recipe

__all__ = ["BUILTIN_RECIPES", "read_recipes", "select_recipes"]

BUILTIN_RECIPES = Path(str(resources.files("lmdissect.recipes") / "builtin.yaml"))
"""The ready-made recipes: the paper's variants, ours, and combinations."""


class _Book(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    recipes: tuple[Recipe, ...]


def read_recipes(paths: Iterable[Path] = ()) -> dict[str, Recipe]:
    """The built-in recipes and those of ``paths``, by variant name; a later file wins over an earlier one and over the built-in book.

    Raises:
        UnreadableInputError: A file is missing, not YAML, or not a list of recipes; the message names the place.
    """
    book: dict[str, Recipe] = {}
    for path in (BUILTIN_RECIPES, *paths):
        book.update(_read_book(path))
    return book


def select_recipes(book: Mapping[str, Recipe], wanted: Sequence[str], *, with_control: bool) -> list[Recipe]:
    """Recipes for ``FACTOR=VARIANT`` (or a factor or variant alone), without repeats, the control first.

    Args:
        book: All recipes, by variant name.
        wanted: What the user asked for: ``style=casual``; ``casual``; ``style`` for every recipe of that factor.
        with_control: Add the control where none was asked for: net shifts need one by the same writer and prompt frame.

    Raises:
        UserInputError: No such recipe, or it changes another factor than the user says.
    """
    chosen = {recipe.variant: recipe for request in wanted for recipe in _requested(book, request)}
    if with_control and not any(recipe.factor == CONTROL for recipe in chosen.values()):
        chosen = {recipe.variant: recipe for recipe in book.values() if recipe.factor == CONTROL} | chosen
    return sorted(chosen.values(), key=lambda recipe: recipe.factor != CONTROL)


def _requested(book: Mapping[str, Recipe], request: str) -> list[Recipe]:
    factor, equals, variant = request.partition("=")
    if not equals:
        found = [recipe for recipe in book.values() if request in (recipe.variant, recipe.factor)]
        if found:
            return found
        factor, variant = "", request
    recipe = book.get(variant)
    if recipe is None:
        known = ", ".join(f"{entry.factor}={entry.variant}" for entry in book.values())
        swapped = f" (did you mean {variant}={factor}?)" if factor in book else ""
        message = f"no recipe for '{request}'{swapped}: known are {known}; write your own with --recipes FILE.yaml"
        raise UserInputError(message)
    if factor and recipe.factor != factor:
        message = f"'{request}': the recipe '{variant}' changes {recipe.factor}, so write {recipe.factor}={variant}"
        raise UserInputError(message)
    return [recipe]


def _read_book(path: Path) -> dict[str, Recipe]:
    try:
        book = _Book.model_validate(read_yaml(path))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "content"
        message = f"{path}: {where}: {first['msg'].removeprefix('Value error, ')}; a recipe file is 'recipes:' and a list, as docs/how-to-add-a-factor.md shows"
        raise UnreadableInputError(message) from error
    except (ValueError, OSError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else " ".join(str(error).split())
        message = f"{path}: cannot be read as a recipe file ({reason}); check the path and the YAML"
        raise UnreadableInputError(message) from error
    names = [recipe.variant for recipe in book.recipes]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        message = f"{path}: two recipes for the variant '{twice[0]}'; rename one"
        raise UnreadableInputError(message)
    return {recipe.variant: recipe for recipe in book.recipes}
