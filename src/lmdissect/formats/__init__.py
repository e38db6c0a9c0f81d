"""File layouts that two stages share: one writes them, another reads them, and neither knows the other."""
