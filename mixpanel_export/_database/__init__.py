"""The DuckDB file: connections, settings, tables and the ledger.

Imports `_model`, `_files` and `_environment`. Start with `schema`, then `ledger.Ledger`.
"""
