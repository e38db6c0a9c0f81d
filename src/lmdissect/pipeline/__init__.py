"""Stages put together: `compare` (two models in, a report out), `probe_making` (documents in, an audited probe set out), `auditing`, `demo`.

Import from these modules: together they would load everything that any of them needs.
"""
