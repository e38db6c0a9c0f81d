"""Study artifact -> one page that people explore, its static figures and tables. No torch, no network."""

from lmdissect.report.study.write import write_study_report

__all__ = ["write_study_report"]
