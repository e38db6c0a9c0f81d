"""Probe sets: originals and variants, read from any form they are found in, written in ours, checked, and looked for in a corpus."""

from lmdissect.probes.audited import read_audit, write_audit
from lmdissect.probes.checks import OverLongText, ProbeCheck, VariantCheck, check_probe_set
from lmdissect.probes.folder import count_reasons, import_report, write_probe_set
from lmdissect.probes.identity import probe_fingerprint
from lmdissect.probes.overlap import OverlapMatch, OverlapReport, find_overlap
from lmdissect.probes.publish import PulledSet, PushedSet, StagedSet, pull_probe_set, push_probe_set, stage_probe_set
from lmdissect.probes.select import limit_documents
from lmdissect.probes.source import MADE_PROBES, probe_folder, read_probe_set

__all__ = [
    "MADE_PROBES",
    "OverLongText",
    "OverlapMatch",
    "OverlapReport",
    "ProbeCheck",
    "PulledSet",
    "PushedSet",
    "StagedSet",
    "VariantCheck",
    "check_probe_set",
    "count_reasons",
    "find_overlap",
    "import_report",
    "limit_documents",
    "probe_fingerprint",
    "probe_folder",
    "pull_probe_set",
    "push_probe_set",
    "read_audit",
    "read_probe_set",
    "stage_probe_set",
    "write_audit",
    "write_probe_set",
]
