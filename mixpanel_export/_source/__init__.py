"""Everything that speaks to Mixpanel: requests, responses, decoding and attempts.

Imports `_planning`, `_quota` and `_model`; never DuckDB or numpy, so that other engines can use it. Start with
`fetcher.Fetcher`.
"""
