"""Admits requests no faster than Mixpanel's quota allows, across all of a user's processes on this machine.

Imports only `errors`, and `_config` and `_files` for the shared quota file. Start with `gate.Gate`. `windows` has the
arithmetic. `shared` has the requests that processes share in `file`. `statuses` has the meaning of HTTP statuses, and
`retry_policy` has the retry policy.
"""
