"""All communication with Mixpanel: requests, responses, decoding and retries.

Imports `_planning`, `_quota`, `_model` and small modules, but never DuckDB or numpy, so that other engines can use it.
Start with `fetcher.Fetcher`, which calls `request.fetch` for each attempt.
"""
