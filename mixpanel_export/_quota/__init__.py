"""Admits requests no faster than Mixpanel's quota allows, across all processes of one user on this machine.

Imports only `errors`, and `_environment` and `_files` for the shared quota file. Start with `gate.Gate`. `windows` has
the arithmetic, `shared` the file that processes share, `retry` the retry policy.
"""
