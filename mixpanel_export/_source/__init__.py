"""Everything that speaks to Mixpanel: requests, responses, decoding and attempts.

Imports `_planning`, `_quota`, `_model` and small modules; never DuckDB or numpy, so that other engines can use it. Start
with `fetcher.Fetcher`, which calls `request.fetch` for each attempt.
"""
