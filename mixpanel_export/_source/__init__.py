"""All communication with Mixpanel: requests, responses, decoding and retries.

It does not import DuckDB or numpy, not even indirectly, so that other engines can use it. Start with
`fetcher.Fetcher`, which calls `request.fetch` for each attempt.
"""
