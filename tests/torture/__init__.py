"""Torture: exports under random faults and kills, compared with the truth after every step.

Run `python -m tests.torture` from the root of the checkout, or `nox -s torture`. Every part is seeded, and a failure is
printed with the command that reproduces it. pytest collects nothing here; `tests/project/test_torture.py` runs a small
share of each part.
"""
