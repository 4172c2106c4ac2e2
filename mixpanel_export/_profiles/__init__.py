"""One export of profiles, from its arguments to its result. It stores the pages of one session in one transaction.

Imports `_database`, `_flat`, `_source`, `_quota`, values and helpers. Start with `engine`, then `snapshot` and `table`.
"""
