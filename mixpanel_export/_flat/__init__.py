"""Flat tables. Each has one typed column for each property of a table of events or profiles, and is updated by batch.

Imports `_database`, `errors`, `results` and helpers. Start with `flatten`, then `update`.
"""
