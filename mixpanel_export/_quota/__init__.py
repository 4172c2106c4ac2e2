"""Admits requests no faster than Mixpanel's quota allows, across all processes of one user.

Imports `errors` only. Start with `gate.Gate`; `shared` is the file between processes, `retry` the policy after failures.
"""
