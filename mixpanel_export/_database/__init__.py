"""The DuckDB file: connections, settings, tables and the ledger.

Imports `_model`, `_planning` and `_timezones`. Start with `schema`, then `ledger.Ledger`.
"""
