"""Turns staged chunks into committed batches.

Start with `table`, then follow the data through `staging`, `validate` and `load`.
"""
