"""Admits requests no faster than Mixpanel's quota allows, across all processes of one user on this machine.

Imports `errors`, and `_environment` and `_files` for the file between processes. Start with `gate.Gate`; `windows` is the
arithmetic, `shared` the file, `retry` the policy after failures.
"""
