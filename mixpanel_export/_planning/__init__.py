"""Plans the requests: converts dates, ledger rows and the quota into chunks.

Pure functions: no clock, no files, no network. Imports only `_model` and `errors`. Start with `planner.plan`.
"""
