"""Flat tables: one typed column for each property, derived from an events table and updated batch by batch.

Imports `_database`, `errors`, `results` and helpers. Start with `flatten`, then `update`.
"""
