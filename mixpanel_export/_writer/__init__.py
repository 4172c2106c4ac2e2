"""Turns staged chunks into committed batches.

Imports `_database` and `_model`. Start with `table`; then `staging`, `validate` and `load` in the order of the data.
"""
