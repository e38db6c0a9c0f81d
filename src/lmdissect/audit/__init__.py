"""Did only this factor change? Measures of every pair, rules with reasons, a judge, and human sheets."""

from lmdissect.audit.judge import Judge, ScriptedJudge
from lmdissect.audit.measures import MEASURES, measure_pair
from lmdissect.audit.rules import BUILTIN_RULES, OWN_FACTOR, RuleBook, read_rules
from lmdissect.audit.run import audit_probe_set, audit_settings

__all__ = [
    "BUILTIN_RULES",
    "MEASURES",
    "OWN_FACTOR",
    "Judge",
    "RuleBook",
    "ScriptedJudge",
    "audit_probe_set",
    "audit_settings",
    "measure_pair",
    "read_rules",
]
