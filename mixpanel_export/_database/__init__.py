"""The DuckDB file: its path, connections, settings, tables and the ledger.

Imports only `_model`, `_files`, `_config` and `errors`. Start with `schema`, then `ledger.Ledger`.
"""
