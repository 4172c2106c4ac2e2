"""Flat tables: one typed column for each property, derived from an events table and updated batch by batch.

Imports `_database`, `_concurrency`, `errors` and `results`. Start with `flatten`.
"""
