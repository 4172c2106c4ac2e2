"""Keeps data sets outside the database file up to date with its tables.

Start with `publish`, the entry point. `source` reads the table, `plan` decides which days to write, `run` writes them, and
a store such as `folder` holds the files.
"""
