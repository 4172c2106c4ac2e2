"""Keeps data sets outside the database file in step with its tables.

Start with `publish`, the entry point. `source` reads the table, `plan` decides which days are written, and a target such
as `folder` stores their files. `plan` has pure functions.
"""
