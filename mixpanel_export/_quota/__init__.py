"""Admits requests no faster than Mixpanel's quota allows, across all processes of one user on this machine.

Imports only `errors`, and `_config` and `_files` for the shared quota file. Start with `gate.Gate`. `windows` has
the arithmetic, `shared` the file that processes share, `statuses` the meaning of HTTP statuses, `retry_policy` the
retry policy.
"""
