"""Decides which requests to make: dates, ledger and quota become chunks.

Pure: no clock, no file, no network. Imports `_model` and `errors` only. Start with `planner.plan`.
"""
