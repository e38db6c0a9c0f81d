"""Shift tables -> figures, LaTeX, and one self-contained HTML page. No torch, no scripts, no network."""

from lmdissect.report.write import write_report

__all__ = ["write_report"]
