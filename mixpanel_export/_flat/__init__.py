"""Flat tables: one typed column for each property, derived from a table of events or profiles, updated batch by batch.

Imports `_database`, `errors`, `results` and helpers. Start with `flatten`, then `update`.
"""
