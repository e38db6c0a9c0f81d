"""Stages put together: two models in, a report out."""

from lmdissect.pipeline.compare import CompareRequest, CompareSummary, compare
from lmdissect.pipeline.demo import run_demo

__all__ = ["CompareRequest", "CompareSummary", "compare", "run_demo"]
