"""How each variant is asked for: which factor it changes, in which words, what must stay, and what an audit demands of it."""

from lmdissect.recipes.recipe import AuditRule, Recipe, RewriteExample
from lmdissect.recipes.source import BUILTIN_RECIPES, read_recipes, select_recipes

__all__ = ["BUILTIN_RECIPES", "AuditRule", "Recipe", "RewriteExample", "read_recipes", "select_recipes"]
