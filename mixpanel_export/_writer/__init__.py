"""Validates staged chunks and commits them as batches.

Start with `table`, then follow the data through `staging`, `validate` and `load`.
"""
